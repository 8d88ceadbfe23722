"""The phone inventories of GPT-SoVITS: 322 symbols for v1, 732 for every later version.

An id is a position in one of these tables, and the published weights hold one embedding row per id, so the
order is fixed for ever. The first 322 entries are the same in both: the Mandarin, Japanese and English phones
with the pauses, sorted. The later table appends the Japanese accent brackets, then Korean jamo and Cantonese
(Jyutping with a leading Y), each sorted on its own.

Source: GPT-SoVITS, GPT_SoVITS/text/symbols.py and symbols2.py (inventory and order).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import MappingProxyType

from gpt_sovits_mlx.errors import TextError


def split_words(words: str) -> list[str]:
    """Words of a table written as text."""
    return words.split()


UNKNOWN = "UNK"
PUNCTUATION = ("!", "?", "…", ",", ".", "-")
_PAUSES = ("_", "SP", "SP2", "SP3", UNKNOWN)

_ZH_INITIALS = split_words("AA EE OO b c ch d f g h j k l m n p q r s sh t w x y z zh")
_ZH_FINALS = split_words(
    "E En a ai an ang ao e ei en eng er i i0 ia ian iang iao ie in ing iong ir iu o ong ou u ua uai uan uang "
    "ui un uo v van ve vn"
)
_JA = split_words("I N U a b by ch cl d dy e f g gy h hy i j k ky m my n ny o p py r ry s sh t ts u v w y z")
_EN_VOWELS = split_words("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW")
_EN_CONSONANTS = split_words("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH")
_EN_BARE_VOWELS = ("ER", "IH")

_KO = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎㅏㅐㅓㅔㅗㅜㅡㅣ空停"

_YUE_BARE = split_words("a aa ai ak au b c d e f g gw h j k kw l m n ng o oi ok on ou p s t uk w z")
_YUE_TONED = split_words(
    "a aa aai aak aam aan aang aap aat aau ai ak am an ang ap at au e ei ek eng eoi eon eot g i ik im in ing "
    "ip it iu k m n o oe oek oeng oi ok on ong ot ou p t u ui uk un ung ut yu yun yut"
)


def _toned(finals: Iterable[str], tones: Iterable[int]) -> list[str]:
    return [f"{final}{tone}" for final in finals for tone in tones]


_BASE = sorted(
    {
        *PUNCTUATION,
        *_PAUSES,
        *_ZH_INITIALS,
        *_toned(_ZH_FINALS, range(1, 6)),
        *_JA,
        *_EN_CONSONANTS,
        *_toned(_EN_VOWELS, range(3)),
        *_EN_BARE_VOWELS,
    }
)
_YUE = sorted(f"Y{phone}" for phone in {*_YUE_BARE, *_toned(_YUE_TONED, range(1, 7))})

SYMBOLS_V1: tuple[str, ...] = tuple(_BASE)
SYMBOLS_V2: tuple[str, ...] = (*_BASE, "[", "]", *sorted(_KO), *_YUE)
SYMBOL_TABLES = MappingProxyType({"v1": SYMBOLS_V1, "v2": SYMBOLS_V2})

ARPABET = frozenset({*_EN_CONSONANTS, *_toned(_EN_VOWELS, range(3))})


class SymbolTable:
    """One inventory with its ids. Immutable."""

    def __init__(self, name: str) -> None:
        if name not in SYMBOL_TABLES:
            raise TextError(f"unknown symbol table {name!r}: use one of {', '.join(SYMBOL_TABLES)}")
        self.name = name
        self.symbols = SYMBOL_TABLES[name]
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, phone: object) -> bool:
        return phone in self._ids

    def known(self, phones: Iterable[str]) -> tuple[str, ...]:
        """The phones with every one that the table lacks replaced by UNK, as the reference does."""
        return tuple(phone if phone in self._ids else UNKNOWN for phone in phones)

    def ids(self, phones: Iterable[str]) -> tuple[int, ...]:
        """Ids of phones that are all in the table; a foreign one raises TextError."""
        try:
            return tuple(self._ids[phone] for phone in phones)
        except KeyError as error:
            raise TextError(f"phone {error.args[0]!r} is not in symbol table {self.name!r}") from None


@cache
def symbol_table(name: str) -> SymbolTable:
    """The shared table called "v1" or "v2"; another name raises TextError."""
    return SymbolTable(name)
