"""HiFi-GAN generator (Kong et al. 2020): latent frames at 50 Hz → samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx

from ...layers.activation import tanh
from ...layers.convolution import Conv1d, ConvTranspose1d
from ...layers.fusion import fused
from ...layers.linear import Linear
from ...layers.weights import Scope

SLOPE = 0.1
LAST_SLOPE = 0.01
"""The reference's last activation has PyTorch's default slope, not HiFi-GAN's."""


LARGE = 2 << 20
"""Bytes of an array above which it is computed at once, not with all that follows."""


def leaky_relu(x: mx.array, slope: float) -> mx.array:
    return mx.maximum(x, x * slope)


class Pair:
    """A dilated and a plain convolution with a residual path around them."""

    def __init__(self, dilated: Conv1d, plain: Conv1d):
        self.dilated, self.plain = dilated, plain

    @property
    def reach(self) -> int:
        return self.dilated.reach + self.plain.reach

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        return x + self.plain(leaky_relu(self.dilated(leaky_relu(x, SLOPE), mask), SLOPE), mask)


class ResBlock:
    """Pairs of convolutions, one behind the other (`ResBlock1` of HiFi-GAN)."""

    def __init__(self, scope: Scope, dilations: Sequence[int]):
        self.pairs = [
            Pair(Conv1d(scope / "convs1" / i, dilation=d), Conv1d(scope / "convs2" / i))
            for i, d in enumerate(dilations)
        ]
        self._runs = [fused(pair) for pair in self.pairs]

    @property
    def reach(self) -> int:
        """Samples on either side that a sample depends on."""
        return sum(pair.reach for pair in self.pairs)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        for run in self._runs:
            before, x = x, run(x, mask)
            if x.nbytes > LARGE:
                # a GPU's temporaries are given back when what was asked for is done: two pairs are under way at most
                mx.async_eval(x)
                mx.eval(before)
        return x


class Generator:
    """`dec` of the reference.

    Args:
        rates, kernels: stride and kernel of each transposed convolution.
        dilations: those of each residual block of a stage; a stage's output is the mean of its blocks.
    """

    def __init__(self, scope: Scope, rates: Sequence[int], kernels: Sequence[int], dilations: Sequence[Sequence[int]]):
        self.conv_in = Conv1d(scope / "conv_pre")
        self.condition = Linear(scope / "cond")
        self.upsamplings = [
            ConvTranspose1d(scope / "ups" / i, rate, (kernel - rate) // 2)
            for i, (rate, kernel) in enumerate(zip(rates, kernels, strict=True))
        ]
        blocks = len(dilations)
        self.stages = [
            [ResBlock(scope / "resblocks" / (i * blocks + j), dilations[j]) for j in range(blocks)]
            for i in range(len(rates))
        ]
        self.conv_out = Conv1d(scope / "conv_post", bias=False)

    @property
    def reach(self) -> int:
        """Frames on either side that a frame's samples depend on: those of frame 0, followed back to the latent."""
        first, last = 0, math.prod(upsampling.stride for upsampling in self.upsamplings) - 1
        reach = self.conv_out.reach
        for upsampling, blocks in zip(reversed(self.upsamplings), reversed(self.stages), strict=True):
            reach += max(block.reach for block in blocks)
            first, last = upsampling.sources(first - reach, last + reach)
            reach = 0
        return self.conv_in.reach + max(-first, last)

    def __call__(self, z: mx.array, style: mx.array, mask: mx.array | None = None) -> mx.array:
        """Latent (B, T, inter), style (B, 1, gin) → audio (B, T · Π rates).

        `mask` (B, T, 1) is 0 where a row has ended.
        """
        x = self.conv_in(z, mask) + self.condition(style)
        for upsampling, blocks in zip(self.upsamplings, self.stages, strict=True):
            x = upsampling(leaky_relu(x, SLOPE), mask)
            mask = None if mask is None else mx.repeat(mask, upsampling.stride, axis=1)
            total = blocks[0](x, mask)
            for block in blocks[1:]:
                total = total + block(x, mask)
            x = total / len(blocks)
        return tanh(self.conv_out(leaky_relu(x, LAST_SLOPE), mask))[..., 0]
