"""Words with their part of speech (jieba), joined where a tone rule has to see both parts."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from .readings import read_word

if TYPE_CHECKING:
    from jieba.posseg import POSTokenizer

_LOCK = threading.Lock()


class Word(NamedTuple):
    """A word and jieba's tag of it (n noun, v verb, m number, uv the particle 地, x punctuation …)."""

    text: str
    tag: str


def segment(sentence: str) -> list[Word]:
    """Tagged words of one sentence, joined for the tone rules; concatenated they are the sentence."""
    words = [Word(pair.word, pair.flag) for pair in _tagger().lcut(sentence)]
    for join in (_join_bu, _join_yi, _join_doubled, _join_low_words, _join_low_edges, _join_er):
        words = join(words)
    return words


@lru_cache(maxsize=4096)
def halves(word: str) -> tuple[str, str]:
    """A word's two parts, split at the shortest word inside it: 纸老虎 -> (纸, 老虎), 蒙古包 -> (蒙古, 包).

    A word without parts comes back whole, with '' behind it. As in the reference, a shortest word from the
    middle of a longer one counts as its end.
    """
    shortest = min(_tagger().tokenizer.cut_for_search(word), key=len)
    if word.startswith(shortest):
        return shortest, word[len(shortest) :]
    return word[: -len(shortest)], shortest


def is_word(text: str) -> bool:
    """Whether jieba's dictionary has this word."""
    tagger = _tagger()
    tagger.tokenizer.check_initialized()
    return tagger.tokenizer.FREQ.get(text, 0) > 0


def _tagger() -> POSTokenizer:
    with _LOCK:
        return _load_tagger()


@cache
def _load_tagger() -> POSTokenizer:
    """A tagger of our own, so that words which a program adds to jieba change nothing here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # jieba imports pkg_resources, which warns that it is deprecated
        import jieba
        import jieba.posseg
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.initialize()
    return jieba.posseg.POSTokenizer(tokenizer)


def _join_bu(words: Sequence[Word]) -> list[Word]:
    """不 and the word behind it, whose tone decides how 不 is said."""
    joined: list[Word] = []
    for word in words:
        if joined and joined[-1].text == "不":
            joined[-1] = Word("不" + word.text, word.tag)
        else:
            joined.append(word)
    if joined and joined[-1].text == "不":
        joined[-1] = Word("不", "d")
    return joined


def _join_yi(words: Sequence[Word]) -> list[Word]:
    """听 一 听 -> 听一听; any other 一 with the word behind it."""
    joined: list[Word] = []
    position = 0
    while position < len(words):
        word = words[position]
        following = words[position + 1] if position + 1 < len(words) else None
        if joined and word.text == "一" and following and joined[-1] == following and following.tag == "v":
            joined[-1] = Word(f"{following.text}一{following.text}", "v")
            position += 2
            continue
        joined.append(word)
        position += 1
    return _join_behind_yi(joined)


def _join_behind_yi(words: Sequence[Word]) -> list[Word]:
    joined: list[Word] = []
    for word in words:
        if joined and joined[-1].text == "一":
            joined[-1] = Word("一" + word.text, joined[-1].tag)
        else:
            joined.append(word)
    return joined


def _join_doubled(words: Sequence[Word]) -> list[Word]:
    joined: list[Word] = []
    for word in words:
        if joined and joined[-1].text == word.text:
            joined[-1] = Word(word.text * 2, joined[-1].tag)
        else:
            joined.append(word)
    return joined


def _join_low_words(words: Sequence[Word]) -> list[Word]:
    """Two words that are in the third tone throughout: 很 好 -> 很好."""
    low = [all(syllable.tone == 3 for syllable in read_word(word.text)) for word in words]
    return _join_low(words, [before and after for before, after in pairwise(low)])


def _join_low_edges(words: Sequence[Word]) -> list[Word]:
    """Two words that meet in third tones: 给 我们 -> 给我们."""
    ends = [(read_word(word.text)[0].tone == 3, read_word(word.text)[-1].tone == 3) for word in words]
    return _join_low(words, [before[1] and after[0] for before, after in pairwise(ends)])


def _join_low(words: Sequence[Word], meets: Sequence[bool]) -> list[Word]:
    """Joins word i and i + 1 where `meets[i]`, up to three characters and two words; never behind 好好."""
    joined: list[Word] = []
    was_joined = False
    for position, word in enumerate(words):
        before = words[position - 1].text if position else ""
        doubled = len(before) == 2 and before[0] == before[1]
        fits = len(before) + len(word.text) <= 3 and not doubled
        if position and meets[position - 1] and not was_joined and fits:
            joined[-1] = Word(joined[-1].text + word.text, joined[-1].tag)
            was_joined = True
        else:
            joined.append(word)
            was_joined = False
    return joined


def _join_er(words: Sequence[Word]) -> list[Word]:
    joined: list[Word] = []
    for word in words:
        if joined and word.text == "儿":
            joined[-1] = Word(joined[-1].text + "儿", joined[-1].tag)
        else:
            joined.append(word)
    return joined
