"""Which stretch of a text is Chinese and which English.

Ideographs are Chinese and Latin letters English; punctuation belongs to what stands before it, and a number to
one of its neighbours by the reference's rules (GPT-SoVITS, text/LangSegmenter). The reference asks a language
model besides, which only matters for languages that we do not speak: it takes 和 for Japanese and café for French.
A unit behind a number (25kg) stays with the number, so that 重25kg is read in Chinese.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.english.normalize import ADDRESS
from gpt_sovits_mlx.text.markup import is_han, is_override

Piece = tuple[str, str]
"""Language ("zh" or "en") and text."""

# While sorting, a piece may also be a number or a sign that follows its neighbours.
_NUMBER, _SIGN = "number", "sign"
_PUNCTUATION = frozenset("〜~,.;:!?，。！？；：、·([{<（【《〈「『“‘)]}>）】》〉」』”’\"-_—#$%&…￥'*+=@\\^`|\n\r")
_CLAUSE_MARKS = frozenset(",.!?，。！？")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
_FOREIGN = (("Japanese", re.compile("[\u3041-\u30fa\u30fc]")), ("Korean", re.compile("[\u1100-\u11ff\uac00-\ud7af]")))
_UNIT = re.compile(
    r"(?:[mc]m[²³23]?|k?m[²³23]?|[dnμu]m|[kmμ]?g|t|m?[lL]|km/h|m/s|m?s|min|h|d[bB]|[kMG]?Hz|kWh?|W|V|mAh?|k?Pa|k?cal|kJ)"
    r"(?![A-Za-z0-9])|°[CF](?![A-Za-z])"
)


def segment(text: str, language: str, override_language: Callable[[str], str]) -> list[Piece]:
    """Pieces of alternating language whose texts join to `text`.

    language: "zh" or "auto" (Chinese with English inside), "all_zh" (numbers always Chinese), "en" (all
    English). override_language gives the language of a character that stands for an override.

    Raises TextError when "auto" meets Japanese or Korean letters; "zh" leaves them to be dropped.
    """
    if language == "auto":
        _refuse_foreign(text)
    if language == "en":
        kinds = [override_language(char) if is_override(char) else "en" for char in text]
        return _join(list(zip(kinds, text, strict=True)))
    pieces = _join(_classify(text, override_language))
    if language == "all_zh":
        return _join([("en" if kind == "en" else "zh", part) for kind, part in pieces])
    return _place_signs(_place_numbers(pieces))


def _refuse_foreign(text: str) -> None:
    for name, letters in _FOREIGN:
        if match := letters.search(text):
            raise TextError(f"{match[0]!r} is {name}, which is not supported: use Chinese and English only")


def _join(pieces: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for kind, part in pieces:
        if joined and joined[-1][0] == kind:
            joined[-1] = (kind, joined[-1][1] + part)
        else:
            joined.append((kind, part))
    return joined


def _classify(text: str, override_language: Callable[[str], str]) -> list[Piece]:
    """A kind for every character; leading punctuation goes to the first character that has one."""
    pieces: list[Piece] = []
    leading = ""
    position = 0
    while position < len(text):
        kind, end = _kind(text, position, pieces[-1][0] if pieces else "", override_language)
        part = text[position:end]
        position = end
        if kind or pieces:
            pieces.append((kind or pieces[-1][0], leading + part))
            leading = ""
        else:
            leading += part
    return pieces or [("zh", leading)]


def _kind(text: str, at: int, before: str, override_language: Callable[[str], str]) -> tuple[str, int]:
    """Kind of the character (or of the unit behind a number) at `at`, "" for punctuation, and where it ends."""
    char = text[at]
    if is_override(char):
        return override_language(char), at + 1
    if before == _NUMBER and (unit := _UNIT.match(text, at)):
        return _NUMBER, unit.end()
    if not _continues_word(text, at) and (address := ADDRESS.match(text, at)):
        return "en", address.end()
    if char in _PUNCTUATION or char.isspace():
        return "", at + 1
    if is_han(char) or any(letters.match(char) for _, letters in _FOREIGN):
        return "zh", at + 1
    if char.isdigit():
        return _NUMBER, at + 1
    if _LATIN.match(char):
        return "en", at + 1
    # A sign inside a word or a number is part of it; elsewhere it waits for _place_signs.
    return (before if before in ("en", _NUMBER) else _SIGN), at + 1


def _continues_word(text: str, at: int) -> bool:
    return at > 0 and text[at - 1].isascii() and text[at - 1].isalnum()


def _place_numbers(pieces: list[Piece]) -> list[Piece]:
    """Numbers take the language on both sides; between two, that of the clause they stand in, else the longer."""
    placed: list[Piece] = []
    for i, (kind, part) in enumerate(pieces):
        following = next((piece for piece in pieces[i + 1 :] if piece[0] not in (_NUMBER, _SIGN)), None)
        if kind == _NUMBER:
            kind = _language_of_number(part, placed, following)
        placed = _join([*placed, (kind, part)])
    return placed


def _language_of_number(part: str, before: list[Piece], following: Piece | None) -> str:
    previous = next((piece for piece in reversed(before) if piece[0] != _SIGN), None)
    if previous is None or following is None:
        only = previous or following
        return only[0] if only else "zh"
    if previous[0] == following[0]:
        return previous[0]
    if previous[1][-1] in _CLAUSE_MARKS:
        return following[0]
    if part[-1] in "。." or len(previous[1]) >= len(following[1]):
        return previous[0]
    return following[0]


def _place_signs(pieces: list[Piece]) -> list[Piece]:
    """Signs go with what stands before them, at the head with what follows."""
    first = next((kind for kind, _ in pieces if kind != _SIGN), "zh")
    placed: list[Piece] = []
    for kind, part in pieces:
        if kind == _SIGN:
            kind = placed[-1][0] if placed else first
        placed.append((kind, part))
    return _join(placed)
