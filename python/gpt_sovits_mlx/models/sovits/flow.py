"""Normalising flow between the prior's latent and the generator's, run backwards at inference."""

from __future__ import annotations

import mlx.core as mx

from ...layers.activation import sigmoid, tanh
from ...layers.convolution import Conv1d
from ...layers.linear import Linear
from ...layers.weights import Scope


class WaveNet:
    """Gated convolutions with residual and skip paths, conditioned on the style (`WN` in VITS and WaveGlow)."""

    def __init__(self, scope: Scope):
        layers = range(scope.count("in_layers.{}.weight"))
        self.convolutions = [Conv1d(scope / "in_layers" / i) for i in layers]
        self.residual_skip = [Linear(scope / "res_skip_layers" / i) for i in layers]
        self.condition = Linear(scope / "cond_layer")

    def __call__(self, x: mx.array, style: mx.array, mask: mx.array | None) -> mx.array:
        """(B, T, hidden), style (B, 1, gin) → (B, T, hidden)."""
        conditions = mx.split(self.condition(style), len(self.convolutions), axis=-1)
        width = x.shape[-1]
        skip: mx.array | None = None
        for conv, out, condition in zip(self.convolutions, self.residual_skip, conditions, strict=True):
            value, gate = mx.split(conv(x, mask) + condition, 2, axis=-1)
            y = out(tanh(value) * sigmoid(gate))
            if y.shape[-1] > width:  # all layers but the last
                x = x + y[..., :width]
                y = y[..., width:]
            skip = y if skip is None else skip + y
        assert skip is not None
        return skip


class Coupling:
    """Additive (mean-only) coupling layer: one half of the channels shifts the other."""

    def __init__(self, scope: Scope):
        self.pre, self.wavenet, self.post = (
            Linear(scope / "pre"),
            WaveNet(scope / "enc"),
            Linear(scope / "post"),
        )

    def inverse(self, x: mx.array, style: mx.array, mask: mx.array | None) -> mx.array:
        kept, shifted = mx.split(x, 2, axis=-1)
        mean = self.post(self.wavenet(self.pre(kept), style, mask))
        return mx.concatenate([kept, shifted - mean], axis=-1)


class Flow:
    """Coupling layers with the channels flipped between them; the flips own the odd numbers in the file."""

    def __init__(self, scope: Scope):
        count = 0
        while f"flows.{2 * count}.pre.weight" in scope:
            count += 1
        self.couplings = [Coupling(scope / "flows" / (2 * i)) for i in range(count)]

    @property
    def reach(self) -> int:
        """Frames on either side that a frame depends on."""
        return sum(conv.reach for coupling in self.couplings for conv in coupling.wavenet.convolutions)

    def inverse(self, z: mx.array, style: mx.array, mask: mx.array | None = None) -> mx.array:
        """Latent of the prior (B, T, inter), style (B, 1, gin) → latent of the generator (B, T, inter).

        `mask` (B, T, 1) is 0 where a row has ended.
        """
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z[..., ::-1], style, mask)
        return z
