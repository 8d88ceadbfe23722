"""Normalised Chinese text -> phones, with pronunciations that the caller decides."""

import re
from collections.abc import Mapping, Sequence

from ...errors import TextError
from .normalizer import PAUSES, PUNCTUATION
from .readings import read_in_context, read_word
from .sandhi import apply_tone_rules
from .segmentation import segment
from .syllables import UNKNOWN, Syllable, parse_syllable, phones_of

Override = tuple[int, int, list[str]]

# Tone rules do not reach over a mark.
_SENTENCE = re.compile(rf"[^{re.escape(PUNCTUATION)}￥^]*[{re.escape(PUNCTUATION)}￥^]?")


def g2p(
    norm_text: str,
    overrides: Sequence[Override] = (),
    lexicon: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[str], list[int]]:
    """Phones of text that `normalize` returned, and how many of them each character has.

    overrides: pronunciations for character positions of `norm_text`, (start, end, syllables), one
        tone-numbered pinyin syllable a character (5 is the neutral tone). They are spoken as given; the
        tone rules of their neighbours see them.
    lexicon: pronunciations for words, wherever they occur, longest first; spoken as given, too. An override
        goes before the lexicon.

    Returns (phones, word2ph): two phones a syllable, one a punctuation mark (￥ and ^ are the pauses SP2 and
    SP3); len(word2ph) == len(norm_text) and sum(word2ph) == len(phones).

    Raises TextError for characters without a reading (so for text that is not normalised) and for
    pronunciations that do not fit the text.
    """
    fixed = read_in_context(norm_text) | _find_lexicon_words(norm_text, lexicon or {})
    for start, end, pinyin in overrides:
        fixed.update(_place(norm_text, start, end, pinyin))
    phones: list[str] = []
    word2ph: list[int] = []
    for syllable in _read(norm_text, fixed):
        spoken = _speak(syllable)
        phones.extend(spoken)
        word2ph.append(len(spoken))
    return phones, word2ph


def _speak(syllable: Syllable) -> tuple[str, ...]:
    if syllable.tone == UNKNOWN:
        raise TextError(f"no reading is known for {syllable.base!r}: give its pinyin or leave it out")
    if syllable.tone == 0:
        return (PAUSES.get(syllable.base, syllable.base),)
    return phones_of(syllable)


def _read(text: str, fixed: Mapping[int, Syllable]) -> list[Syllable]:
    """One syllable a character, with `fixed` ones at their positions."""
    syllables: list[Syllable] = []
    for sentence in filter(None, _SENTENCE.findall(text)):
        for word in segment(sentence):
            start = len(syllables)
            given = {at: fixed[start + at] for at in range(len(word.text)) if start + at in fixed}
            readings = list(read_word(word.text))
            for at, syllable in given.items():
                readings[at] = syllable
            apply_tone_rules(word, readings)
            for at, syllable in given.items():
                readings[at] = syllable
            syllables.extend(readings)
    return syllables


def _find_lexicon_words(text: str, lexicon: Mapping[str, Sequence[str]]) -> dict[int, Syllable]:
    fixed: dict[int, Syllable] = {}
    lengths = sorted({len(word) for word in lexicon if word}, reverse=True)
    position = 0
    while lengths and position < len(text):
        ends = (position + length for length in lengths)
        end = next((end for end in ends if text[position:end] in lexicon and end <= len(text)), None)
        if end is None:
            position += 1
            continue
        fixed.update(_place(text, position, end, lexicon[text[position:end]]))
        position = end
    return fixed


def _place(text: str, start: int, end: int, pinyin: Sequence[str]) -> dict[int, Syllable]:
    if not 0 <= start < end <= len(text):
        raise TextError(f"pronunciation {start}:{end} lies outside the text of {len(text)} characters")
    if len(pinyin) != end - start:
        raise TextError(
            f"pronunciation of {text[start:end]!r} has {len(pinyin)} syllables: give one for each character"
        )
    if any(char in PUNCTUATION or char in PAUSES for char in text[start:end]):
        raise TextError(f"{text[start:end]!r} contains punctuation, which has no pronunciation")
    return {start + at: parse_syllable(syllable) for at, syllable in enumerate(pinyin)}
