"""Train the tokenizer on frame labels, then turn the whole corpus into semantic codes."""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import weights
from .data import DEVICE, SpeechData, pad_rows, to_16k
from .hubert import Tokenizer
from .speech import CLASSES

WINDOW = 200  # frames of a training window, 4 s
SILENCE = 9600  # zeros at 16 kHz that enrolment appends to a reference


def prosody(audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N) at 16 kHz -> log F0 (by autocorrelation, 62 to 400 Hz), voicing and log energy at 50 Hz."""
    frames = F.pad(audio, (312, 312)).unfold(1, 1024, 320)[:, : (audio.shape[1] - 400) // 320 + 1]
    window = torch.hann_window(1024, device=audio.device)
    frames = frames * window

    def autocorrelation(x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x, 2048).abs() ** 2)[..., :300]

    r = autocorrelation(frames)
    shape = autocorrelation(window)
    r = r / (r[..., :1] + 1e-3) * shape[0] / shape
    strength, lag = r[..., 40:260].max(-1)
    return torch.log(16000 / (lag + 40.0)), (strength > 0.55).float(), torch.log(frames.pow(2).mean(-1) + 1e-5)


def mean_log_f0(data: SpeechData, per_speaker: int = 64) -> Tensor:
    """(speakers,) mean log F0 over voiced frames: codes carry pitch relative to it."""
    means = []
    for speaker in range(data.speakers):
        found = torch.nonzero((data.speaker == speaker) & (data.frames > WINDOW))[:per_speaker, 0]
        if len(found) == 0:
            means.append(torch.tensor(math.log(120.0), device=DEVICE))
            continue
        pitch, voiced, _ = prosody(to_16k(data.audio(found, torch.zeros_like(found), WINDOW * 640)))
        means.append((pitch * voiced).sum() / voiced.sum().clamp(min=1))
    return torch.stack(means)


def spoil(audio: Tensor) -> Tensor:
    """(B, N) as another microphone and room may give it: louder or softer, darker or brighter, with a little noise."""

    def drawn(low: float, high: float) -> Tensor:
        return torch.rand(len(audio), 1, device=audio.device) * (high - low) + low

    tilted = audio + drawn(-0.6, 0.6) * F.pad(audio, (1, 0))[:, :-1]
    level = audio.pow(2).mean(1, keepdim=True).sqrt()
    return (tilted + torch.randn_like(audio) * level * 10 ** drawn(-4, -1.3)) * 10 ** drawn(-0.8, 0.4)


class TokenizerTraining:
    """One training run; `seconds` is the wall time it may take."""

    def __init__(self, data: SpeechData, seconds: float, batch: int = 96, rate: float = 8e-4) -> None:
        self.data, self.seconds, self.batch, self.rate = data, seconds, batch, rate
        self.model = Tokenizer(CLASSES).to(DEVICE)
        self.pitch_mean = mean_log_f0(data)
        self.pool = torch.nonzero(data.train)[:, 0]
        self.held_out = torch.nonzero(~data.train)[:, 0]

    def _windows(self, utterance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slack = (self.data.frames[utterance] - WINDOW).clamp(min=0)
        first = torch.minimum((torch.rand(len(utterance), device=DEVICE) * (slack + 1)).long(), slack)
        audio = to_16k(self.data.audio(utterance, first * 640, WINDOW * 640 + 160))
        return audio, *self.data.frame_labels(utterance, first, WINDOW)

    def loss(self, utterance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        audio, labels, tones = self._windows(utterance)
        pitch, voiced, energy = prosody(audio)
        pitch = (pitch - self.pitch_mean[self.data.speaker[utterance]][:, None]).clamp(-1, 1)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            (phone, tone, rest), direct, commitment = self.model(spoil(audio) if self.model.training else audio)
        toned = (tones > 0).float()
        parts = {
            "phone": F.cross_entropy(phone.transpose(1, 2), labels),
            "direct": F.cross_entropy(direct.transpose(1, 2), labels),
            "tone": (F.cross_entropy(tone.transpose(1, 2), tones, reduction="none") * toned).sum()
            / toned.sum().clamp(min=1),
            "pitch": ((rest[..., 0] - 4 * pitch).abs() * voiced).sum() / voiced.sum().clamp(min=1),
            "voiced": F.binary_cross_entropy_with_logits(rest[..., 1], voiced),
            "energy": (rest[..., 2] - (energy - energy.mean(1, keepdim=True)) / 2).abs().mean(),
            "commitment": commitment,
        }
        shares = {"phone": 1, "direct": 1, "tone": 0.3, "pitch": 0.6, "voiced": 0.2, "energy": 0.2, "commitment": 0.25}
        total = torch.stack([parts[k] * w for k, w in shares.items()]).sum()
        parts["accuracy"] = (phone.argmax(-1) == labels).float().mean()
        parts["tone accuracy"] = ((tone.argmax(-1) == tones) * toned).sum() / toned.sum().clamp(min=1)
        return total, parts

    def _start_codebook(self) -> None:
        picked = self.pool[torch.randperm(len(self.pool), device=DEVICE)[: 40 * self.batch]]
        with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            z = torch.cat([self.model.vectors(self._windows(i)[0]).flatten(0, 1) for i in picked.split(self.batch)])
        self.model.start_codebook(z, self.batch * WINDOW / 2)

    def run(self) -> None:
        optimiser = torch.optim.AdamW(
            self.model.parameters(), self.rate, (0.9, 0.98), weight_decay=0.01, fused=DEVICE == "cuda"
        )
        start, step, done = time.time(), 0, 0.0
        while done < 1:
            done = (time.time() - start) / self.seconds
            for group in optimiser.param_groups:
                group["lr"] = self.rate * min(1, (step + 1) / 300) * max(0.02, min(1, (1 - done) / 0.6))
            chosen = self.pool[torch.randint(len(self.pool), (self.batch,), device=DEVICE)]
            total, parts = self.loss(chosen)
            optimiser.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimiser.step()
            step += 1
            if step % 400 == 1:
                report("tokenizer", step, time.time() - start, parts)
            if done > 0.5 and not self.model.quantise:
                self._start_codebook()
        self.model.eval()
        with torch.no_grad():
            report("tokenizer held out", step, time.time() - start, self.loss(self.held_out[:256])[1])


def report(name: str, step: int, seconds: float, parts: dict[str, Tensor]) -> None:
    text = ", ".join(f"{k} {float(v.detach()):.3f}" for k, v in parts.items())
    print(f"{name} step {step} {seconds:.0f} s: {text}", flush=True)


@torch.no_grad()
def encode(model: Tokenizer, data: SpeechData, silence: int, group: int = 48) -> tuple[Tensor, Tensor]:
    """Codes of every utterance followed by `silence` zeros at 16 kHz: (N, longest) int16 and their lengths."""
    model.eval()
    out: list[list[int]] = [[] for _ in range(len(data))]
    for chosen in torch.argsort(data.samples).split(group):  # near-equal lengths: little padding
        longest = int(data.samples[chosen].max())
        audio = F.pad(to_16k(data.audio(chosen, torch.zeros_like(chosen), longest)), (0, silence))
        codes = model.codes(model.vectors(audio)).cpu()
        lengths = ((data.samples[chosen] // 2 + silence - 400) // 320 + 1) // 2
        for row, (index, length) in enumerate(zip(chosen.tolist(), lengths.tolist(), strict=True)):
            out[index] = codes[row, :length].tolist()
    return pad_rows(out)


def save(model: Tokenizer, path: Path) -> None:
    weights.save(model.state_dict(), path)


def load(path: Path) -> Tokenizer:
    """A trained tokenizer, quantising, in evaluation mode."""
    model = Tokenizer(CLASSES).to(DEVICE)
    model.load_state_dict(weights.read(path, DEVICE))
    model.quantise = True
    return model.eval()
