"""HuBERT features ↔ semantic tokens: one codebook at 25 Hz."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn


class EuclideanCodebook(nn.Module):
    """EnCodec's Euclidean vector quantizer (Défossez et al. 2022) with a single level and no projections."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.embed = mx.random.normal((size, width))

    def encode(self, features: mx.array) -> mx.array:
        """Features (B, N, width) → the nearest entries (B, N) int32."""
        codebook = self.embed.astype(mx.float32)
        distance = mx.sum(codebook * codebook, axis=-1) - 2 * (features.astype(mx.float32) @ codebook.T)
        return mx.argmin(distance, axis=-1).astype(mx.int32)

    def decode(self, tokens: mx.array) -> mx.array:
        """Tokens (B, N) at 25 Hz → features (B, 2N, width) at 50 Hz, each entry twice."""
        return mx.repeat(self.embed[tokens], 2, axis=1)
