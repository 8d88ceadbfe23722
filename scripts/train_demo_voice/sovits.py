"""Train SoVITS on the very path that speaks: codes, phones and a style -> latent -> flow -> generator.

The reference trains a variational model and drops its posterior encoder afterwards. Here codes and speech are
frame-aligned, so the generator learns straight from the text encoder's latent: no gap between training and
use, and half the operations. Losses: log-mel at three resolutions, discriminators and their features on short
slices, and a linear read-out of the whole latent to log-mel that teaches the encoder every frame at once. The mels
reach up to 16 kHz, where the teacher, which speaks at 24 kHz, is silent: so no mirror image grows above its 12 kHz.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .data import DEVICE, BySpeaker, SpeechData
from .discriminators import Discriminators, fooling_loss, judge_loss
from .graphs import Average, Step, capture, optimiser
from .parallel import Gradients, agreed, rank, same
from .vits import HOP, STYLE_BINS, Size, SoVITS, spectrogram
from .weights import read, save, take_what_fits

SLICE = 32  # frames that the generator turns to sound in one training step
STYLE_FRAMES = 160
MELS = ((2048, 640, 100), (1024, 256, 64), (512, 128, 40))


@dataclass(frozen=True)
class Bucket:
    """A fixed shape: `batch` utterances are encoded, `sounded` of them reach the generator."""

    batch: int
    sounded: int
    codes: int
    texts: int


BUCKETS = (Bucket(24, 16, 128, 96), Bucket(24, 16, 320, 224))
TURNS = (0, 0, 0, 1)


def mel_matrix(window: int, bands: int, low: float = 30, high: float = 16000, rate: int = 32000) -> Tensor:
    """(bands, window // 2 + 1) triangular filters on the mel scale."""

    def mel(f: float) -> float:
        return 1127 * math.log(1 + f / 700)

    points = 700 * (torch.exp(torch.linspace(mel(low), mel(high), bands + 2) / 1127) - 1)
    frequency = torch.linspace(0, rate / 2, window // 2 + 1)[None]
    a, b, c = points[:-2, None], points[1:-1, None], points[2:, None]
    return torch.minimum((frequency - a) / (b - a), (c - frequency) / (c - b)).clamp(min=0)


class LogMel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filters = [mel_matrix(w, n).to(DEVICE) for w, _, n in MELS]

    def forward(self, audio: Tensor, which: int) -> Tensor:
        """(B, N) -> (B, bands, N // hop)."""
        window, hop, _ = MELS[which]
        return torch.log((self.filters[which] @ spectrogram(audio, window, hop)).clamp(min=1e-3))


def _widened(rows: Tensor, width: int) -> Tensor:
    """(N, longest) int16 -> at least `width` wide, zeros behind."""
    return nn.functional.pad(rows.long(), (0, max(width - rows.shape[1], 0)))


class SoVITSTraining:
    """One training run, on as many GPUs as there are processes (see `parallel`)."""

    def __init__(
        self, data: SpeechData, codes: tuple[Tensor, Tensor], codebook: Tensor, rate: float = 4e-4, scale: float = 1.0,
        size: Size | None = None,
    ) -> None:  # fmt: skip
        self.data, self.rate, self.scale = data, rate, scale
        self.codes, self.code_count = _widened(codes[0], max(b.codes for b in BUCKETS)), codes[1]
        self.phones = _widened(data.phones, max(b.texts for b in BUCKETS))
        self.model, self.judges = SoVITS(size).to(DEVICE), Discriminators().to(DEVICE)
        self.model.codebook.copy_(codebook)
        self.read_out = nn.Conv1d(self.model.size.hidden, MELS[0][2], 1).to(DEVICE)
        self.learned = [*self.model.parameters(), *self.read_out.parameters()]
        same([p.data for p in (*self.learned, *self.judges.parameters())])
        self.average = Average(self.model, 0.9985)
        self.learning_rate = torch.tensor(rate, device=DEVICE)
        self.optimiser = optimiser(self.learned, self.learning_rate, (0.8, 0.99), 0.01)
        self.judge_optimiser = optimiser(list(self.judges.parameters()), self.learning_rate, (0.8, 0.99), 0.01)
        self.gradients, self.judge_gradients = Gradients(self.learned), Gradients(list(self.judges.parameters()))
        self.mel = LogMel()
        keep = data.train & (self.code_count >= SLICE // 2)
        self.pools = [self._pool(b, keep) for b in BUCKETS]
        long_enough = data.train & (data.samples >= STYLE_FRAMES * HOP)
        self.styles = BySpeaker(torch.nonzero(long_enough)[:, 0], data.speaker, data.speakers)
        torch.manual_seed(rank())  # every process draws another batch

    def _pool(self, bucket: Bucket, keep: Tensor) -> Tensor:
        fits = keep & (self.code_count <= bucket.codes) & (self.data.phone_count <= bucket.texts)
        return torch.nonzero(fits)[:, 0]

    def _style(self, utterance: Tensor) -> Tensor:
        """Spectrogram of another utterance by the same speaker, a random stretch of it."""
        other = self.styles.draw(self.data.speaker[utterance])
        room = self.data.samples[other] - STYLE_FRAMES * HOP
        first = (torch.rand(len(other), device=DEVICE) * room).long()
        return spectrogram(self.data.audio(other, first, STYLE_FRAMES * HOP))[:, :STYLE_BINS]

    def _gradients(self, which: int, adversarial: bool) -> dict[str, Tensor]:
        """The first half of a step: a batch -> losses, and their gradients in `gradients` and `judge_gradients`."""
        bucket = BUCKETS[which]
        size, sounded = max(int(bucket.batch * self.scale), 2), max(int(bucket.sounded * self.scale), 2)
        pool = self.pools[which]
        chosen = pool[torch.randint(len(pool), (size,), device=DEVICE)]
        count = self.code_count[chosen]
        with torch.no_grad():
            audio = self.data.audio(chosen, torch.zeros_like(chosen), bucket.codes * 2 * HOP)
            whole_mel, style = self.mel(audio, 0), self._style(chosen)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            ge = self.model.ref_enc(style)
            latent = self.model.latent(
                self.codes[chosen, : bucket.codes], count, self.phones[chosen, : bucket.texts],
                self.data.phone_count[chosen], ge,
            )  # fmt: skip
            guess = self.read_out(latent).float()
            first = (torch.rand(sounded, device=DEVICE) * (2 * count[:sounded] - SLICE + 1)).long()
            index = first[:, None] + torch.arange(SLICE, device=DEVICE)
            sliced = latent[:sounded].gather(2, index[:, None].expand(-1, latent.shape[1], -1))
            fake = self.model.dec(sliced, ge[:sounded])
        samples = first[:, None] * HOP + torch.arange(SLICE * HOP, device=DEVICE)
        real = audio[:sounded].gather(1, samples)
        inside = (torch.arange(whole_mel.shape[2], device=DEVICE) < 2 * count[:, None])[:, None].float()
        parts = {
            "mel": torch.stack([(self.mel(real, i) - self.mel(fake, i)).abs().mean() for i in range(len(MELS))]).mean(),
            "read-out": ((guess - whole_mel).abs() * inside).sum() / (inside.sum() * whole_mel.shape[1]),
        }
        total = 45 * parts["mel"] + 10 * parts["read-out"]
        if adversarial:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
                maps = self.judges(torch.cat([real, fake]))
            parts["judge"] = judge_loss(maps, sounded)
            parts["fool"], parts["features"] = fooling_loss(maps, sounded)
            total = total + parts["fool"] + 2 * parts["features"]
            # one forward pass serves both sides: the judges' gradients are of their loss, the model's of its own
            self.judge_gradients.clear()
            parts["judge"].backward(inputs=list(self.judges.parameters()), retain_graph=True)
        self.gradients.clear()
        total.backward(inputs=self.learned)
        return {k: v.detach() for k, v in parts.items()}

    def _update(self, adversarial: bool) -> dict[str, Tensor]:
        """The second half of a step: gradients -> weights."""
        if adversarial:
            self.judge_optimiser.step()
        nn.utils.clip_grad_norm_(self.model.parameters(), 500.0)
        self.optimiser.step()
        self.average.update()
        return {}

    def _captured(self, which: int, adversarial: bool) -> Step:
        """A whole step as a function without arguments: two graphs, gradients averaged over processes between."""
        self.learning_rate.fill_(1e-7)  # capture takes a few steps of its own
        forward = capture(lambda: self._gradients(which, adversarial))
        update = capture(lambda: self._update(adversarial))

        def step() -> dict[str, Tensor]:
            parts = forward()
            self.gradients.average()
            if adversarial:
                self.judge_gradients.average()
            update()
            return parts

        return step

    def run(self, seconds: float, out: Path, gan_from: float, warm: bool = False, every: float = 60) -> None:
        """Train for `seconds`, with discriminators after the share `gan_from` of it; weights go to `out`.

        `out` holds the averaged weights of the model (float16), `out`.judges what a later run resumes beside them.
        """
        start, count, done, next_report = time.time(), 0, 0.0, 10.0
        steps: dict[tuple[int, bool], Step] = {}
        smooth: dict[str, Tensor] = {}
        while done < 1:
            if count % 10 == 0:
                if DEVICE == "cuda":
                    torch.cuda.synchronize()
                done = agreed((time.time() - start) / seconds, DEVICE)
            which, gan = TURNS[count % len(TURNS)], done > gan_from
            if (which, gan) not in steps:
                steps[which, gan] = self._captured(which, gan)
                same([p.data for p in (*self.learned, *self.judges.parameters())])
                print(f"sovits: captured {which} {gan} at {time.time() - start:.0f} s", flush=True)
            ramp = 1.0 if warm else min(1, (count + 1) / 300)
            self.learning_rate.fill_(self.rate * ramp * max(0.03, min(1, (1 - done) / 0.6)))
            parts = steps[which, gan]()
            count += 1
            if count == 300:
                self.average.restart()
            for key, value in parts.items():
                smooth[key] = smooth[key] * 0.98 + value * 0.02 if key in smooth else value.clone()
            if rank() == 0 and (time.time() - start > next_report or done >= 1):
                next_report = time.time() - start + every
                text = ", ".join(f"{k} {float(v):.3f}" for k, v in smooth.items())
                print(f"sovits step {count} {time.time() - start:.0f} s: {text}", flush=True)
                self.save(out)

    def save(self, out: Path) -> None:
        save(self.average.state() | {"codebook": self.model.codebook}, out)
        judges = {f"judges.{k}": v for k, v in self.judges.state_dict().items()}
        judges |= {f"read_out.{k}": v for k, v in self.read_out.state_dict().items()}
        save(judges, out.with_suffix(".judges.pt"))

    def resume(self, path: Path) -> bool:
        """Take up what fits of the weights that an earlier run left at `path`; False where its discriminators are not
        there. The codebook stays the tokenizer's."""
        state = read(path, DEVICE)
        state.pop("codebook", None)
        left = take_what_fits(self.model, state)
        if rank() == 0:
            print(f"sovits: resumed from {path}, {len(left)} tensors anew: {left[:6]}", flush=True)
        training = path.with_suffix(".judges.pt")
        if there := training.exists():  # a shipped voice has none: they start anew
            beside = read(training, DEVICE)
            take_what_fits(self.judges, {k[7:]: v for k, v in beside.items() if k.startswith("judges.")})
            take_what_fits(self.read_out, {k[9:]: v for k, v in beside.items() if k.startswith("read_out.")})
        self.average.restart()
        return there


def load(path: Path) -> SoVITS:
    model = SoVITS().to(DEVICE)
    model.load_state_dict(read(path, DEVICE))
    return model.eval()
