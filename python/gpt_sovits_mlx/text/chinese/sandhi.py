"""Tone changes inside a word: 不, 一, neutral tones, third tones, and the er that colours a syllable.

The rules are the reference's (tone_sandhi.py, after PaddleSpeech), kept with their quirks, for the published
weights were trained on their output. Each function changes the list of readings that it is given.
"""

from .segmentation import Word, halves, is_word
from .syllables import NEUTRAL, Syllable
from .words import ERHUA_WORDS, FULL_ER_WORDS, FULL_TONE_WORDS, NEUTRAL_WORDS

_MOOD_PARTICLES = frozenset("吧呢哈啊呐噻嘛吖嗨呐哦哒额滴哩哟喽啰耶喔诶")
_BEFORE_MEASURE_GE = frozenset("几有两半多各整每做是")
_MARKS_IN_WORDS = frozenset(",.?!￥^")


def apply_tone_rules(word: Word, syllables: list[Syllable]) -> None:
    """All rules for one word, in order; `syllables` holds one reading a character."""
    _change_bu(word.text, syllables)
    _change_yi(word.text, syllables)
    _neutralise(word, syllables)
    _change_third_tones(word.text, syllables)
    _colour_with_er(word, syllables)


def _set_tone(syllables: list[Syllable], position: int, tone: int) -> None:
    syllables[position] = syllables[position].toned(tone)


def _change_bu(text: str, syllables: list[Syllable]) -> None:
    if len(text) == 3 and text[1] == "不":  # 看不懂
        _set_tone(syllables, 1, NEUTRAL)
        return
    for position, char in enumerate(text[:-1]):
        if char == "不" and syllables[position + 1].tone == 4:
            _set_tone(syllables, position, 2)


def _change_yi(text: str, syllables: list[Syllable]) -> None:
    if "一" not in text or all(char.isnumeric() for char in text):
        return
    if len(text) == 3 and text[1] == "一" and text[0] == text[2]:  # 看一看
        _set_tone(syllables, 1, NEUTRAL)
    elif text.startswith("第一"):
        _set_tone(syllables, 1, 1)
    else:
        for position, char in enumerate(text[:-1]):
            if char != "一":
                continue
            if syllables[position + 1].tone == 4:
                _set_tone(syllables, position, 2)
            elif text[position + 1] not in _MARKS_IN_WORDS:
                _set_tone(syllables, position, 4)


def _neutralise(word: Word, syllables: list[Syllable]) -> None:
    if word == Word("地", "uv"):  # the adverb's particle; the dictionary reads 地 as the ground
        syllables[0] = Syllable("de", NEUTRAL)
        return
    if word.tag[0] in "nva" and word.text not in FULL_TONE_WORDS:
        _neutralise_doubled(word.text, syllables)
    position = _neutral_position(word)
    if position is not None:
        _set_tone(syllables, position, NEUTRAL)
    end = 0
    for part in halves(word.text):
        end += len(part)
        if _ends_in_neutral_word(part):
            _set_tone(syllables, end - 1, NEUTRAL)


def _neutralise_doubled(text: str, syllables: list[Syllable]) -> None:
    """妈妈, 高高兴兴; not where two words only meet in the same character (银行行长)."""
    for position in range(1, len(text)):
        if text[position] != text[position - 1]:
            continue
        if not _words_meet(text, position):
            _set_tone(syllables, position, NEUTRAL)


def _words_meet(text: str, position: int) -> bool:
    before, after = text[:position], text[position:]
    if min(len(before), len(after)) < 2 or before[-1] == before[-2]:
        return False
    return is_word(before) and is_word(after)


def _neutral_position(word: Word) -> int | None:
    """The character that is neutral for what the word ends in or consists of."""
    text, tag = word
    last, before = text[-1], text[-2:-1]
    ge = text.find("个")
    if last in _MOOD_PARTICLES or last in "的地得":
        return len(text) - 1
    if text in ("了", "着", "过") and tag in ("ul", "uz", "ug"):
        return 0
    if before and last in "们子" and tag in ("r", "n") and text not in FULL_TONE_WORDS:
        return len(text) - 1
    if before and last in "上下里" and tag in ("s", "l", "f"):  # 桌上, 家里
        return len(text) - 1
    if before and last in "来去" and before in "上下进出回过起开":  # 上来, 出去
        return len(text) - 1
    if text == "个" or (ge >= 1 and (text[ge - 1].isnumeric() or text[ge - 1] in _BEFORE_MEASURE_GE)):
        return ge
    return len(text) - 1 if _ends_in_neutral_word(text) else None


def _ends_in_neutral_word(text: str) -> bool:
    return text[-2:] in NEUTRAL_WORDS


def _change_third_tones(text: str, syllables: list[Syllable]) -> None:
    if len(text) == 2:
        _lift_first_of_pair(syllables, 0)
    elif len(text) == 3:
        _change_third_tones_of_three(text, syllables)
    elif len(text) == 4:  # an idiom of two and two
        _lift_first_of_pair(syllables, 0)
        _lift_first_of_pair(syllables, 2)


def _change_third_tones_of_three(text: str, syllables: list[Syllable]) -> None:
    boundary = len(halves(text)[0])
    if all(syllable.tone == 3 for syllable in syllables):
        if boundary == 2:  # 蒙古/包
            _set_tone(syllables, 0, 2)
            _set_tone(syllables, 1, 2)
        elif boundary == 1:  # 纸/老虎
            _set_tone(syllables, 1, 2)
    elif boundary == 2:
        _lift_first_of_pair(syllables, 0)  # 所有/人
    elif boundary == 1:
        if syllables[1].tone == syllables[2].tone == 3:
            _set_tone(syllables, 1, 2)
        elif syllables[0].tone == syllables[1].tone == 3:  # 好/喜欢
            _set_tone(syllables, 0, 2)


def _lift_first_of_pair(syllables: list[Syllable], start: int) -> None:
    if all(syllable.tone == 3 for syllable in syllables[start : start + 2]):
        _set_tone(syllables, start, 2)


def _colour_with_er(word: Word, syllables: list[Syllable]) -> None:
    """A final 儿 takes the tone of the syllable before it: 曲儿 is qu1 er1."""
    text, tag = word
    if len(text) < 2 or text[-1] != "儿" or syllables[-1].base != "er":
        return
    if syllables[-1].tone == 1:
        _set_tone(syllables, -1, 2)
    full = text in FULL_ER_WORDS or tag in ("a", "j", "nr")
    if (full and text not in ERHUA_WORDS) or text[-2:] in FULL_ER_WORDS:
        return
    if syllables[-1].tone in (2, NEUTRAL):
        _set_tone(syllables, -1, syllables[-2].tone)
