"""HuBERT features ↔ semantic tokens: one codebook at 25 Hz."""

from __future__ import annotations

import mlx.core as mx

from ...layers.convolution import Conv1d
from ...layers.weights import Scope


class SemanticQuantizer:
    """Halves the frame rate of HuBERT features (`ssl_proj`) and names the nearest entry of a codebook.

    The codebook is that of EnCodec's Euclidean vector quantizer with a single level and no projections.
    """

    def __init__(self, root: Scope):
        self.projection = Conv1d(root / "ssl_proj", stride=2, padding=0)
        self.codebook = (root / "quantizer.vq.layers.0._codebook").tensor("embed", None, None)

    def encode(self, features: mx.array) -> mx.array:
        """HuBERT features (B, T, ssl) at 50 Hz → tokens (B, T // 2) int32."""
        x = self.projection(features.astype(self.codebook.dtype)).astype(mx.float32)
        codebook = self.codebook.astype(mx.float32)
        distance = mx.sum(codebook * codebook, axis=-1) - 2 * (x @ codebook.T)
        return mx.argmin(distance, axis=-1).astype(mx.int32)

    def decode(self, tokens: mx.array) -> mx.array:
        """Tokens (B, N) → features (B, 2N, ssl) at 50 Hz, each entry twice."""
        return mx.repeat(self.codebook[tokens], 2, axis=1)
