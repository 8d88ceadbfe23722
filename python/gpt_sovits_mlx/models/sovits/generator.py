"""HiFi-GAN generator (Kong et al. 2020): latent frames at 50 Hz → samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ...layers.activation import tanh
from ...layers.convolution import Conv1d, ConvTranspose1d
from ...layers.derived import Derived, Source
from ...layers.linear import PointwiseConv1d
from ...tuning import forms

SLOPE = 0.1
LAST_SLOPE = 0.01
"""The reference's last activation has PyTorch's default slope, not HiFi-GAN's."""
LARGE_BYTES = 2 << 20
"""Of an array above which it is computed at once, not with all that follows."""


def leaky_relu(x: mx.array, slope: float) -> mx.array:
    return mx.maximum(x, x * slope)


@dataclass(frozen=True)
class ConvPair:
    """A dilated and a plain convolution with a residual path around them: (B, T, channels) → the same."""

    dilated: Conv1d
    plain: Conv1d

    @property
    def reach(self) -> int:
        return self.dilated.reach + self.plain.reach

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        return x + self.plain(leaky_relu(self.dilated(leaky_relu(x, SLOPE), mask), SLOPE), mask)


class ResBlock(Derived[Sequence[Callable[..., mx.array]]]):
    """Pairs of convolutions, one behind the other (`ResBlock1` of HiFi-GAN): (B, T, channels) → the same."""

    SHARES_SOURCES = True

    def __init__(self, channels: int, kernel_size: int, dilations: Sequence[int]):
        super().__init__()
        self.convs1 = [Conv1d(channels, channels, kernel_size, dilation=dilation) for dilation in dilations]
        self.convs2 = [Conv1d(channels, channels, kernel_size) for _ in dilations]
        self._fused = forms().fused

    @property
    def pairs(self) -> list[ConvPair]:
        return [ConvPair(dilated, plain) for dilated, plain in zip(self.convs1, self.convs2, strict=True)]

    @property
    def reach(self) -> int:
        """Samples on either side that a sample depends on."""
        return sum(pair.reach for pair in self.pairs)

    def sources(self) -> Sequence[Source]:
        """A compiled function holds the parameters as they were when it was traced."""
        convolutions = [*self.convs1, *self.convs2] if self._fused else []
        return [(convolution, name) for convolution in convolutions for name in ("weight", "bias")]

    def derive(self) -> Sequence[Callable[..., mx.array]]:
        return [mx.compile(pair) for pair in self.pairs]

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        for pair in self.derived() if self._fused else self.pairs:
            before, x = x, pair(x, mask)
            if x.nbytes > LARGE_BYTES:
                # a GPU's temporaries are given back when what was asked for is done: two pairs are under way at most
                mx.async_eval(x)
                mx.eval(before)
        return x


class Generator(nn.Module):
    """`dec` of the reference.

    Args:
        in_channels: of the latent.
        channels: behind the first convolution; each upsampling halves them.
        style_channels: of the style vector.
        rates, kernel_sizes: stride and kernel of each transposed convolution.
        block_kernel_sizes, dilations: those of each residual block of a stage; a stage's output is the mean of its
            blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        style_channels: int,
        rates: Sequence[int],
        kernel_sizes: Sequence[int],
        block_kernel_sizes: Sequence[int],
        dilations: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.conv_pre = Conv1d(in_channels, channels, 7)
        self.cond = PointwiseConv1d(style_channels, channels)
        self.ups, self.resblocks = [], []
        for rate, kernel_size in zip(rates, kernel_sizes, strict=True):
            padding = (kernel_size - rate) // 2
            self.ups.append(ConvTranspose1d(channels, channels // 2, kernel_size, rate, padding))
            channels //= 2
            self.resblocks += [
                ResBlock(channels, size, spread) for size, spread in zip(block_kernel_sizes, dilations, strict=True)
            ]
        self.conv_post = Conv1d(channels, 1, 7, bias=False)

    @property
    def stages(self) -> list[tuple[ConvTranspose1d, list[ResBlock]]]:
        """Each upsampling with the residual blocks behind it."""
        count = len(self.resblocks) // len(self.ups)
        return [(up, self.resblocks[i * count : (i + 1) * count]) for i, up in enumerate(self.ups)]

    @property
    def rate(self) -> int:
        """Samples for a frame."""
        return math.prod(up.stride for up in self.ups)

    @property
    def reach(self) -> int:
        """Frames on either side that a frame's samples depend on: those of frame 0, followed back to the latent."""
        first, last, reach = 0, self.rate - 1, self.conv_post.reach
        for up, blocks in reversed(self.stages):
            reach += max(block.reach for block in blocks)
            first, last = up.first_and_last_source(first - reach, last + reach)
            reach = 0
        return self.conv_pre.reach + max(-first, last)

    def __call__(self, z: mx.array, style: mx.array, mask: mx.array | None = None) -> mx.array:
        """Latent (B, T, inter), style (B, 1, gin) → audio (B, T · Π rates).

        `mask` (B, T, 1) is 0 where a row has ended.
        """
        x = self.conv_pre(z, mask) + self.cond(style)
        for up, blocks in self.stages:
            x = up(leaky_relu(x, SLOPE), mask)
            mask = None if mask is None else mx.repeat(mask, up.stride, axis=1)
            total = blocks[0](x, mask)
            for block in blocks[1:]:
                total = total + block(x, mask)
            x = total / len(blocks)
        return tanh(self.conv_post(leaky_relu(x, LAST_SLOPE), mask))[..., 0]
