"""Pronunciations written into the text: `{重庆|chong2 qing4}`, `{live|L AY1 V}`.

A brace, the word as it should be shown and understood, a bar, its pronunciation, a brace. Ordinary text does not
look like that; a brace without a bar stays what it was. A word with Chinese characters takes one pinyin syllable
with its tone (1 to 5) a character, any other word takes ARPAbet with stress marks (upper or lower case).

Inside the front end every character of such a word becomes one private-use character that stands for the whole
override. It has the length of the word, is neither punctuation, digit nor space, and so passes untouched through
splitting, language segmentation and normalisation; `Markup.restore` gives the word back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.symbols import ARPABET

# Plane 15 is private: no text has a meaning there, and 65,534 overrides fit.
_FIRST, _LAST = 0xF0000, 0xFFFFD
OVERRIDE_CLASS = f"{chr(_FIRST)}-{chr(_LAST)}"
"""For a regular expression's character class: the characters that stand for overrides."""

_MARKUP = re.compile(r"\{([^{}|\n]+)\|([^{}|\n]*)\}")
PRIVATE = re.compile(f"[{OVERRIDE_CLASS}]")
"""One character that stands for an override."""

_RUN = re.compile(f"([{OVERRIDE_CLASS}])\\1*")
_HAN = re.compile(r"[\u3400-\u9fff\U00020000-\U000323af]")


@dataclass(frozen=True)
class Override:
    """A word and how to say it: language "zh" with one syllable a character, or "en" with ARPAbet."""

    word: str
    language: str
    phones: tuple[str, ...]


def is_han(char: str) -> bool:
    """Whether the character is a Chinese ideograph."""
    return _HAN.match(char) is not None


def parse_pronunciation(word: str, spoken: str) -> Override:
    """An override for `word`, or TextError that names what is wrong with `spoken`."""
    units = tuple(spoken.split())
    if not word.strip() or not units:
        raise TextError(f"override {{{word}|{spoken}}} lacks its word or its pronunciation")
    if not _HAN.search(word):
        arpabet = tuple(unit.upper() for unit in units)
        for unit in arpabet:
            if unit not in ARPABET:
                raise TextError(f"{unit!r} in the pronunciation of {word!r} is not ARPAbet (vowels need a stress: AY1)")
        return Override(word, "en", arpabet)
    if not all(map(is_han, word)):
        raise TextError(f"override {word!r} mixes Chinese with other characters: write one override for each part")
    if len(units) != len(word):
        raise TextError(f"{word!r} has {len(word)} characters but {len(units)} pinyin syllables")
    _check_pinyin(word, units)
    return Override(word, "zh", units)


def _check_pinyin(word: str, syllables: tuple[str, ...]) -> None:
    from gpt_sovits_mlx.text.chinese import syllable_to_phones

    for syllable in syllables:
        try:
            syllable_to_phones(syllable)
        except TextError as error:
            raise TextError(f"pronunciation of {word!r}: {error}") from None


def collapse_overrides(text: str) -> str:
    """The text with one character for each override instead of one for each character of its word."""
    return _RUN.sub(r"\1", text)


class Markup:
    """The overrides of one text: hands out the characters that stand for them and takes these back."""

    def __init__(self) -> None:
        self._overrides: list[Override] = []

    def add(self, override: Override) -> str:
        """What stands for the override in the text: as many private characters as the word has."""
        if _FIRST + len(self._overrides) > _LAST:
            raise TextError("the text holds more than 65,534 pronunciation overrides: speak it in parts")
        self._overrides.append(override)
        return chr(_FIRST + len(self._overrides) - 1) * len(override.word)

    def extract(self, text: str) -> str:
        """The text with each inline override replaced by its stand-in; private characters of its own go."""
        return _MARKUP.sub(lambda m: self.add(parse_pronunciation(m[1], m[2])), PRIVATE.sub("", text))

    def __getitem__(self, char: str) -> Override:
        return self._overrides[ord(char) - _FIRST]

    def language(self, char: str) -> str:
        """Language of the override that the character stands for."""
        return self[char].language

    def runs(self, text: str) -> list[tuple[int, int, Override]]:
        """(start, end, override) of every stand-in, in order."""
        return [(m.start(), m.end(), self[m[1]]) for m in _RUN.finditer(text)]

    def restore(self, text: str) -> str:
        """The text with the words themselves again."""
        return _RUN.sub(lambda m: self[m[1]].word, text)


def is_override(char: str) -> bool:
    """Whether the character stands for an override."""
    return _FIRST <= ord(char) <= _LAST
