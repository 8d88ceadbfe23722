"""A user's own pronunciations: one word a line, `word<TAB>pinyin or ARPAbet`, `#` starts a comment line.

    # names
    重庆	chong2 qing4
    GitHub	G IH1 T HH AH2 B

Chinese words are found in normalised text (longest first), others in the text as written: whole words, in any
case. An inline override goes before the lexicon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.markup import Markup, Override, parse_pronunciation

Entries = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Lexicon:
    """Pronunciations by language: Chinese words with their syllables, lower-case other words with an override."""

    chinese: Mapping[str, list[str]] = field(default_factory=dict)
    english: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _words: re.Pattern[str] | None = None

    def mark(self, text: str, markup: Markup) -> str:
        """The text with stand-ins for the words that are not Chinese."""
        if self._words is None:
            return text
        return self._words.sub(lambda m: markup.add(Override(m[0], "en", self.english[m[0].lower()])), text)


def load_lexicon(source: str | Path | Entries | None) -> Lexicon:
    """A lexicon from a UTF-8 file, or from a mapping word -> pronunciation.

    Raises TextError with file and line number for a line that is not `word<TAB>pronunciation`, for wrong
    pinyin or ARPAbet, and for a file that cannot be read.
    """
    if source is None:
        return Lexicon()
    if isinstance(source, Mapping):
        spoken = ((word, said if isinstance(said, str) else " ".join(said)) for word, said in source.items())
        return _build(parse_pronunciation(word, said) for word, said in spoken)
    return _build(_read(Path(source)))


def _read(path: Path) -> Iterable[Override]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"lexicon {path} cannot be read as UTF-8 text: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        word, tab, said = line.partition("\t")
        if not tab or not word.strip() or not said.strip():
            raise TextError(f"{path}, line {number}: want word<TAB>pronunciation, have {line!r}")
        try:
            yield parse_pronunciation(word.strip(), said)
        except TextError as error:
            raise TextError(f"{path}, line {number}: {error}") from None


def _build(entries: Iterable[Override]) -> Lexicon:
    chinese: dict[str, list[str]] = {}
    english: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if entry.language == "zh":
            chinese[_simplified(entry.word)] = list(entry.phones)
        else:
            english[entry.word.lower()] = entry.phones
    words = "|".join(re.escape(word) for word in sorted(english, key=len, reverse=True))
    pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])", re.IGNORECASE) if english else None
    return Lexicon(chinese, english, pattern)


def _simplified(word: str) -> str:
    """The word as normalised text has it, where traditional characters have become simplified ones."""
    from gpt_sovits_mlx.text.chinese import normalize

    return normalize(word)
