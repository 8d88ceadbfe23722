"""Dictionary readings of words (pypinyin), before any tone rule."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from ...errors import TextError
from .normalizer import PAUSES, PUNCTUATION
from .syllables import UNKNOWN, Syllable, parse_syllable
from .words import LONG_WORDS

_LOCK = threading.Lock()
_LONG = Syllable("chang", 2)
# 长 behind an adverb of degree or a unit of length is 'long', unless something grows (长大, 长出来).
_LONG_ALONE = re.compile("(?:很|太|最|更|挺|较|真|这么|那么|一样|公里|英里|[米寸尺])(长)(?![大高出得满成胖着在])")
_MARKS = frozenset(PUNCTUATION) | PAUSES.keys()


@lru_cache(maxsize=65536)
def read_word(word: str) -> tuple[Syllable, ...]:
    """One reading a character; a punctuation mark is its own reading, with tone 0.

    A character that no dictionary reads (兙 and other rare ones) comes back as itself with tone UNKNOWN.
    """
    readings = _reader()(word)
    if len(readings) != len(word):  # several unknown characters in a row are one item
        readings = [reading for char in word for reading in _reader()(char)]
    syllables = (_syllable(char, reading) for char, reading in zip(word, readings, strict=True))
    if word in LONG_WORDS:
        return tuple(_LONG if char == "长" else syllable for char, syllable in zip(word, syllables, strict=True))
    return tuple(syllables)


def read_in_context(text: str) -> dict[int, Syllable]:
    """Readings, by position in the text, that no dictionary of words can know."""
    return {match.start(1): _LONG for match in _LONG_ALONE.finditer(text)}


def _syllable(char: str, reading: str) -> Syllable:
    if char in _MARKS:
        return Syllable(char, 0)
    try:
        return parse_syllable(reading)
    except TextError:
        return Syllable(char, UNKNOWN)


def _reader() -> Callable[[str], Sequence[str]]:
    with _LOCK:
        return _load_reader()


@cache
def _load_reader() -> Callable[[str], Sequence[str]]:
    from pypinyin import Style, lazy_pinyin

    def read(word: str) -> Sequence[str]:
        return lazy_pinyin(word, style=Style.TONE3, neutral_tone_with_five=True)

    return read
