"""Style encoder: spectrogram of a reference → one vector that carries the speaker's timbre."""

from __future__ import annotations

import math

import mlx.core as mx

from ...layers.attention import attend
from ...layers.convolution import Conv1d
from ...layers.linear import Linear
from ...layers.weights import Scope

HEADS = 2


def mish(x: mx.array) -> mx.array:
    """x · tanh(softplus(x)) (Misra 2019)."""
    return x * mx.tanh(mx.logaddexp(x, mx.array(0, x.dtype)))


class StyleEncoder:
    """MelStyleEncoder of Meta-StyleSpeech (Min et al. 2021) over the lower bins of a linear spectrogram."""

    def __init__(self, scope: Scope):
        self.spectral = [Linear(scope / "spectral" / i / "fc") for i in (0, 3)]
        self.temporal = [Conv1d(scope / "temporal" / i / "conv1" / "conv") for i in (0, 1)]
        attention = scope / "slf_attn"
        self.q, self.k, self.v = (Linear(attention / f"w_{n}s") for n in "qkv")
        self.attention_out = Linear(attention / "fc")
        self.out = Linear(scope / "fc" / "fc")
        self.bins = self.spectral[0].in_features
        # the reference divides by the root of the model's width, not of a head's
        self.scale = 1 / math.sqrt(self.q.in_features)

    def __call__(self, spectrogram: mx.array) -> mx.array:
        """(B, T, bins or more) → (B, 1, gin)."""
        x = spectrogram[..., : self.bins].astype(self.out.dtype)
        for linear in self.spectral:
            x = mish(linear(x))
        for conv in self.temporal:
            value, gate = mx.split(conv(x), 2, axis=-1)
            x = x + value * mx.sigmoid(gate)
        x = x + self.attention_out(attend(self.q(x), self.k(x), self.v(x), HEADS, self.scale))
        return mx.mean(self.out(x), axis=1, keepdims=True)
