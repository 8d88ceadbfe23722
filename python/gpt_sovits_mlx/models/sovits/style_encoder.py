"""Style encoder: spectrogram of a reference → one vector that carries the speaker's timbre."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from ...layers.attention import attend
from ...layers.convolution import Conv1d

HEADS = 2
KERNEL = 5


def mish(x: mx.array) -> mx.array:
    """x · tanh(softplus(x)) (Misra 2019)."""
    return x * mx.tanh(mx.logaddexp(x, mx.array(0, x.dtype)))


class LinearNorm(nn.Module):
    """A linear layer under the name `fc`: (…, in) → (…, out)."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.fc = nn.Linear(in_features, out_features)

    def __call__(self, x: mx.array) -> mx.array:
        return self.fc(x)


class ConvNorm(nn.Module):
    """A convolution under the name `conv`: (B, T, in) → (B, T, out)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = Conv1d(in_channels, out_channels, KERNEL)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv(x)


class GatedConv(nn.Module):
    """A convolution gated by half of its outputs, with a residual path (`Conv1dGLU`): (B, T, C) → the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = ConvNorm(channels, 2 * channels)

    def __call__(self, x: mx.array) -> mx.array:
        value, gate = mx.split(self.conv1(x), 2, axis=-1)
        return x + value * mx.sigmoid(gate)


class SelfAttention(nn.Module):
    """Self-attention with a residual path, scaled by the root of the model's width: (B, T, C) → the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(channels, channels) for _ in range(4))
        # the reference divides by the root of the model's width, not of a head's
        self.scale = 1 / math.sqrt(channels)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.fc(attend(self.w_qs(x), self.w_ks(x), self.w_vs(x), HEADS, self.scale))


class StyleEncoder(nn.Module):
    """MelStyleEncoder of Meta-StyleSpeech (Min et al. 2021) over the lower bins of a linear spectrogram.

    The reference's activations and dropouts hold the numbers 1, 2, 4 and 5 of `spectral`.
    """

    def __init__(self, bins: int, channels: int, style_channels: int):
        super().__init__()
        self.bins = bins
        spectral = [LinearNorm(bins, channels), LinearNorm(channels, channels)]
        self.spectral = [spectral[0], nn.Identity(), nn.Identity(), spectral[1]]
        self.temporal = [GatedConv(channels), GatedConv(channels)]
        self.slf_attn = SelfAttention(channels)
        self.fc = LinearNorm(channels, style_channels)

    def __call__(self, spectrogram: mx.array) -> mx.array:
        """(B, T, bins or more) → (B, 1, gin)."""
        x = spectrogram[..., : self.bins].astype(self.fc.fc.weight.dtype)
        for layer in self.spectral:
            x = mish(layer(x)) if isinstance(layer, LinearNorm) else x
        for convolution in self.temporal:
            x = convolution(x)
        return mx.mean(self.fc(self.slf_attn(x)), axis=1, keepdims=True)
