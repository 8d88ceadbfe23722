"""Text -> what the models read: phones with their ids, and how many phones each Chinese character has.

The path of GPT-SoVITS (TTS_infer_pack/TextPreprocessor.py, text/cleaner.py): collapse repeated marks, lead a
very short opening in with a full stop, cut, segment by language, normalise and pronounce each segment, join.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_sovits_mlx.errors import TextError
from gpt_sovits_mlx.text.lexicon import Entries, load_lexicon
from gpt_sovits_mlx.text.markup import PRIVATE, Markup, collapse_overrides
from gpt_sovits_mlx.text.segment import segment
from gpt_sovits_mlx.text.split import split, terminated
from gpt_sovits_mlx.text.symbols import PUNCTUATION, symbol_table

LANGUAGES: tuple[str, ...] = ("auto", "zh", "en", "all_zh")
"""auto and zh: Chinese with English inside; all_zh: the same with every number read in Chinese; en: English."""

# Fewer phones make the GPT babble: a short text is spoken with a full stop in front, a short English one with a
# comma.
_FEWEST_PHONES = 6
_FEWEST_ENGLISH_PHONES = 4
# Ideographs, the same in both scripts, that mean nothing to any rule of the Chinese normaliser.
_NEUTRAL_HAN = "彳亍圩圪圯邗"
_SILENT = frozenset({*PUNCTUATION, "SP", "SP2", "SP3", "UNK"})
_WIDE_LETTERS = {wide: wide - 0xFEE0 for wide in (*range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}


@dataclass(frozen=True)
class Segment:
    """A stretch of one language.

    language: "zh" or "en". text: as given; norm_text: as it is spoken. phones and phone_ids: of equal length.
    word2ph: phones of each character of norm_text (zh), None (en).
    """

    language: str
    text: str
    norm_text: str
    phones: tuple[str, ...]
    phone_ids: tuple[int, ...]
    word2ph: tuple[int, ...] | None

    def to_json(self) -> dict[str, Any]:
        """Every field in plain JSON types."""
        return {
            "language": self.language,
            "text": self.text,
            "norm_text": self.norm_text,
            "phones": list(self.phones),
            "phone_ids": list(self.phone_ids),
            "word2ph": None if self.word2ph is None else list(self.word2ph),
        }


@dataclass(frozen=True)
class Utterance:
    """A piece of text ready for the models: its segments, and their joined norm_text, phones and phone_ids.

    word2ph: joined too when every segment is Chinese, else None.
    """

    text: str
    norm_text: str
    phones: tuple[str, ...]
    phone_ids: tuple[int, ...]
    word2ph: tuple[int, ...] | None
    segments: tuple[Segment, ...]

    def to_json(self) -> dict[str, Any]:
        """norm_text, phones, phone_ids, word2ph and segments in plain JSON types."""
        return {
            "norm_text": self.norm_text,
            "phones": list(self.phones),
            "phone_ids": list(self.phone_ids),
            "word2ph": None if self.word2ph is None else list(self.word2ph),
            "segments": [part.to_json() for part in self.segments],
        }


class TextFrontend:
    """Pronounces Chinese and English text. Immutable; one object may serve many threads.

    symbols: "v1" or "v2" (every later version). lexicon: a file or a mapping, see lexicon.py.
    """

    def __init__(self, symbols: str = "v2", lexicon: str | Path | Entries | None = None) -> None:
        self._table = symbol_table(symbols)
        self._lexicon = load_lexicon(lexicon)

    def utterances(self, text: str, language: str = "auto", split_method: str = "cut5") -> list[Utterance]:
        """The text cut into pieces, each ready for the models.

        Raises TextError for an unknown language or split method, a wrong override, and a text in which nothing
        can be spoken.
        """
        marked, markup = self._mark(text, language)
        spoken = (self._pronounce(piece, language, markup) for piece in split(marked, language, split_method))
        found = [utterance for utterance in spoken if _audible(utterance)]
        if not found:
            raise TextError(f"nothing to speak in {_shown(text)}: give it words")
        return found

    def utterance(self, text: str, language: str) -> Utterance:
        """The text as one piece: the way of a reference's transcript. A missing final mark is added.

        Raises TextError like `utterances`.
        """
        marked, markup = self._mark(text, language)
        return self._piece(terminated(marked.strip("\n"), language), language, markup, text)

    def piece(self, text: str, language: str) -> Utterance:
        """The text exactly as it stands: neither cut, nor led in, nor ended with a mark.

        Raises TextError like `utterances`.
        """
        marked, markup = self._mark(text, language)
        return self._piece(marked, language, markup, text)

    def _mark(self, text: str, language: str) -> tuple[str, Markup]:
        """The text with stand-ins for its overrides and for the lexicon's words."""
        if language not in LANGUAGES:
            raise TextError(f"language {language!r} is not supported: use one of {', '.join(LANGUAGES)}")
        if not text.strip():
            raise TextError("the text is empty: give it words")
        markup = Markup()
        marked = markup.extract(text).translate(_WIDE_LETTERS)
        return self._lexicon.mark(marked, markup), markup

    def _piece(self, marked: str, language: str, markup: Markup, text: str) -> Utterance:
        utterance = self._pronounce(marked, language, markup)
        if not _audible(utterance):
            raise TextError(f"nothing to speak in {_shown(text)}: give it words")
        return utterance

    def _pronounce(self, marked: str, language: str, markup: Markup, last_try: bool = False) -> Utterance:
        text = re.sub(" {2,}", " ", marked)
        pieces = segment(text if language == "en" else text.strip(), language, markup.language)
        spoken = [self._speak(piece_language, piece, markup) for piece_language, piece in pieces]
        segments = tuple(part for part in spoken if part.phones)
        phones = tuple(phone for part in segments for phone in part.phones)
        if len(phones) < _FEWEST_PHONES and not last_try:
            return self._pronounce("." + text, language, markup, last_try=True)
        return Utterance(
            text=markup.restore(marked),
            norm_text="".join(part.norm_text for part in segments),
            phones=phones,
            phone_ids=self._table.ids(phones),
            word2ph=_joined_word2ph(segments),
            segments=segments,
        )

    def _speak(self, language: str, text: str, markup: Markup) -> Segment:
        pronounce = self._speak_english if language == "en" else self._speak_chinese
        norm_text, phones, word2ph = pronounce(text, markup)
        known = self._table.known(phones)
        return Segment(language, markup.restore(text), norm_text, known, self._table.ids(known), word2ph)

    def _speak_english(self, text: str, markup: Markup) -> _Spoken:
        from gpt_sovits_mlx.text import english

        norm_text = english.normalize(collapse_overrides(text))
        phones = english.g2p(norm_text, markup.__getitem__)
        if len(phones) < _FEWEST_ENGLISH_PHONES and not _SILENT.issuperset(phones):
            phones = [",", *phones]
        return markup.restore(norm_text), phones, None

    def _speak_chinese(self, text: str, markup: Markup) -> _Spoken:
        from gpt_sovits_mlx.text import chinese

        norm_text, overrides = _normalize_chinese(text, markup)
        phones, word2ph = chinese.g2p(norm_text, overrides, self._lexicon.chinese or None)
        return norm_text, phones, tuple(word2ph)


