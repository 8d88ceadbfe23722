"""The post-norm Transformer layer that HuBERT and BERT share (Vaswani et al. 2017, with GELU)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from .activation import gelu
from .attention import attend
from .linear import Linear
from .normalisation import LayerNorm
from .weights import Scope


@dataclass(frozen=True)
class LayerNames:
    """What a model calls the parts of a layer, as dotted paths."""

    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    feed_forward_in: str
    feed_forward_out: str
    feed_forward_norm: str


class TransformerLayer:
    """x = LN(x + attention(x)); x = LN(x + W₂ GELU(W₁ x)), bidirectional: (B, T, width) → (B, T, width)."""

    def __init__(self, scope: Scope, names: LayerNames, heads: int, eps: float):
        self.heads = heads
        self.qkv = Linear(scope / names.query, scope / names.key, scope / names.value)
        self.out = Linear(scope / names.attention_out)
        self.linear1, self.linear2 = Linear(scope / names.feed_forward_in), Linear(scope / names.feed_forward_out)
        self.norm1 = LayerNorm(scope / names.attention_norm, eps)
        self.norm2 = LayerNorm(scope / names.feed_forward_norm, eps)
        self.scale = 1 / math.sqrt(self.out.out_features // heads)

    def __call__(self, x: mx.array) -> mx.array:
        q, k, v = mx.split(self.qkv(x), 3, axis=-1)
        attended = attend(q, k, v, self.heads, self.scale)
        x = self.norm1(x + self.out(attended))
        return self.norm2(x + self.linear2(gelu(self.linear1(x))))
