"""Cutting a text into the pieces that are spoken one at a time.

Six methods with the reference's names and quirks (GPT-SoVITS, TTS_infer_pack/text_segmentation_method.py and
TextPreprocessor.pre_seg_text): cut0 nothing, cut1 every four sentences, cut2 about fifty characters, cut3 at 。,
cut4 at the English full stop, cut5 at every mark. Texts may hold stand-ins for overrides (see markup.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from types import MappingProxyType

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.markup import is_override

TERMINALS = frozenset("，。？！,.?!~:：—…")
"""Marks that may end a piece; text without one gets a full stop."""

_LONGEST = 510  # BERT takes 512 tokens, two of them its own
_SHORTEST = 5
_SHORT_OPENING = 4
_BLANK = frozenset("!?…,.- ")
_CUT5_MARKS = frozenset(",.;?!、，。？！：…")
_REPEATED = re.compile(r"([!?…,.-])[!?…,.-]+")
_WORD = re.compile(r"\w")


def terminated(text: str, language: str) -> str:
    """The text with 。 (for "en" a full stop) unless it ends in a mark already."""
    return text if text[-1:] in TERMINALS else text + _full_stop(language)


def split(text: str, language: str, method: str = "cut5") -> list[str]:
    """Pieces to speak, each ending in a mark, none above 510 characters, none without a letter or digit.

    A text whose first clause is shorter than four characters gets a full stop in front (the models swallow a
    very short opening). Pieces below five characters join the next one. Empty when nothing can be spoken.

    Raises TextError for a method that is not in SPLIT_METHODS.
    """
    cut = _METHODS.get(method)
    if cut is None:
        raise TextError(f"unknown split method {method!r}: use one of {', '.join(SPLIT_METHODS)}")
    text = _REPEATED.sub(r"\1", text).strip("\n")
    if not text:
        return []
    opening = next((i for i, char in enumerate(text) if char in TERMINALS), len(text))
    if opening and len(text[:opening].strip()) < _SHORT_OPENING:
        text = _full_stop(language) + text
    lines = (line for piece in cut(text) for line in piece.split("\n"))
    pieces = _merge_short([line for line in lines if line not in ("", " ")])
    return [
        part
        for piece in pieces
        if _speakable(piece)
        for part in _limit(terminated(piece, language))
        if _speakable(part)
    ]


def _full_stop(language: str) -> str:
    return "." if language == "en" else "。"


def _speakable(text: str) -> bool:
    return _WORD.search(text) is not None or any(map(is_override, text))


def _merge_short(pieces: list[str]) -> list[str]:
    """Neighbours joined until each has five characters; a short rest joins the piece before it."""
    if len(pieces) < 2:
        return pieces
    merged: list[str] = []
    pending = ""
    for piece in pieces:
        pending += piece
        if len(pending) >= _SHORTEST:
            merged.append(pending)
            pending = ""
    if pending:
        merged[-1:] = [merged[-1] + pending] if merged else [pending]
    return merged


def _limit(piece: str) -> list[str]:
    """Parts of at most 510 characters, cut behind marks; where there is none, at a space or anywhere."""
    if len(piece) <= _LONGEST:
        return [piece]
    parts = [""]
    for clause in re.split(f"([{''.join(sorted(TERMINALS))}])", piece):
        if len(parts[-1]) + len(clause) > _LONGEST:
            parts.append("")
        parts[-1] += clause
    return [part for long in parts for part in _chop(long) if part]


def _chop(clause: str) -> Iterable[str]:
    while len(clause) > _LONGEST:
        end = clause.rfind(" ", 1, _LONGEST) + 1 or _LONGEST
        while end > 1 and is_override(clause[end]) and clause[end] == clause[end - 1]:
            end -= 1
        yield clause[:end]
        clause = clause[end:]
    yield clause


def _sentences(text: str) -> list[str]:
    """Stretches up to and with each mark; …… counts as 。 and —— as ，."""
    text = text.replace("……", "。").replace("——", "，")
    return re.findall(f"[^{_TERMINAL_CLASS}]*[{_TERMINAL_CLASS}]", terminated(text, "zh"))


_TERMINAL_CLASS = "".join(sorted(TERMINALS))


def _filled(pieces: Iterable[str]) -> list[str]:
    return [piece for piece in pieces if not _BLANK.issuperset(piece)]


def _cut0(text: str) -> list[str]:
    return _filled([text])


def _cut1(text: str) -> list[str]:
    sentences = _sentences(text)
    # The last group takes the remainder, so it has four to eight sentences; the text stays whole up to eight.
    starts = range(0, len(sentences), 4)[:-1]
    if not starts:
        return _filled([text])
    ends = [*starts[1:], len(sentences)]
    return _filled("".join(sentences[a:b]) for a, b in zip(starts, ends, strict=True))


def _cut2(text: str) -> list[str]:
    sentences = _sentences(text)
    if len(sentences) < 2:
        return [text]
    pieces = [""]
    for sentence in sentences:
        if len(pieces[-1]) > 50:
            pieces.append("")
        pieces[-1] += sentence
    if len(pieces) > 1 and len(pieces[-1]) < 50:
        last = pieces.pop()
        pieces[-1] += last
    return _filled(pieces)


def _cut3(text: str) -> list[str]:
    return _filled(text.strip("。").split("。"))


def _cut4(text: str) -> list[str]:
    return _filled(re.split(r"(?<!\d)\.(?!\d)", text.strip(".")))


def _cut5(text: str) -> list[str]:
    pieces = [""]
    for i, char in enumerate(text):
        pieces[-1] += char
        decimal_point = char == "." and text[i - 1 : i].isdigit() and text[i + 1 : i + 2].isdigit()
        if char in _CUT5_MARKS and not decimal_point:
            pieces.append("")
    return [piece for piece in pieces if not _CUT5_MARKS.issuperset(piece)]


_METHODS: MappingProxyType[str, Callable[[str], list[str]]] = MappingProxyType(
    {"cut0": _cut0, "cut1": _cut1, "cut2": _cut2, "cut3": _cut3, "cut4": _cut4, "cut5": _cut5}
)
SPLIT_METHODS: tuple[str, ...] = tuple(_METHODS)
