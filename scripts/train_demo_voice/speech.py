"""The script -> speech with frame labels, spoken by the teacher: a process a core, several on each GPU.

The teacher tells how many frames each of its phonemes lasts: those are the labels that train the tokenizer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .corpus import LANGUAGES, Script, load_script
from .speakers import Speaker, Voices, load, read_voices
from .teacher import FRAME, RATE, Teacher, vocabulary

SAMPLE_RATE = 32000
FRAME_RATE = 50
CLASSES = 178
"""Phone classes of the frame labels: the teacher's tokens, 0 for silence and for what is no sound."""
TONE_MARKS = "→↗↓↘"
"""Of the tones 1 to 4, as the teacher writes them behind a vowel."""
_BEFORE, _AFTER = "ˈˌ", "ːʰʲᵝ̃" + TONE_MARKS + " "  # marks that lengthen the sound that follows, or went before
EDGES = (1800, 3600)
"""Samples of silence at 24 kHz that are kept before and behind an utterance."""
LAG = 2.5
"""Frames by which the teacher's durations come behind what is heard: where its fricatives and the energy at high
frequencies, or its silences and the level, agree best (six voices, three languages: 2 to 3)."""
LEVEL, PEAK = 0.08, 0.9
BLOCK = 64
"""Rows of one file of speech."""


@dataclass(frozen=True)
class Spoken:
    """One utterance: int16 at 32 kHz; phone classes and tones (0 none, 1 to 4) at 50 frames a second."""

    pcm: np.ndarray
    labels: np.ndarray
    tones: np.ndarray


