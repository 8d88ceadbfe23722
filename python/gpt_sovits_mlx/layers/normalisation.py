"""Normalisation that `mlx.nn` lacks."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class ChannelNorm(nn.Module):
    """Layer normalisation over the last axis under VITS's names, `gamma` and `beta`: (…, channels) → the same."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.gamma, self.beta = mx.ones((channels,)), mx.zeros((channels,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.layer_norm(x, self.gamma, self.beta, self.eps)
