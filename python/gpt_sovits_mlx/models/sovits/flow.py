"""Normalising flow between the prior's latent and the generator's (VITS; Kim et al. 2021), run backwards here."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ...layers.activation import sigmoid, tanh
from ...layers.convolution import Conv1d
from ...layers.linear import PointwiseConv1d

COUPLINGS, WAVENET_LAYERS, WAVENET_KERNEL = 4, 4, 5
"""Fixed in the reference."""


class WaveNet(nn.Module):
    """Gated convolutions with residual and skip paths, conditioned on the style (`WN` in VITS and WaveGlow)."""

    def __init__(self, channels: int, style_channels: int):
        super().__init__()
        layers = range(WAVENET_LAYERS)
        self.in_layers = [Conv1d(channels, 2 * channels, WAVENET_KERNEL) for _ in layers]
        # the last layer has no residual path
        self.res_skip_layers = [
            PointwiseConv1d(channels, channels if layer == layers[-1] else 2 * channels) for layer in layers
        ]
        self.cond_layer = PointwiseConv1d(style_channels, 2 * channels * WAVENET_LAYERS)

    def __call__(self, x: mx.array, style: mx.array, mask: mx.array | None) -> mx.array:
        """(B, T, channels), style (B, 1, gin) → (B, T, channels)."""
        conditions = mx.split(self.cond_layer(style), len(self.in_layers), axis=-1)
        width = x.shape[-1]
        skip: mx.array | None = None
        for convolution, out, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            value, gate = mx.split(convolution(x, mask) + condition, 2, axis=-1)
            y = out(tanh(value) * sigmoid(gate))
            if y.shape[-1] > width:
                x = x + y[..., :width]
                y = y[..., width:]
            skip = y if skip is None else skip + y
        assert skip is not None
        return skip


class Coupling(nn.Module):
    """Additive (mean-only) coupling layer: one half of the channels shifts the other."""

    def __init__(self, latent_channels: int, channels: int, style_channels: int):
        super().__init__()
        self.pre = PointwiseConv1d(latent_channels // 2, channels)
        self.enc = WaveNet(channels, style_channels)
        self.post = PointwiseConv1d(channels, latent_channels // 2)

    def inverse(self, x: mx.array, style: mx.array, mask: mx.array | None) -> mx.array:
        """(B, T, latent) → the same."""
        kept, shifted = mx.split(x, 2, axis=-1)
        mean = self.post(self.enc(self.pre(kept), style, mask))
        return mx.concatenate([kept, shifted - mean], axis=-1)


class Flip(nn.Module):
    """The channels in reverse order; it has no parameters, and the odd numbers in files."""

    def inverse(self, x: mx.array, style: mx.array, mask: mx.array | None) -> mx.array:
        return x[..., ::-1]


class Flow(nn.Module):
    """Coupling layers, each with a flip behind it."""

    def __init__(self, latent_channels: int, channels: int, style_channels: int):
        super().__init__()
        self.flows: list[Coupling | Flip] = []
        for _ in range(COUPLINGS):
            self.flows += [Coupling(latent_channels, channels, style_channels), Flip()]

    @property
    def reach(self) -> int:
        """Frames on either side that a frame depends on."""
        couplings = [flow for flow in self.flows if isinstance(flow, Coupling)]
        return sum(convolution.reach for coupling in couplings for convolution in coupling.enc.in_layers)

    def inverse(self, z: mx.array, style: mx.array, mask: mx.array | None = None) -> mx.array:
        """Latent of the prior (B, T, inter), style (B, 1, gin) → latent of the generator (B, T, inter).

        `mask` (B, T, 1) is 0 where a row has ended.
        """
        for flow in reversed(self.flows):
            z = flow.inverse(z, style, mask)
        return z