def frame_labels(ends: Sequence[float] | np.ndarray, classes: Sequence[int] | np.ndarray, samples: int) -> np.ndarray:
    """Ends of segments in seconds and their classes -> uint8 class of each 20 ms frame of `samples` at 32 kHz.

    Frame t is centred where the encoder's is: on sample 320 t + 200 at 16 kHz.
    """
    count = max((samples // 2 - 400) // 320 + 1, 1)
    centres = (np.arange(count) * 320 + 200) / 16000
    padded = np.append(np.asarray(classes), 0).astype(np.uint8)
    return padded[np.searchsorted(np.asarray(ends), centres, side="right")]


class Labels:
    """The teacher's tokens -> a phone class and a tone for each of them."""

    def __init__(self, vocab: dict[str, int]) -> None:
        marks = {vocab[c] for c in ';:,.!?—…"()“”' if c in vocab}
        self._silent = marks | {0}
        self._before = {vocab[c] for c in _BEFORE if c in vocab}
        self._after = {vocab[c] for c in _AFTER if c in vocab}
        self._tone = {vocab[c]: i + 1 for i, c in enumerate(TONE_MARKS)}
        self._space = vocab[" "]

    def classes(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) -> (n,) classes and (n,) tones. A tone belongs to the sounds of its syllable up to its mark."""
        classes, tones = np.zeros(len(tokens), np.uint8), np.zeros(len(tokens), np.uint8)
        start = 0
        for i, token in enumerate(tokens.tolist()):
            if token in self._after:
                classes[i] = classes[i - 1] if i else 0
            elif token not in self._silent and token not in self._before:
                classes[i] = token
            if token in self._tone:
                tones[start : i + 1] = self._tone[token]
            if token in self._tone or token in self._silent or token == self._space:
                start = i + 1
        for i in range(len(tokens) - 2, -1, -1):
            if int(tokens[i]) in self._before:
                classes[i] = classes[i + 1]
        return classes, tones


def to_32k(audio: np.ndarray) -> np.ndarray:
    """(N,) at 24 kHz -> (4 N / 3,) float32 at 32 kHz, by its spectrum: nothing comes in above 12 kHz."""
    padded = np.pad(audio, (0, -len(audio) % 3 + 3 * 240))  # a little silence, so that the end does not reach the start
    wide = np.fft.irfft(np.fft.rfft(padded), len(padded) * 4 // 3) * (4 / 3)
    return wide[: len(audio) * 4 // 3].astype(np.float32)


class Speech:
    """The teacher with its speakers; `say` makes rows of a script."""

    def __init__(self, script: Script, speakers: Sequence[Speaker], voices: Voices, folder: Path, device: str) -> None:
        self._script, self._speakers, self._voices = script, speakers, voices
        self._teacher, self._labels = Teacher(folder, device), Labels(vocabulary(folder))
        self._styles: dict[tuple[int, int], np.ndarray] = {}

    def say(self, rows: Sequence[int]) -> Iterator[tuple[int, Spoken]]:
        """Each row with what is heard of it, shorter ones first; rows of which nothing is heard are left out."""
        for batch in batches(rows, [len(self._script.tokens[row]) for row in rows]):
            torch.manual_seed(batch[0])
            tokens = [self._script.tokens[row] for row in batch]
            said = self._teacher.say(tokens, [self._style(row) for row in batch])
            for row, given, (audio, durations) in zip(batch, tokens, said, strict=True):
                spoken = finish(audio, durations, *self._labels.classes(given))
                if spoken is not None:
                    yield row, spoken

    def _style(self, row: int) -> np.ndarray:
        key = int(self._script.speaker[row]), int(self._script.language[row])
        if key not in self._styles:
            self._styles[key] = self._speakers[key[0]].style(self._voices, LANGUAGES[key[1]])
        return self._styles[key]


def batches(rows: Sequence[int], lengths: Sequence[int], room: int = 2400) -> Iterator[list[int]]:
    """`rows` by length in batches of near-equal ones, whose tokens, padded to the longest, are at most `room`."""
    batch: list[int] = []
    for length, row in sorted(zip(lengths, rows, strict=True)):
        if batch and (len(batch) + 1) * length > room:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def finish(audio: np.ndarray, durations: np.ndarray, classes: np.ndarray, tones: np.ndarray) -> Spoken | None:
    """The teacher's audio with its durations (n + 2,) and labels (n,) -> an utterance: silence cut at both ends,
    32 kHz, level set, frames labelled. None where nothing is heard."""
    first, last = audible(audio)
    if last <= first:
        return None
    sound = to_32k(audio[first:last])
    level = float(np.sqrt(np.mean(sound**2)))
    pcm = (sound * min(LEVEL / level, PEAK / float(np.abs(sound).max())) * 32767).astype(np.int16)
    ends = (np.cumsum(durations) - LAG) * FRAME / RATE - first / RATE
    return Spoken(
        pcm, frame_labels(ends, [0, *classes, 0], len(pcm)), frame_labels(ends, [0, *tones, 0], len(pcm))
    )  # fmt: skip


def audible(audio: np.ndarray, window: int = 240) -> tuple[int, int]:
    """First and last sample that are kept: a little silence around whatever is louder than 46 dB below the loudest
    10 ms. (0, 0) where nothing is."""
    power = (audio[: len(audio) // window * window].reshape(-1, window) ** 2).mean(1)
    loud = np.flatnonzero((power > 2.5e-5 * power.max(initial=0)) & (power > 1e-8))
    if len(loud) == 0 or not np.isfinite(power).all():
        return 0, 0
    first, last = int(loud[0]) * window, (int(loud[-1]) + 1) * window
    return max(first - EDGES[0], 0), min(last + EDGES[1], len(audio))


def save_block(path: Path, rows: Sequence[int], spoken: Sequence[Spoken], speakers: Sequence[int]) -> None:
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary, pcm=np.concatenate([u.pcm for u in spoken]), labels=np.concatenate([u.labels for u in spoken]),
        tones=np.concatenate([u.tones for u in spoken]), samples=np.array([len(u.pcm) for u in spoken]),
        frames=np.array([len(u.labels) for u in spoken]), speaker=np.array(speakers), row=np.array(rows),
    )  # fmt: skip
    temporary.rename(path)


def _work(device: str, work: Path, folder: Path, next_block: Any, until: float) -> None:
    torch.set_num_threads(1)
    script = load_script(work / "script.npz")
    speech = Speech(script, load(), read_voices(folder), folder, device)
    while time.time() < until:
        with next_block.get_lock():
            block = next_block.value
            next_block.value += 1
        rows = range(block * BLOCK, min((block + 1) * BLOCK, len(script)))
        if not rows:
            return
        path = work / "speech" / f"{block:04d}.npz"
        if path.exists():
            continue
        said = list(speech.say(rows))
        done = [row for row, _ in said]
        save_block(path, done, [spoken for _, spoken in said], [int(script.speaker[row]) for row in done])


def synthesise(work: Path, folder: Path, seconds: Sequence[float], processes: int) -> None:
    """Speak `work`/script.npz into `work`/speech/NNNN.npz, blocks that are there left as they are.

    `folder` holds the teacher. `seconds`: how long each GPU may speak (one number without a GPU), by `processes` each.
    """
    (work / "speech").mkdir(exist_ok=True)
    context = torch.multiprocessing.get_context("spawn")
    counter: Any = context.Value("i", 0)
    cuda, start = torch.cuda.is_available(), time.time()
    jobs = [
        context.Process(target=_work, args=(f"cuda:{gpu}" if cuda else "cpu", work, folder, counter, start + limit))
        for _ in range(processes)
        for gpu, limit in enumerate(seconds)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    files = list((work / "speech").glob("????.npz"))
    samples = sum(int(np.load(path)["samples"].sum()) for path in files)
    print(f"speech: {len(files)} blocks, {samples / SAMPLE_RATE / 3600:.2f} h, {time.time() - start:.0f} s", flush=True)
