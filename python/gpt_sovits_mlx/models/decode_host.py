"""The decode step on a CPU, in numpy over the memory of MLX's weights.

MLX's products are all of two matrices, for which BLAS packs the larger one first; reading it takes half of that time.
numpy hands a matrix and a row to BLAS's matrix-vector product, and its operations on a few numbers start in a tenth of
the time of MLX's. It equals `TextToSemantic.decode`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from ..layers.linear import Embedding, Linear
from ..layers.normalisation import LayerNorm
from ..layers.weights import host_view
from .cache import KVCache

if TYPE_CHECKING:
    from .t2s import DecoderLayer, SinePositions, T2SState

FEW = 3
"""Rows up to which a product for each of them is faster than one for all."""


@dataclass
class HostRow:
    """One sentence's place in a decode.

    Attributes:
        cache: (L, 2, heads, room, head_dim), keys and values of all layers.
        length: keys that it holds.
        position: of the next audio token.
    """

    cache: np.ndarray
    length: int
    position: int

    def make_room(self) -> None:
        """Let one more key fit."""
        if self.length == self.cache.shape[3]:
            self.cache = np.pad(self.cache, [(0, 0), (0, 0), (0, 0), (0, KVCache.STEP), (0, 0)])


def host_rows(state: T2SState, texts: Sequence[int], prompts: Sequence[int]) -> list[HostRow]:
    """The rows of a batch that has been read, of so many phones and prompt tokens, without what padded them."""
    caches = [
        (host_view(c.keys), host_view(c.values)) for c in state.caches if c.keys is not None and c.values is not None
    ]
    _, heads, _, width = caches[0][0].shape
    rows = []
    for at, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        length, start = text + prompt, max(texts)
        room = (length // KVCache.STEP + 1) * KVCache.STEP
        own = np.zeros((len(caches), 2, heads, room, width), np.float32)
        for layer, pair in zip(own, caches, strict=True):
            for part, held in zip(layer, pair, strict=True):
                part[:, :text] = held[at, :, :text]
                part[:, text:length] = held[at, :, start : start + prompt]
        rows.append(HostRow(own, length, prompt))
    return rows


def host_decoder(
    layers: Sequence[DecoderLayer], embedding: Embedding, positions: SinePositions, predict: Linear
) -> HostDecoder | None:
    """The step for these parts of a GPT; `None` for weights that are not float32, or that are packed."""
    linears = [part for layer in layers for part in (layer.qkv, layer.out, layer.linear1, layer.linear2)]
    weights = [embedding.weight, *(linear.weight for linear in linears)]
    if not all(isinstance(weight, mx.array) and weight.dtype == mx.float32 for weight in weights):
        return None
    return HostDecoder(layers, embedding, positions, predict)


class HostDecoder:
    """The step; it holds views of the weights."""

    def __init__(self, layers: Sequence[DecoderLayer], embedding: Embedding, positions: SinePositions, predict: Linear):
        self.layers = [HostLayer.of(layer) for layer in layers]
        self.attention, self.positions = HostAttention(layers[0].heads), positions
        self.embedding, self.predict = host_view(embedding.weight), HostProduct(predict)

    def decode(self, tokens: np.ndarray, rows: Sequence[HostRow]) -> mx.array:
        """One step: the rows' newest tokens (B,) → logits (B, vocab) of the next ones, float32."""
        x = self.embedding[tokens] + np.array(self.positions.of([row.position for row in rows]))
        for row in rows:
            row.make_room()
        for at, layer in enumerate(self.layers):
            x = layer.norm1(x + layer.out(self.attention(layer.qkv(x), rows, at)))
            x = layer.norm2(x + layer.second(np.maximum(layer.first(x), 0)))
        for row in rows:
            row.length += 1
            row.position += 1
        return mx.array(self.predict(x))


class HostAttention:
    """Scaled dot-product attention of each row's newest token over its keys and values."""

    def __init__(self, heads: int):
        self.heads = heads

    def __call__(self, qkv: np.ndarray, rows: Sequence[HostRow], layer: int) -> np.ndarray:
        """Queries, keys and values (B, 3 · hidden) of the newest tokens → (B, hidden)."""
        split = qkv.reshape(len(rows), 3, self.heads, -1)
        scale = np.float32(1 / math.sqrt(split.shape[-1]))
        attended = np.empty((len(rows), self.heads, split.shape[-1]), np.float32)
        for row, (query, *new), out in zip(rows, split, attended, strict=True):
            row.cache[layer, :, :, row.length] = new
            keys, values = row.cache[layer, :, :, : row.length + 1]
            weights = np.matmul(keys, (query * scale)[:, :, None])[:, :, 0]
            weights -= weights.max(axis=1, keepdims=True)
            np.exp(weights, out=weights)
            weights /= weights.sum(axis=1, keepdims=True)
            np.matmul(weights[:, None], values, out=out[:, None])
        return attended.reshape(len(rows), -1)


class HostProduct:
    """x Wᵀ + b: (B, in) → (B, out)."""

    def __init__(self, linear: Linear):
        assert isinstance(linear.weight, mx.array)
        self.weight = host_view(linear.weight)
        self.bias = None if linear.bias is None else host_view(linear.bias)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), len(self.weight)), np.float32)
        if len(x) <= FEW:
            for row, out in zip(x, y, strict=True):
                np.dot(self.weight, row, out=out)
        else:
            y[:] = (self.weight @ x.T).T
        if self.bias is not None:
            y += self.bias
        return y


class HostNorm:
    """Layer normalisation of rows (B, width), in place; the means are products, which numpy starts fastest."""

    def __init__(self, norm: LayerNorm):
        self.gain, self.shift, self.eps = host_view(norm.weight), host_view(norm.bias), np.float32(norm.eps)
        self.mean = np.full(len(self.gain), 1 / len(self.gain), np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x -= (x @ self.mean)[:, None]
        x /= np.sqrt((x * x) @ self.mean + self.eps)[:, None]
        x *= self.gain
        x += self.shift
        return x


@dataclass(frozen=True)
class HostLayer:
    """See `t2s.DecoderLayer`."""

    qkv: HostProduct
    out: HostProduct
    first: HostProduct
    second: HostProduct
    norm1: HostNorm
    norm2: HostNorm

    @classmethod
    def of(cls, layer: DecoderLayer) -> HostLayer:
        return cls(
            qkv=HostProduct(layer.qkv),
            out=HostProduct(layer.out),
            first=HostProduct(layer.linear1),
            second=HostProduct(layer.linear2),
            norm1=HostNorm(layer.norm1),
            norm2=HostNorm(layer.norm2),
        )
