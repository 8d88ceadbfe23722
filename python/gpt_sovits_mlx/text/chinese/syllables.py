"""Pinyin syllables and the two phones, initial and final, that each of them is spoken as.

The phones are those of the opencpop set as GPT-SoVITS uses it: a syllable without consonant takes y, w or a
doubled vowel (AA, EE, OO) as its initial, ü is v, and i behind zh/ch/sh/r and z/c/s has symbols of its own.
"""

from functools import cache
from typing import NamedTuple

from ...errors import TextError

NEUTRAL = 5
UNKNOWN = -1

# Finals as they are written behind each initial; what stands in no row is not a syllable of Mandarin.
_OPEN = "a ai an ang ao"
_RETROFLEX = f"{_OPEN} e en eng i ou u ua uai uan uang ui un uo"
_WRITTEN_FINALS = {
    "b": f"{_OPEN} ei en eng i ian iao ie in ing o u",
    "p": f"{_OPEN} ei en eng i ian iao ie in ing o ou u",
    "m": f"{_OPEN} e ei en eng i ian iao ie in ing iu o ou u",
    "f": "a an ang ei en eng o ou u",
    "d": f"{_OPEN} e ei en eng i ia ian iao ie ing iu ong ou u uan ui un uo",
    "t": f"{_OPEN} e ei eng i ian iao ie ing ong ou u uan ui un uo",
    "n": f"{_OPEN} e ei en eng i ian iang iao ie in ing iu ong ou u uan un uo v ve",
    "l": f"{_OPEN} e ei eng i ia ian iang iao ie in ing iu o ong ou u uan un uo v ve",
    "g": f"{_OPEN} e ei en eng ong ou u ua uai uan uang ui un uo",
    "k": f"{_OPEN} e ei en eng ong ou u ua uai uan uang ui un uo",
    "h": f"{_OPEN} e ei en eng ong ou u ua uai uan uang ui un uo",
    "j": "i ia ian iang iao ie in ing iong iu u uan ue un",
    "q": "i ia ian iang iao ie in ing iong iu u uan ue un",
    "x": "i ia ian iang iao ie in ing iong iu u uan ue un",
    "zh": f"{_RETROFLEX} ei ong",
    "ch": f"{_RETROFLEX} ong",
    "sh": f"{_RETROFLEX} ei",
    "r": "an ang ao e en eng i ong ou u ua uan ui un uo",
    "z": f"{_OPEN} e ei en eng i ong ou u uan ui un uo",
    "c": f"{_OPEN} e ei en eng i ong ou u uan ui un uo",
    "s": f"{_OPEN} e en eng i ong ou u uan ui un uo",
    "y": "a an ang ao e i in ing o ong ou u uan ue un",
    "w": "a ai an ang ei en eng o u",
    "": f"{_OPEN} e ei en eng er o ou",
}
_GLIDE_FINALS = {"an": "En", "e": "E"}
_VOWEL_INITIALS = {"a": "AA", "e": "EE", "o": "OO"}
# The weights never heard (y, o): their training text had 哟 as a bare o.
_WRITTEN_AS_SPOKEN = {("y", "o"): ("", "o")}


class Syllable(NamedTuple):
    """One character's reading: a pinyin syllable with its tone (1 to 5), or the character itself.

    Then the tone is 0 for a punctuation mark and UNKNOWN for a character without a reading.
    """

    base: str
    tone: int

    def toned(self, tone: int) -> "Syllable":
        """The same syllable in another tone; what is no syllable has none."""
        return Syllable(self.base, tone) if self.tone > 0 else self


def parse_syllable(pinyin: str) -> Syllable:
    """'zhong4', 'lü4', 'lv4' or 'lu:4' -> Syllable; the tone is 1 to 5 (or 0), 5 and 0 being neutral.

    Raises TextError for what is not a syllable of Mandarin.
    """
    base = pinyin[:-1].lower().replace("u:", "v").replace("ü", "v")
    tone = pinyin[-1:]
    if base[:1] in ("j", "q", "x", "y"):
        base = base.replace("v", "u")
    elif base in ("nue", "lue"):
        base = base.replace("u", "v")
    if base not in _phones_of_bases() or tone not in ("0", "1", "2", "3", "4", "5"):
        raise TextError(f"{pinyin!r} is not a pinyin syllable: write it with its tone, like 'zhong4' or 'ma5'")
    return Syllable(base, int(tone) or NEUTRAL)


def syllable_to_phones(pinyin: str) -> tuple[str, str]:
    """Tone-numbered pinyin -> (initial, final with tone): 'zhong4' -> ('zh', 'ong4'), 'yuan2' -> ('y', 'van2').

    Raises TextError for what is not a syllable of Mandarin.
    """
    return phones_of(parse_syllable(pinyin))


def phones_of(syllable: Syllable) -> tuple[str, str]:
    """Phones of a syllable that `parse_syllable` has made."""
    initial, final = _phones_of_bases()[syllable.base]
    return initial, f"{final}{syllable.tone}"


@cache
def _phones_of_bases() -> dict[str, tuple[str, str]]:
    return {
        initial + final: _phones(initial, final)
        for initial, finals in _WRITTEN_FINALS.items()
        for final in finals.split()
    }


def _phones(initial: str, final: str) -> tuple[str, str]:
    """Symbols of a written initial and final."""
    initial, final = _WRITTEN_AS_SPOKEN.get((initial, final), (initial, final))
    if not initial:
        return _VOWEL_INITIALS[final[0]], final
    if final == "i":
        if initial in ("zh", "ch", "sh", "r"):
            return initial, "ir"
        if initial in ("z", "c", "s"):
            return initial, "i0"
    if initial in ("j", "q", "x", "y") and final.startswith("u"):
        return initial, "v" + final[1:]
    if initial == "y":
        return initial, _GLIDE_FINALS.get(final, final)
    return initial, final
