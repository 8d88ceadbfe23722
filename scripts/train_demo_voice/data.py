"""The spoken corpus on the device: batches are gathers, so that a training step never waits for the host."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .corpus import Row
from .speech import SPEAKER_NAMES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HELD_OUT_EVERY = 200  # every so many rows one is kept out of all training


def wait_for(folder: Path, shards: Sequence[int], suffix: str, limit: float = 600) -> list[Path]:
    """The files of `shards`, as soon as they are all written (another process may be at it)."""
    paths = [folder / f"{number:03d}.{suffix}" for number in shards]
    start = time.time()
    while missing := [path for path in paths if not path.exists()]:
        if time.time() - start > limit:
            raise TimeoutError(f"{missing[0]} is still not there: run the stage that writes it")
        time.sleep(0.5)
    return paths


class SpeechData:
    """Speech, frame labels and phone ids of the rows that were spoken, all on the device.

    Utterance u is row `row[u]` of the corpus; times are in samples at 32 kHz or frames at 50 Hz.
    Without `sound` only lengths, speakers and phones are there: all that the GPT learns from, beside the codes.
    """

    def __init__(
        self, shards: Sequence[Path], rows: Sequence[Row], symbol_id: dict[str, int], sound: bool = True
    ) -> None:
        files = [np.load(path) for path in shards]

        def gather(key: str) -> np.ndarray:
            return np.concatenate([f[key] for f in files])

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(DEVICE)

        if sound:
            self.pcm = put(gather("pcm"))
            self.labels, self.tones = put(gather("labels")), put(gather("tones"))
        samples, frames = gather("samples"), gather("frames")
        self.row = gather("row")
        self.samples, self.frames = put(samples), put(frames)
        self.start = put(np.cumsum(samples) - samples)
        self.frame_start = put(np.cumsum(frames) - frames)
        self.speaker = put(gather("speaker"))
        named = np.array([rows[r].speaker != "" for r in self.row])  # rows of the evaluation name their speaker
        self.train = put((self.row % HELD_OUT_EVERY != 0) & ~named)
        phones = [[symbol_id[p] for p in rows[r].phones] for r in self.row]
        self.phones, self.phone_count = pad_rows(phones)
        self.mandarin = put(np.array([rows[r].language == "zh" for r in self.row]))

    def __len__(self) -> int:
        return len(self.row)

    def audio(self, utterance: Tensor, first: Tensor, count: int) -> Tensor:
        """(B,) utterances and first samples -> (B, count) float at 32 kHz, zeros after each one's end."""
        position = first[:, None] + torch.arange(count, device=DEVICE)
        index = (self.start[utterance][:, None] + position).clamp(max=len(self.pcm) - 1)
        return self.pcm[index].float() / 32768 * (position < self.samples[utterance][:, None])

    def frame_labels(self, utterance: Tensor, first: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Phone classes and tones (B, count) from frame `first` on; 0 after the end."""
        position = first[:, None] + torch.arange(count, device=DEVICE)
        index = (self.frame_start[utterance][:, None] + position).clamp(max=len(self.labels) - 1)
        inside = position < self.frames[utterance][:, None]
        return self.labels[index].long() * inside, self.tones[index].long() * inside


def pad_rows(rows: Sequence[Sequence[int]], width: int | None = None) -> tuple[Tensor, Tensor]:
    """Lists of ids -> (N, width) int16 padded with 0, and their lengths."""
    counts = np.array([len(r) for r in rows])
    out = np.zeros((len(rows), width or max(int(counts.max()), 1)), np.int16)
    for i, r in enumerate(rows):
        out[i, : len(r)] = r
    return torch.from_numpy(out).to(DEVICE), torch.from_numpy(counts).to(DEVICE)


class BySpeaker:
    """Draws, on the device, an utterance of the same speaker from a set of allowed ones."""

    def __init__(self, allowed: Tensor, speaker: Tensor) -> None:
        order = allowed[torch.argsort(speaker[allowed], stable=True)]
        self.order = order
        self.count = torch.bincount(speaker[order], minlength=len(SPEAKER_NAMES))
        self.first = torch.cumsum(self.count, 0) - self.count
        self.any_speaker = bool((self.count == 0).any())

    def draw(self, speaker: Tensor) -> Tensor:
        """(B,) speakers -> (B,) utterances; of anybody where a speaker has none."""
        count = self.count[speaker]
        within = (torch.rand(len(speaker), device=DEVICE) * count).long()
        anyone = torch.randint(len(self.order), (len(speaker),), device=DEVICE)
        return self.order[torch.where(count > 0, self.first[speaker] + within, anyone)]


def _half_band(taps: int = 63) -> Tensor:
    n = torch.arange(taps, dtype=torch.float64) - taps // 2
    return (torch.sinc(n / 2) / 2 * torch.kaiser_window(taps, False, 8.0, dtype=torch.float64)).float()


def to_16k(audio: Tensor) -> Tensor:
    """(B, N) at 32 kHz -> (B, N / 2) at 16 kHz, low-passed by a windowed sinc."""
    kernel = _half_band().to(audio.device)[None, None]
    return F.conv1d(audio[:, None], kernel, stride=2, padding=kernel.shape[-1] // 2)[:, 0, : audio.shape[1] // 2]
