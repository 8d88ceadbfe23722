"""Discriminators of periods (HiFi-GAN, Kong et al., 2020), narrow, and of spectra, and the losses made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm

from .graphs import beside
from .vits import spectrogram

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (512, 1024, 2048)


class PeriodDiscriminator(nn.Module):
    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        channels = [1, *(int(c * width) for c in (32, 128, 512, 1024, 1024))]
        strides = (3, 3, 3, 3, 1)
        pairs = zip(channels[:-1], channels[1:], strides, strict=True)
        self.convs = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (s, 1), (2, 0))) for a, b, s in pairs)
        self.last = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """(B, N) -> the feature maps, the score last."""
        x = F.pad(audio[:, None], (0, -audio.shape[1] % self.period), mode="reflect")
        x = x.unflatten(-1, (-1, self.period))
        maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            maps.append(x)
        return [*maps, self.last(x)]


class SpectrumDiscriminator(nn.Module):
    """Scores the magnitude spectrogram of one window length (UnivNet, Jang et al., 2021)."""

    def __init__(self, window: int, channels: int = 32) -> None:
        super().__init__()
        self.window = window
        shapes = [((3, 9), (1, 1)), *[((3, 9), (1, 2))] * 3, ((3, 3), (1, 1))]
        layers = [
            nn.Conv2d(channels if i else 1, channels, kernel, stride, (kernel[0] // 2, kernel[1] // 2))
            for i, (kernel, stride) in enumerate(shapes)
        ]
        self.convs = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(nn.Conv2d(channels, 1, (3, 3), 1, (1, 1)))

    def forward(self, audio: Tensor) -> list[Tensor]:
        with torch.autocast(audio.device.type, enabled=False):
            x = spectrogram(audio.float(), self.window, self.window // 4).transpose(1, 2)[:, None]
        maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            maps.append(x)
        return [*maps, self.last(x)]


class Discriminators(nn.Module):
    def __init__(self, width: float = 0.25) -> None:
        super().__init__()
        periods: list[nn.Module] = [PeriodDiscriminator(p, width) for p in PERIODS]
        self.parts = nn.ModuleList([*periods, *(SpectrumDiscriminator(w) for w in WINDOWS)])

    def forward(self, audio: Tensor) -> list[list[Tensor]]:
        return beside(audio, list(self.parts))


def judge_loss(maps: list[list[Tensor]], real: int) -> Tensor:
    """Least squares: the first `real` rows should score 1, the others 0."""
    return torch.stack(
        [(1 - m[-1][:real].float()).pow(2).mean() + m[-1][real:].float().pow(2).mean() for m in maps]
    ).sum()


def fooling_loss(maps: list[list[Tensor]], real: int) -> tuple[Tensor, Tensor]:
    """-> adversarial and feature-matching loss of the rows after `real`."""
    adversarial = torch.stack([(1 - m[-1][real:].float()).pow(2).mean() for m in maps]).sum()
    matching = [(f[:real].detach().float() - f[real:].float()).abs().mean() for m in maps for f in m[:-1]]
    return adversarial, torch.stack(matching).sum()
