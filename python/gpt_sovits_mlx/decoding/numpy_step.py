"""Decoding on a CPU, whose steps run in numpy over the memory of MLX's weights.

MLX's products are all of two matrices, for which BLAS packs the larger one first; reading it takes half of that time.
numpy hands a matrix and a row to BLAS's matrix-vector product, and its operations on a few numbers start in a tenth of
the time of MLX's. It equals `TextToSemantic.step`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..models.t2s import TABLE_POSITIONS, DecoderLayer, TextToSemantic
from ..runtime import numpy_view
from .cache import STEP
from .decoder import DecodeRequest, Event, SteppingDecoder
from .state import DecodeState

FEW_ROWS = 3
"""Up to which a product for each of them is faster than one for all."""


@dataclass
class NumpyRow:
    """What a sentence's decode has behind it.

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
            self.cache = np.pad(self.cache, [(0, 0), (0, 0), (0, 0), (0, STEP), (0, 0)])


def numpy_rows(state: DecodeState, texts: Sequence[int], prompts: Sequence[int]) -> list[NumpyRow]:
    """The rows of a batch that has been read, of so many phones and prompt tokens, without what padded them."""
    caches = [numpy_view(kept) for kept in state.arrays()]
    _, _, heads, _, width = caches[0].shape
    rows = []
    for at, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        length, start = text + prompt, max(texts)
        room = (length // STEP + 1) * STEP
        own = np.zeros((len(caches), 2, heads, room, width), np.float32)
        for layer, kept in zip(own, caches, strict=True):
            layer[:, :, :text] = kept[:, at, :, :text]
            layer[:, :, text:length] = kept[:, at, :, start : start + prompt]
        rows.append(NumpyRow(own, length, prompt))
    return rows


class NumpyDecoder(SteppingDecoder):
    """Rows have caches of their own, so that they come and go for nothing."""

    def __init__(self, model: TextToSemantic, step: NumpyStep):
        super().__init__(model)
        self.step, self.states = step, list[NumpyRow]()

    def _advance(self) -> list[list[Event]]:
        _, result = self._draw()
        mx.async_eval(result, self.seen)
        drawn = np.array(result)
        events = self._events(drawn.tolist())
        going = [at for at, row in enumerate(self.rows) if row.going]
        self._keep(going)
        if going:
            self.logits = self.step(drawn[going], self.states)
        return [events]

    def _take_in(self, state: DecodeState, requests: Sequence[DecodeRequest]) -> None:
        self.states += numpy_rows(state, [len(r.phones) for r in requests], [len(r.prompt) for r in requests])

    def _select(self, places: Sequence[int]) -> None:
        self.states = [self.states[at] for at in places]

    def _arrays(self) -> list[mx.array]:
        return []


class NumpyStep:
    """A step; it holds views of a model's weights."""

    def __init__(self, model: TextToSemantic):
        self.layers = [NumpyLayer.of(layer) for layer in model.h.layers]
        self.attention, self.position = NumpyAttention(model.config.head), model.ar_audio_position
        self.positions = numpy_view(self.position.rows(0, TABLE_POSITIONS))
        self.embedding = numpy_view(model.ar_audio_embedding.word_embeddings.weight)
        self.predict = NumpyProduct(model.ar_predict_layer)

    @classmethod
    def of(cls, model: TextToSemantic) -> NumpyStep | None:
        """The step of a model; `None` for weights that are not float32, are packed, or are those of adapters."""
        linears = [model.ar_predict_layer, *(linear for layer in model.h.layers for linear in layer.linears)]
        if any(type(linear) is not nn.Linear for linear in linears):
            return None
        weights = [model.ar_audio_embedding.word_embeddings.weight, *(linear.weight for linear in linears)]
        return cls(model) if all(weight.dtype == mx.float32 for weight in weights) else None

    def __call__(self, tokens: np.ndarray, rows: Sequence[NumpyRow]) -> mx.array:
        """The rows' newest tokens (B,) → logits (B, vocab) of the next ones, float32; the rows take them in."""
        x = self.embedding[tokens] + self._at([row.position for row in rows])
        for row in rows:
            row.make_room()
        for at, layer in enumerate(self.layers):
            x = layer.norm1(x + layer.out(self.attention(layer.qkv(x), rows, at)))
            x = layer.norm2(x + layer.second(np.maximum(layer.first(x), 0)))
        for row in rows:
            row.length += 1
            row.position += 1
        return mx.array(self.predict(x))

    def _at(self, positions: Sequence[int]) -> np.ndarray:
        """What is added at these positions, (B, width)."""
        if max(positions) < len(self.positions):
            return self.positions[positions]
        return np.array(self.position.at(positions))


class NumpyAttention:
    """Scaled dot-product attention of each row's newest token over its keys and values."""

    def __init__(self, heads: int):
        self.heads = heads

    def __call__(self, qkv: np.ndarray, rows: Sequence[NumpyRow], layer: int) -> np.ndarray:
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


class NumpyProduct:
    """x Wᵀ + b: (B, in) → (B, out)."""

    def __init__(self, linear: nn.Linear):
        self.weight = numpy_view(linear.weight)
        self.bias = numpy_view(linear.bias) if "bias" in linear else None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), len(self.weight)), np.float32)
        if len(x) <= FEW_ROWS:
            for row, out in zip(x, y, strict=True):
                np.dot(self.weight, row, out=out)
        else:
            y[:] = (self.weight @ x.T).T
        if self.bias is not None:
            y += self.bias
        return y


class NumpyNorm:
    """Layer normalisation of rows (B, width), in place; the means are products, which numpy starts fastest."""

    def __init__(self, norm: nn.LayerNorm):
        self.gain, self.shift, self.eps = numpy_view(norm.weight), numpy_view(norm.bias), np.float32(norm.eps)
        self.mean = np.full(len(self.gain), 1 / len(self.gain), np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x -= (x @ self.mean)[:, None]
        x /= np.sqrt((x * x) @ self.mean + self.eps)[:, None]
        x *= self.gain
        x += self.shift
        return x


@dataclass(frozen=True)
class NumpyLayer:
    """See `DecoderLayer`."""

    qkv: NumpyProduct
    out: NumpyProduct
    first: NumpyProduct
    second: NumpyProduct
    norm1: NumpyNorm
    norm2: NumpyNorm

    @classmethod
    def of(cls, layer: DecoderLayer) -> NumpyLayer:
        return cls(
            qkv=NumpyProduct(layer.self_attn.in_proj),
            out=NumpyProduct(layer.self_attn.out_proj),
            first=NumpyProduct(layer.linear1),
            second=NumpyProduct(layer.linear2),
            norm1=NumpyNorm(layer.norm1),
            norm2=NumpyNorm(layer.norm2),
        )
