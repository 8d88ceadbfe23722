"""A reader of Mandarin syllables for the evaluation: trained on synthetic speech, shipped nowhere.

A small convolutional and recurrent network over log-mels, trained with CTC (Graves et al., 2006) on the phones of
the corpus's Mandarin rows: initials and toned finals. It judges speech by the same synthesiser's standard only,
so its own error on held-out source speech must be told beside any figure it gives.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import speech
from .corpus import load
from .scoring import edit_distance
from .vits import spectrogram

BANDS = 64


class Recogniser(nn.Module):
    """(B, N) audio at 16 kHz -> log probabilities (B, T, 1 + phones) at 25 Hz; class 0 is CTC's blank."""

    filters: Tensor

    def __init__(self, phones: list[str], width: int = 160) -> None:
        super().__init__()
        from .sovits import mel_matrix

        self.phones = phones
        self.register_buffer("filters", mel_matrix(1024, BANDS, 30, 7800, 16000), persistent=False)
        self.convs = nn.Sequential(
            nn.Conv1d(BANDS, width, 5, padding=2), nn.GELU(), nn.Conv1d(width, width, 5, 2, padding=2), nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2), nn.GELU(),
        )  # fmt: skip
        self.recurrent = nn.GRU(width, width, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, len(phones) + 1)

    def forward(self, audio: Tensor) -> Tensor:
        mel = torch.log((self.filters @ spectrogram(audio, 1024, 320)).clamp(min=1e-3))
        mel = mel - mel.mean(2, keepdim=True)
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


def is_spoken(phone: str) -> bool:
    return re.fullmatch(r"[A-Za-z]+[0-5]*", phone) is not None


def train(
    audio: list[np.ndarray], phones: list[list[str]], out: Path, seconds: float, batch: int = 16, rate: float = 2e-3
) -> None:
    """Utterances at 16 kHz with their phones; every twentieth is held out and tells the error rate."""
    spoken = [[p for p in row if is_spoken(p)] for row in phones]
    names = sorted({p for row in spoken for p in row})
    number = {p: i + 1 for i, p in enumerate(names)}
    model = Recogniser(names)
    optimiser = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.01)
    order = np.argsort([len(a) for a in audio])
    train_order = [int(i) for i in order if i % 20]
    groups = [train_order[i : i + batch] for i in range(0, len(train_order), batch)]
    rng = np.random.default_rng(0)
    start, step, done = time.time(), 0, 0.0
    while done < 1:
        done = (time.time() - start) / seconds
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 200) * max(0.02, min(1, (1 - done) / 0.6))
        chosen = groups[rng.integers(len(groups))]
        longest = max(len(audio[i]) for i in chosen)
        sound = torch.zeros(len(chosen), longest)
        for row, i in enumerate(chosen):
            sound[row, : len(audio[i])] = torch.from_numpy(audio[i])
        sound = sound * 10 ** (torch.rand(len(chosen), 1) - 0.6) + 0.002 * torch.rand(1) * torch.randn_like(sound)
        scores = model(sound).transpose(0, 1)
        targets = torch.tensor([number[p] for i in chosen for p in spoken[i]])
        lengths = torch.tensor([len(spoken[i]) for i in chosen])
        frames = torch.tensor([min(len(audio[i]) // 640 + 1, scores.shape[0]) for i in chosen])
        loss = F.ctc_loss(scores, targets, frames, lengths, zero_infinity=True)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimiser.step()
        step += 1
        if step % 200 == 0:
            print(f"recogniser step {step} {time.time() - start:.0f} s: loss {float(loss.detach()):.3f}", flush=True)
            model.store(out)
    model.eval()
    held = [int(i) for i in order if i % 20 == 0][:150]
    errors = sum(edit_distance(spoken[i], model.read(audio[i])) for i in held)
    total = sum(len(spoken[i]) for i in held)
    print(f"recogniser: phone error {100 * errors / total:.1f} % on {len(held)} held-out utterances", flush=True)
    model.store(out)


def train_on(corpus_file: Path, out: Path, seconds: float, count: int = 3000) -> None:
    """Speak the last `count` shorter Mandarin rows of the corpus and train on them."""
    rows = [r for r in load(corpus_file) if r.language == "zh" and not r.speaker and len(r.phones) < 70][-count:]
    fits = [i for i, s in enumerate(speech.SPEAKERS) if s.language == "zh"]
    shares = np.array([speech.SPEAKERS[i].share for i in fits])
    voices = np.random.default_rng(0).choice(fits, len(rows), p=shares / shares.sum())
    audio, phones = [], []
    for row, voice in zip(rows, voices, strict=True):
        spoken = speech.speak_chunk((int(voice), [row]))[0]
        if spoken is not None:
            audio.append(soxr.resample(spoken.pcm.astype(np.float32) / 32768, speech.SAMPLE_RATE, 16000))
            phones.append(list(row.phones))
    train(audio, phones, out, seconds)
