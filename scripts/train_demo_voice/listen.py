"""What the trained parts say, before any conversion: word errors, endings, durations and pitch on held-out text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

from . import gpt as gpt_module
from . import sovits, tokenizer
from .corpus import load
from .data import DEVICE, SpeechData, to_16k
from .gpt import Sampling, generate
from .scoring import median_pitch, word_error_rate
from .vits import HOP, STYLE_BINS, spectrogram

SAMPLINGS = (Sampling(1, 1.0, 1.0), Sampling(5, 0.6, 1.0), Sampling(15, 1.0, 1.0), Sampling(15, 1.0, 1.35))


@dataclass
class Prompt:
    """A reference as enrolment sees it."""

    phones: list[int]
    codes: list[int]
    style: Tensor
    pitch: float


class Listening:
    def __init__(self, work: Path, data: SpeechData) -> None:
        self.work, self.data = work, data
        self.rows = load(work / "corpus.jsonl.gz")
        self.symbols: dict[str, int] = json.loads((work / "symbols.json").read_text())
        self.tokenizer = tokenizer.load(work / "tokenizer.pt")
        self.sovits = sovits.load(work / "sovits.pt")
        self.gpt = gpt_module.load(work / "gpt.pt") if (work / "gpt.pt").exists() else None
        self.place = {int(r): i for i, r in enumerate(data.row)}
        named = [i for i, r in enumerate(self.rows) if r.speaker]
        self.prompts = {self.rows[i].speaker: self._prompt(i) for i in named[:3]}
        self.rest = named[3:]
        self.out = work / "listen"

    def audio(self, row: int) -> Tensor:
        u = torch.tensor([self.place[row]], device=DEVICE)
        return self.data.audio(u, torch.zeros_like(u), int(self.data.samples[u]))

    def codes(self, row: int, silence: int = 0) -> list[int]:
        audio = F.pad(to_16k(self.audio(row)), (0, silence))
        with torch.no_grad():
            return self.tokenizer.codes(self.tokenizer.vectors(audio))[0].tolist()

    def phones(self, row: int) -> list[int]:
        return [self.symbols[p] for p in self.rows[row].phones]

    def _prompt(self, row: int) -> Prompt:
        audio = self.audio(row)
        with torch.no_grad():
            style = self.sovits.ref_enc(spectrogram(audio)[:, :STYLE_BINS])
        pitch = median_pitch(to_16k(audio)[0].cpu().numpy())
        return Prompt(self.phones(row), self.codes(row, tokenizer.SILENCE), style, pitch)

    def say(self, codes: Sequence[int], phones: list[int], style: Tensor) -> np.ndarray:
        """-> float32 at 16 kHz."""
        if len(codes) == 0:
            return np.zeros(1600, np.float32)
        return to_16k(self.sovits.speak(list(codes), phones, style)[None])[0].float().cpu().numpy()

    def chosen(self, language: str, speaker: str, first: int, count: int) -> list[int]:
        found = [i for i in self.rest if self.rows[i].language == language and self.rows[i].speaker == speaker]
        return found[first : first + count]

    def report(
        self, name: str, rows: Sequence[int], waves: Sequence[np.ndarray], processes: int, extra: str = ""
    ) -> None:
        folder = self.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, wave in enumerate(waves):
            soundfile.write(folder / f"{i:03d}.wav", np.clip(wave, -1, 1), 16000)
        texts = [self.rows[r].text for r in rows]
        (folder / "text.txt").write_text("\n".join(texts), encoding="utf-8")
        source = [len(self.audio(r)[0]) / 2 for r in rows]
        ratio = float(np.mean([len(w) / s for w, s in zip(waves, source, strict=True)]))
        pitch = np.median([median_pitch(w) for w in waves[:30]])
        wer = ""
        if self.rows[rows[0]].language == "en":
            rate, heard = word_error_rate(waves, texts, processes)
            wer = f"WER {100 * rate:.1f} %, "
            (folder / "heard.txt").write_text("\n".join(heard))
        print(f"{name}: {wer}length ratio {ratio:.2f}, median F0 {pitch:.0f} Hz {extra}", flush=True)

    def recon(self, name: str, rows: Sequence[int], speaker: str, processes: int) -> None:
        style = self.prompts[speaker].style
        self.report(name, rows, [self.say(self.codes(r), self.phones(r), style) for r in rows], processes)

    def speak(self, name: str, rows: Sequence[int], speaker: str, how: Sampling, processes: int) -> None:
        if self.gpt is None:
            return
        prompt = self.prompts[speaker]
        texts = [self.phones(r) for r in rows]
        codes, endless = generate(self.gpt, [prompt.phones + t for t in texts], prompt.codes, how)
        waves = [self.say(c, t, prompt.style) for c, t in zip(codes, texts, strict=True)]
        source = [int(self.data.samples[self.place[r]]) // (2 * HOP) for r in rows]
        short = sum(len(c) < 0.6 * s for c, s in zip(codes, source, strict=True))
        long = sum(len(c) > 1.6 * s + 5 for c, s in zip(codes, source, strict=True))
        extra = f"not ended {endless}, under 0.6 {short}, over 1.6 {long}; reference {prompt.pitch:.0f} Hz"
        self.report(name, rows, waves, processes, extra)


def run(work: Path, data: SpeechData, only: str, processes: int) -> None:
    """All sets whose name contains `only`."""
    it = Listening(work, data)
    plain = {s: it.chosen("en", s, 0, 30) for s in ("rms", "slt")}
    mandarin = it.chosen("zh", "espeak-f", 0, 40)
    jobs = []
    for s, rows in plain.items():
        jobs.append((f"source-{s}", lambda r=rows, s=s: it.report(f"source-{s}", r, _sources(it, r), processes)))
        jobs.append((f"recon-{s}", lambda r=rows, s=s: it.recon(f"recon-{s}", r, s, processes)))
    jobs.append(("recon-cross", lambda: it.recon("recon-cross", plain["slt"], "rms", processes)))
    jobs.append(("recon-zh", lambda: it.recon("recon-zh", mandarin, "espeak-f", processes)))
    for how in SAMPLINGS:
        tag = f"{how.top_k}-{how.temperature}-{how.penalty}"
        for s, rows in plain.items():
            jobs.append(
                (f"gpt-{s}-{tag}", lambda n=f"gpt-{s}-{tag}", r=rows, s=s, h=how: it.speak(n, r, s, h, processes))
            )
    best = SAMPLINGS[1]
    jobs.append(("gpt-zh", lambda: it.speak("gpt-zh", mandarin, "espeak-f", best, processes)))
    jobs.append(("gpt-zh-rms", lambda: it.speak("gpt-zh-rms", mandarin, "rms", best, processes)))
    jobs.append(("gpt-en-espeak", lambda: it.speak("gpt-en-espeak", plain["rms"], "espeak-f", best, processes)))
    lengths = it.chosen("en", "rms", 30, 200)
    jobs.append(("gpt-lengths", lambda: it.speak("gpt-lengths", lengths, "rms", best, processes)))
    paragraph = it.chosen("en", "rms", 230, 20)
    jobs.append(("gpt-paragraph", lambda: it.speak("gpt-paragraph", paragraph, "rms", best, processes)))
    for name, job in jobs:
        if only in name:
            job()


def _sources(it: Listening, rows: Sequence[int]) -> list[np.ndarray]:
    return [to_16k(it.audio(r))[0].cpu().numpy() for r in rows]
