"""English words -> ARPAbet.

Order of look-up as in GPT-SoVITS (GPT_SoVITS/text/english.py): override, single letter, homograph by part of
speech, dictionary, letters one by one (up to three), possessive, compound split into known words, predictor.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gpt_sovits_mlx.text.english.dictionary import homographs, pronunciations
from gpt_sovits_mlx.text.english.tagger import tag_words
from gpt_sovits_mlx.text.loading import loaded_once
from gpt_sovits_mlx.text.markup import OVERRIDE_CLASS, Override, is_override
from gpt_sovits_mlx.text.symbols import ARPABET, PUNCTUATION, UNKNOWN, split_words

_VOICELESS = frozenset(split_words("P T K F TH HH"))
_SIBILANT = frozenset(split_words("S Z SH ZH CH JH"))
# An override takes the hyphens at its sides and a possessive ending with it; hyphens inside words are silent.
_OVERRIDE = re.compile(rf"-?([{OVERRIDE_CLASS}]('[sS]\b)?)(?:-(?=\w))?")
_SPEAKABLE = ARPABET | {*PUNCTUATION, UNKNOWN, "ER", "IH"}


def g2p(norm_text: str, override_of: Callable[[str], Override] | None = None) -> list[str]:
    """Phones of normalised text: ARPAbet and the punctuation marks `!?,.-`.

    `override_of` gives the pronunciation behind a character that stands for an override (see markup.py).
    """
    words = _tokens(norm_text)
    phones: list[str] = []
    for i, word in enumerate(words):
        if override_of is not None and is_override(word[0]):
            spoken = override_of(word[0]).phones
            phones += _with_possessive(spoken) if len(word) > 1 else spoken
        elif word.lower() in homographs() and len(word) > 1:
            phones += _homograph(words, i)
        else:
            phones += _token(word)
    # An apostrophe that stands alone is a short break; what else is no symbol (a lone "'-") is silent.
    phones = ["-" if phone == "'" else phone for phone in phones]
    return [phone for phone in phones if phone in _SPEAKABLE]


def _tokens(norm_text: str) -> list[str]:
    words: list[str] = []
    position = 0
    for match in _OVERRIDE.finditer(norm_text):
        words += _tokenizer().tokenize(norm_text[position : match.start()])
        words.append(match[1])
        position = match.end()
    return words + _tokenizer().tokenize(norm_text[position:])


def _homograph(words: list[str], index: int) -> tuple[str, ...]:
    entry = homographs()[words[index].lower()]
    tag = tag_words(tuple(words))[index]
    # A tag shorter than the wanted one matches its start: VB counts as VBP for "read".
    return entry.matching if tag.startswith(entry.tag) or entry.tag.startswith(tag) else entry.other


def _token(token: str) -> tuple[str, ...]:
    word = token.lower()
    if re.search("[a-z]", word) is None:
        return (word,)
    if len(word) == 1:
        return ("EY1",) if token == "A" else _known(word)
    return _word(word)


def _word(word: str) -> tuple[str, ...]:
    """Phones of a lower-case word; parts of a split compound come through here again."""
    if len(word) > 1 and word in pronunciations():
        return _known(word)
    if len(word) <= 3:
        return tuple(phone for letter in word for phone in _letter(letter))
    if re.fullmatch("[a-z]+'s", word):
        return _with_possessive(_word(word[:-2]))
    parts = _segmenter().segment(word)
    if len(parts) == 1:
        from gpt_sovits_mlx.text.english.predictor import predict  # brings numpy

        return predict(word)
    return tuple(phone for part in parts for phone in _word(part))


def _letter(letter: str) -> tuple[str, ...]:
    if letter == "a":
        return ("EY1",)
    return _known(letter) if letter.isalpha() else (letter,)


def _known(word: str) -> tuple[str, ...]:
    """A word's phones from the dictionary."""
    return tuple(pronunciations()[word].split())


def _with_possessive(phones: tuple[str, ...]) -> tuple[str, ...]:
    if phones[-1] in _VOICELESS:
        return (*phones, "S")
    return (*phones, "AH0", "Z") if phones[-1] in _SIBILANT else (*phones, "Z")


@loaded_once
def _tokenizer() -> Any:
    from nltk.tokenize import TweetTokenizer  # a second to import; needs none of nltk's data

    return TweetTokenizer()


@loaded_once
def _segmenter() -> Any:
    """wordsegment with its word counts: an object of its own, so that no thread sees one half loaded."""
    from wordsegment import Segmenter

    segmenter = Segmenter()
    segmenter.load()
    return segmenter
