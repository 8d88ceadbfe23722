"""Who speaks the corpus: the teacher's voices and mixtures of them, each clearly another person.

A voice of the teacher is a table of styles (510, 256), a row for each count of phonemes: the first 128 numbers are the
timbre, the others the prosody. A speaker here has one timbre, a mixture of voices of one sex, and for each language a
prosody of voices that are at home in it: with a prosody from abroad the teacher's Mandarin is misheard up to ten times
as often. `pick` leaves out a candidate that a speaker encoder takes for one that is already there.

Whole voices are kept out of training, timbre and prosody: they are the strangers that the trained model is judged by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

TIMBRE = 128
"""Numbers of a style that are the timbre."""

HELD_OUT = ("af_bella", "am_puck", "bf_emma", "bm_george", "zf_xiaoyi", "zm_yunjian", "jf_tebukuro")
"""Strangers: a man and a woman of each language; of Japanese only a woman, since the teacher has one man for it."""

HOME = {"en": "ab", "zh": "z", "ja": "j"}
"""First letters of the voices that are at home in a language."""

LIST = Path(__file__).resolve().parent / "speakers.json"

Weights = dict[str, float]
Voices = dict[str, np.ndarray]


@dataclass(frozen=True)
class Speaker:
    """timbre: shares of voices. prosody: the same for each language."""

    name: str
    timbre: Weights
    prosody: dict[str, Weights]

    def style(self, voices: Voices, language: str) -> np.ndarray:
        """(510, 256) float32: the styles in which this speaker says a text of a language."""
        timbre, prosody = mixture(voices, self.timbre), mixture(voices, self.prosody[language])
        return np.concatenate([timbre[:, :TIMBRE], prosody[:, TIMBRE:]], 1)


def mixture(voices: Voices, weights: Weights) -> np.ndarray:
    """The styles (510, 256) of voices in these shares."""
    styles = np.stack([voices[name].astype(np.float32) * np.float32(share) for name, share in weights.items()])
    return styles.sum(0)


def read_voices(folder: Path) -> Voices:
    """The voices of npm's kokoro-js (`voices/*.bin`, float32), or of `voices.npz` as `pack_voices` writes it."""
    packed = folder / "voices.npz"
    if packed.exists():
        with np.load(packed) as file:
            return {name: file[name] for name in file.files}
    return {p.stem: np.fromfile(p, np.float32).reshape(510, 256) for p in sorted(folder.glob("*.bin"))}


def pack_voices(voices: Voices, path: Path) -> None:
    """In half the space, to be carried to the machine that speaks."""
    np.savez_compressed(path, **{name: style.astype(np.float16) for name, style in voices.items()})  # type: ignore[arg-type]


def load(path: Path = LIST) -> list[Speaker]:
    return [Speaker(**item) for item in json.loads(path.read_text(encoding="utf-8"))]


def save(speakers: Sequence[Speaker], path: Path = LIST) -> None:
    lines = ",\n".join(json.dumps(asdict(speaker)) for speaker in speakers)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def alone(name: str) -> Speaker:
    """A voice of the teacher as it is, in every language."""
    return Speaker(name, {name: 1.0}, {language: {name: 1.0} for language in HOME})


def strangers(count: int = 20, seed: int = 11) -> list[Speaker]:
    """The voices that are held out, and mixtures of them: `count` speakers that nothing is trained on."""
    found = [alone(name) for name in HELD_OUT]
    rng = np.random.default_rng(seed)
    while len(found) < count:
        pool = [n for n in HELD_OUT if n[1] == "fm"[len(found) % 2]]
        a, b = (str(n) for n in rng.choice(pool, 2, replace=False))
        share = round(float(rng.uniform(0.3, 0.7)), 2)
        weights = {a: share, b: round(1 - share, 2)}
        found.append(Speaker(f"stranger{len(found)}", weights, dict.fromkeys(HOME, weights)))
    return found


def candidates(names: Sequence[str], count: int, seed: int = 3) -> Iterator[Speaker]:
    """Every voice of `names` by itself, then mixtures of two or three of one sex: `count` in all."""
    rng = np.random.default_rng(seed)
    for name in names[:count]:
        yield Speaker(name, {name: 1.0}, _prosody(name, names, rng))
    for number in range(max(count - len(names), 0)):
        sex = "fm"[number % 2]
        pool = [n for n in names if n[1] == sex]
        chosen = rng.choice(pool, rng.choice((2, 2, 3)), replace=False)
        shares = rng.dirichlet([3.0] * len(chosen)).round(2)
        shares[-1] = round(1 - float(shares[:-1].sum()), 2)
        timbre = {str(n): float(s) for n, s in zip(chosen, shares, strict=True)}
        yield Speaker(f"mix{sex}{number:03d}", timbre, _prosody(str(chosen[0]), names, rng))


def beyond(names: Sequence[str], count: int, seed: int = 5) -> Iterator[Speaker]:
    """`count` speakers further out than the voices: half a step past one, away from another of its sex."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        pool = [n for n in names if n[1] == "fm"[number % 2]]
        a, b = (str(n) for n in rng.choice(pool, 2, replace=False))
        native = str(rng.choice([n for n in pool if n[0] in HOME["en"]]))
        yield Speaker(f"far{a[1]}{number:03d}", {a: 1.5, b: -0.5}, _prosody(a, names, rng) | {"en": {native: 1.0}})


def _prosody(voice: str, names: Sequence[str], rng: np.random.Generator) -> dict[str, Weights]:
    """For each language: the voice's own prosody where it is at home, else that of one or two of its sex who are."""
    found: dict[str, Weights] = {}
    for language, letters in HOME.items():
        native = [n for n in names if n[0] in letters and n[1] == voice[1]]
        if voice in native:
            found[language] = {voice: 1.0}
        elif len(native) > 1 and rng.random() < 0.6:
            a, b = rng.choice(native, 2, replace=False)
            share = round(float(rng.uniform(0.3, 0.7)), 2)
            found[language] = {str(a): share, str(b): round(1 - share, 2)}
        else:
            found[language] = {str(rng.choice(native)): 1.0}
    return found


def understood(
    speakers: Sequence[Speaker], misheard: Callable[[Speaker, str], float], most: float = 0.15
) -> list[Speaker]:
    """The speakers without the languages in which a judge mishears more than the share `most` of what they say; those
    that no language is left to are left out."""
    kept = []
    for speaker in speakers:
        prosody = {lang: p for lang, p in speaker.prosody.items() if misheard(speaker, lang) <= most}
        if prosody:
            kept.append(Speaker(speaker.name, speaker.timbre, prosody))
    return kept


def pick(
    found: Sequence[Speaker],
    embed: Callable[[Speaker], np.ndarray],
    strangers: Sequence[np.ndarray] = (),
    nearest: float = 0.84,
) -> list[Speaker]:
    """Those of `found`, in order, whose embedding (unit length) is nearer than `nearest` to none before them.

    `strangers` are embeddings that count as before them too. Of 47 voices, 121 further out and 194 mixtures, each heard
    for 2.5 s with the same words, 0.84 left 119, 0.8 left 76; two sentences of one voice are 0.90 alike (least 0.84).
    """  # fmt: skip
    kept: list[Speaker] = []
    before = list(strangers)
    for speaker in found:
        embedding = embed(speaker)
        if all(float(embedding @ other) <= nearest for other in before):
            before.append(embedding)
            kept.append(speaker)
    return kept