_Spoken = tuple[str, list[str], tuple[int, ...] | None]


def _normalize_chinese(text: str, markup: Markup) -> tuple[str, list[tuple[int, int, list[str]]]]:
    """Normalised text, and where in it the overrides stand.

    The normaliser sees a neutral ideograph for each character of an override, which is how they are found again.
    """
    from gpt_sovits_mlx.text import chinese

    runs = markup.runs(text)
    if not runs:
        return chinese.normalize(text), []
    neutral = next(char for char in _NEUTRAL_HAN if char not in text)
    norm_text = chinese.normalize(PRIVATE.sub(neutral, text))
    places = [i for i, char in enumerate(norm_text) if char == neutral]
    characters = list(norm_text)
    overrides: list[tuple[int, int, list[str]]] = []
    for _, _, override in runs:
        here, places = places[: len(override.word)], places[len(override.word) :]
        # Traditional characters become simplified ones; a rare one that the normaliser would drop stays.
        simplified = chinese.normalize(override.word)
        characters[here[0] : here[-1] + 1] = simplified if len(simplified) == len(here) else override.word
        overrides.append((here[0], here[-1] + 1, list(override.phones)))
    return "".join(characters), overrides


def _joined_word2ph(segments: tuple[Segment, ...]) -> tuple[int, ...] | None:
    counts: list[int] = []
    for part in segments:
        if part.word2ph is None:
            return None
        counts += part.word2ph
    return tuple(counts)


def _audible(utterance: Utterance) -> bool:
    return not _SILENT.issuperset(utterance.phones)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def phones_json(frontend: TextFrontend, text: str, language: str = "auto") -> dict[str, Any]:
    """What the front end makes of the text as it stands, in plain JSON types.

    Keys: norm_text, phones, phone_ids, word2ph (null if there is English in it), segments.

    Raises TextError like `TextFrontend.piece`.
    """
    return frontend.piece(text, language).to_json()
