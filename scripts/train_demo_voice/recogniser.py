"""A reader of Mandarin syllables for the evaluation: trained on synthetic speech, shipped nowhere.

A small convolutional and recurrent network over log-mels, trained with CTC (Graves et al., 2006) on the phones of
the corpus's Mandarin rows: initials and toned finals. It judges speech by the same synthesiser's standard only,
so its own error on held-out source speech must be told beside any figure it gives.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from . import speech
from .corpus import Row, load
from .data import DEVICE
from .scoring import edit_distance
from .vits import spectrogram

BANDS = 64


class Recogniser(nn.Module):
    """(B, N) audio at 16 kHz -> log probabilities (B, T, 1 + phones) at 50 Hz; class 0 is CTC's blank."""

    filters: Tensor

    def __init__(self, phones: list[str], width: int = 256) -> None:
        super().__init__()
        from .sovits import mel_matrix

        self.phones = phones
        self.register_buffer("filters", mel_matrix(1024, BANDS, 30, 7800, 16000), persistent=False)
        self.convs = nn.Sequential(
            nn.Conv1d(BANDS, width, 5, padding=2), nn.GELU(), nn.Conv1d(width, width, 5, padding=2), nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2), nn.GELU(),
        )  # fmt: skip
        self.recurrent = nn.GRU(width, width, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.out = nn.Linear(2 * width, len(phones) + 1)

    def forward(self, audio: Tensor) -> Tensor:
        mel = torch.log((self.filters @ spectrogram(audio, 1024, 320)).clamp(min=1e-3))
        mel = mel - mel.mean(2, keepdim=True)
        if self.training:
            mel = _mask(_mask(mel, 1, 12), 2, 12)
        x = self.convs(mel).transpose(1, 2)
        return self.out(self.recurrent(x)[0]).float().log_softmax(-1)

    @torch.no_grad()
    def read(self, audio: np.ndarray) -> list[str]:
        """(N,) at 16 kHz -> phones, best path."""
        sound = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))[None]
        best = self(sound.to(self.filters.device))[0].argmax(-1).tolist()
        kept = [c for c, before in zip(best, [0, *best[:-1]], strict=True) if c not in (0, before)]
        return [self.phones[c - 1] for c in kept]

    def store(self, path: Path) -> None:
        torch.save({"phones": self.phones, "state": {k: v.half() for k, v in self.state_dict().items()}}, path)

    @classmethod
    def load(cls, path: Path) -> Recogniser:
        content = torch.load(path, map_location="cpu")
        model = cls(content["phones"])
        model.load_state_dict({k: v.float() for k, v in content["state"].items()})
        return model.eval()


def _mask(mel: Tensor, axis: int, longest: int) -> Tensor:
    """SpecAugment (Park et al., 2019): one random band of `axis`, or stretch of time, of each row is zeroed."""
    size = mel.shape[axis]
    width = torch.rand(len(mel), 1, device=mel.device) * longest
    first = torch.rand(len(mel), 1, device=mel.device) * (size - width)
    index = torch.arange(size, device=mel.device)
    hidden = (index >= first) & (index < first + width)
    return mel.masked_fill(hidden.unsqueeze(3 - axis), 0.0)


def is_spoken(phone: str) -> bool:
    return re.fullmatch(r"[A-Za-z]+[0-5]*", phone) is not None


@dataclass
class Utterance:
    audio: np.ndarray  # int16 at 16 kHz
    phones: list[str]


class RecogniserTraining:
    """CTC on utterances of which every twentieth is held out and tells the error rate."""

    def __init__(self, utterances: Sequence[Utterance], batch: int = 48, rate: float = 1.5e-3) -> None:
        self.rate = rate
        self.utterances = sorted(utterances, key=lambda u: len(u.audio))
        names = sorted({p for u in utterances for p in u.phones})
        self.number = {p: i + 1 for i, p in enumerate(names)}
        self.model = Recogniser(names).to(DEVICE)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), rate, weight_decay=0.01)
        kept = [i for i in range(len(self.utterances)) if i % 20]
        self.groups = [kept[i : i + batch] for i in range(0, len(kept), batch)]
        self.held_out = range(0, len(self.utterances), 20)
        self.sound = [torch.from_numpy(u.audio).to(DEVICE) for u in self.utterances]

    def _batch(self, chosen: Sequence[int]) -> Tensor:
        """Played a little slower or faster, at some loudness, in some noise: (B, N)."""
        sound = pad_sequence([self.sound[i] for i in chosen], batch_first=True).float() / 32768
        level = 10 ** (torch.rand(len(chosen), 1, device=DEVICE) - 0.6)
        noise = 0.01 * torch.rand(len(chosen), 1, device=DEVICE) ** 3 * torch.randn_like(sound)
        stretched = F.interpolate(sound[:, None], scale_factor=float(np.random.uniform(0.93, 1.07)), mode="linear")
        return stretched[:, 0] * level + F.interpolate(noise[:, None], stretched.shape[2])[:, 0]

    def _step(self) -> Tensor:
        chosen = self.groups[np.random.randint(len(self.groups))]
        sound = self._batch(chosen)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            scores = self.model(sound).transpose(0, 1)
        longest = len(self.sound[chosen[-1]])
        lengths = torch.tensor([len(self.utterances[i].phones) for i in chosen])
        frames = torch.tensor([len(self.sound[i]) * len(scores) // longest for i in chosen])
        targets = torch.tensor([self.number[p] for i in chosen for p in self.utterances[i].phones])
        loss = F.ctc_loss(scores, targets.to(DEVICE), frames, lengths, zero_infinity=True)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 2.0)
        self.optimiser.step()
        return loss.detach()

    def run(self, seconds: float, out: Path) -> None:
        start, step, done = time.time(), 0, 0.0
        while done < 1:
            done = (time.time() - start) / seconds
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate * min(1, (step + 1) / 300) * max(0.02, min(1, (1 - done) / 0.6))
            loss = self._step()
            step += 1
            if step % 500 == 0 or done >= 1:
                print(f"recogniser step {step} {time.time() - start:.0f} s: loss {float(loss):.3f}", flush=True)
        self.model.eval()
        self.model.store(out)
        self.validate()

    def validate(self) -> None:
        errors = total = 0
        for i in list(self.held_out)[:400]:
            u = self.utterances[i]
            errors += edit_distance(u.phones, self.model.read(u.audio / 32768))
            total += len(u.phones)
        print(f"recogniser: phone error {100 * errors / total:.2f} % on held-out utterances", flush=True)


def _speak(job: tuple[int, list[Row]]) -> list[Utterance]:
    out = []
    for row, spoken in zip(job[1], speech.speak_chunk(job), strict=True):
        if spoken is not None:
            audio = soxr.resample(spoken.pcm, speech.SAMPLE_RATE, 16000)
            out.append(Utterance(audio, [p for p in row.phones if is_spoken(p)]))
    return out


def train_on(corpus_file: Path, out: Path, seconds: float, processes: int) -> None:
    """Speak the corpus's shorter Mandarin rows by all Mandarin speakers, and train on them."""
    rows = [r for r in load(corpus_file) if r.language == "zh" and not r.speaker and len(r.phones) < 70]
    fits = [i for i, s in enumerate(speech.SPEAKERS) if s.language == "zh"]
    jobs = [(fits[k % len(fits)], rows[i : i + 16]) for k, i in enumerate(range(0, len(rows), 16))]
    with Pool(processes) as pool:
        utterances = [u for us in pool.imap(_speak, jobs) for u in us]
    RecogniserTraining(utterances).run(seconds, out)
