"""The spoken corpus on the device: batches are gathers, so that a training step never waits for the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .corpus import HELD_OUT_EVERY, Script

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class SpeechData:
    """Speech, frame labels and phone ids of the rows that were spoken, all on the device.

    Utterance u is row `row[u]` of the script; times are in samples at 32 kHz or frames at 50 Hz.
    Without `sound` only lengths, speakers and phones are there: all that the GPT learns from, beside the codes.
    """

    def __init__(self, blocks: Sequence[Path], script: Script, sound: bool = True) -> None:
        files = [np.load(path) for path in blocks]

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
        self.speaker = put(gather("speaker").astype(np.int64))
        self.speakers = int(script.speaker.max()) + 1
        self.train = put(self.row % HELD_OUT_EVERY != 0)
        self.phones, self.phone_count = pad_rows([script.phones[r] for r in self.row])

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


def pad_rows(rows: Sequence[Sequence[int] | np.ndarray], width: int | None = None) -> tuple[Tensor, Tensor]:
    """Lists of ids -> (N, width) int16 padded with 0, and their lengths."""
    counts = np.array([len(r) for r in rows])
    out = np.zeros((len(rows), width or max(int(counts.max()), 1)), np.int16)
    for i, r in enumerate(rows):
        out[i, : len(r)] = r
    return torch.from_numpy(out).to(DEVICE), torch.from_numpy(counts).to(DEVICE)


class BySpeaker:
    """Draws, on the device, an utterance of the same speaker from a set of allowed ones."""

    def __init__(self, allowed: Tensor, speaker: Tensor, speakers: int) -> None:
        order = allowed[torch.argsort(speaker[allowed], stable=True)]
        self.order = order
        self.count = torch.bincount(speaker[order], minlength=speakers)
        self.first = torch.cumsum(self.count, 0) - self.count

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
