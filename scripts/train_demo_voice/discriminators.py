"""HiFi-GAN's period and scale discriminators (Kong et al., 2020), narrow, and the losses made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm

from .graphs import beside

PERIODS = (2, 3, 5, 7, 11)


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


class ScaleDiscriminator(nn.Module):
    def __init__(self, width: float) -> None:
        super().__init__()
        c = [int(n * width) for n in (16, 64, 256, 1024, 1024)]
        layers = [nn.Conv1d(1, c[0], 15, 1, 7)]
        # not in groups, as HiFi-GAN has them: at this width grouped kernels take five times as long
        layers += [nn.Conv1d(c[i], c[i + 1], 41, 4, 20) for i in range(3)]
        layers += [nn.Conv1d(c[3], c[4], 5, 1, 2)]
        self.convs = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.last = weight_norm(nn.Conv1d(c[4], 1, 3, 1, 1))

    def forward(self, audio: Tensor) -> list[Tensor]:
        x = audio[:, None]
        maps = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.1)
            maps.append(x)
        return [*maps, self.last(x)]


class Discriminators(nn.Module):
    def __init__(self, width: float = 0.25) -> None:
        super().__init__()
        periods: list[nn.Module] = [PeriodDiscriminator(p, width) for p in PERIODS]
        self.parts = nn.ModuleList([*periods, ScaleDiscriminator(width)])

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
