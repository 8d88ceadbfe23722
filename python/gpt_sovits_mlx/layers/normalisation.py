"""Layer normalisation."""

from __future__ import annotations

import mlx.core as mx

from .weights import Scope


class LayerNorm:
    """Layer normalisation over the last axis, statistics in float32.

    VITS names the parameters `gamma` and `beta`, everything else `weight` and `bias`.
    """

    def __init__(self, scope: Scope, eps: float = 1e-5):
        gain, shift = ("gamma", "beta") if "gamma" in scope else ("weight", "bias")
        self.weight = scope.tensor(gain, None)
        self.bias = scope.tensor(shift, *self.weight.shape)
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.weight, self.bias, self.eps)
