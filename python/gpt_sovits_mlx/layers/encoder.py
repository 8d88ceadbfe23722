"""The post-norm Transformer layer that HuBERT and BERT share (Vaswani et al. 2017, with GELU)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from .activation import gelu
from .attention import attend
from .derived import Derived, Source
from .linear import LinearLayer, joined


class SelfAttention(Derived[LinearLayer | None]):
    """Bidirectional self-attention: (B, T, width) → the same. Queries, keys and values are one product."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    @property
    def _inputs(self) -> list[nn.Module]:
        return [self.q_proj, self.k_proj, self.v_proj]

    def sources(self) -> Sequence[Source]:
        return [(layer, name) for layer in self._inputs for name in ("weight", "scales", "biases", "bias")]

    def derive(self) -> LinearLayer | None:
        return joined(self._inputs)

    def __call__(self, x: mx.array) -> mx.array:
        together = self.derived()
        if together is None:  # one of them is an adapter
            q, k, v = (layer(x) for layer in self._inputs)
        else:
            q, k, v = mx.split(together(x), 3, axis=-1)
        return self.out_proj(attend(q, k, v, self.heads, self.scale))


class FeedForward(nn.Module):
    """W₂ GELU(W₁ x): (B, T, width) → the same."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.intermediate_dense, self.output_dense = nn.Linear(width, inner), nn.Linear(inner, width)

    def __call__(self, x: mx.array) -> mx.array:
        return self.output_dense(gelu(self.intermediate_dense(x)))


class TransformerLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + W₂ GELU(W₁ x)), bidirectional: (B, T, width) → the same.

    Its parts have the names that HuBERT has in Hugging Face's files.
    """

    def __init__(self, width: int, inner: int, heads: int, eps: float):
        super().__init__()
        self.attention, self.layer_norm = SelfAttention(width, heads), nn.LayerNorm(width, eps)
        self.feed_forward, self.final_layer_norm = FeedForward(width, inner), nn.LayerNorm(width, eps)

    def __call__(self, x: mx.array) -> mx.array:
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))
