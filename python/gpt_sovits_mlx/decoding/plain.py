"""Decoding in MLX's operations, which run anywhere: Metal's form, and what the other forms equal.

A step's cost is its launches, so it takes nine a layer instead of twelve: the norm in front of a product carries that
product's bias in its own, β + b, and the next product's bias loses W b in return. So a residual is the addend of a
product that is made anyway (`addmm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..layers.attention import dot_product, merge_heads
from ..layers.linear import LinearLayer, product, whole_weight
from ..models.t2s import TABLE_POSITIONS, DecoderLayer, TextToSemantic
from .cache import KVCache
from .decoder import DecodeRequest, Event, SteppingDecoder
from .state import DecodeState


class PlainDecoder(SteppingDecoder):
    """All rows share a cache a layer, in which they end at the same slot.

    Args:
        step: the folded step; `None` takes the model's own.
    """

    state: DecodeState

    def __init__(self, model: TextToSemantic, step: FoldedStep | None = None):
        super().__init__(model)
        self.step = step or model.step

    def _advance(self) -> list[list[Event]]:
        if 2 * len(self) <= len(self.rows):
            self._keep([at for at, row in enumerate(self.rows) if row.going])
        tokens, result = self._draw()
        # the next step is under way while this one is read back
        positions = self.state.positions
        self.logits = self.step(tokens, positions, self.state.advance(), self.state.caches)
        mx.async_eval(result, self.seen, self.logits)
        # one small read-back for the whole batch
        return [self._events(np.array(result).tolist())]

    def _take_in(self, state: DecodeState, requests: Sequence[DecodeRequest]) -> None:
        if self.rows:
            self.state.join(state)
        else:
            self.state = state

    def _select(self, places: Sequence[int]) -> None:
        if places:
            self.state.select(places)
        else:
            del self.state

    def _arrays(self) -> list[mx.array]:
        return self.state.arrays()


@dataclass(frozen=True)
class FoldedLayer:
    """A decoder layer that takes x plus its own projection's bias, and gives its output plus the next layer's.

    Attributes:
        layer: whose matrices and gains these are.
        in_bias, inner_bias: of the products with `in_proj` and `linear1`.
        shift1, shift2: of the norms.
    """

    layer: DecoderLayer
    in_bias: mx.array
    inner_bias: mx.array
    shift1: mx.array
    shift2: mx.array

    @classmethod
    def of(cls, layer: DecoderLayer, following: DecoderLayer | None) -> FoldedLayer:
        attention = layer.self_attn
        carried, dtype = layer.linear2.bias.astype(mx.float32), layer.norm1.weight.dtype
        shift2 = layer.norm2.bias.astype(mx.float32)
        if following is not None:
            shift2 = shift2 + following.self_attn.out_proj.bias
        made = (
            _without(attention.in_proj, attention.out_proj.bias),
            _without(layer.linear1, carried),
            layer.norm1.bias + carried,
            shift2,
        )
        return cls(layer, *(array.astype(dtype) for array in made))

    def __call__(self, x: mx.array, mask: mx.array | None, cache: KVCache) -> mx.array:
        """(B, 1, width) → the same."""
        layer, attention = self.layer, self.layer.self_attn
        projected = product(attention.in_proj, x, self.in_bias)
        projected = projected.reshape(len(x), 1, 3, attention.heads, -1).transpose(2, 0, 3, 1, 4)
        keys, values = cache.append(projected[1:])
        queries = projected[:1].squeeze(0)  # a view: an index would copy
        attended = merge_heads(dot_product(queries, keys, values, attention.scale, mask))
        x = product(attention.out_proj, attended, x)
        x = mx.fast.layer_norm(x, layer.norm1.weight, self.shift1, layer.norm1.eps)
        inner = mx.maximum(product(layer.linear1, x, self.inner_bias), 0)
        x = product(layer.linear2, inner, x)
        return mx.fast.layer_norm(x, layer.norm2.weight, self.shift2, layer.norm2.eps)


class FoldedStep:
    """`TextToSemantic.step` in fewer launches; the biases are folded in float32, once."""

    def __init__(self, model: TextToSemantic):
        layers = model.h.layers
        # parts of the model, which keeps this: no circle that would wait for a collection of garbage
        self.embedding, self.predict, self.table = (
            model.ar_audio_embedding,
            model.ar_predict_layer,
            model.ar_audio_position,
        )
        self.dtype = model.ar_audio_embedding.word_embeddings.weight.dtype
        self.layers = [
            FoldedLayer.of(layer, following) for layer, following in zip(layers, [*layers[1:], None], strict=True)
        ]
        self.carried = layers[0].self_attn.out_proj.bias
        self.positions = (self.table.rows(0, TABLE_POSITIONS) + self.carried).astype(self.dtype)
        mx.eval(self.positions, [[each.in_bias, each.inner_bias, each.shift1, each.shift2] for each in self.layers])

    @classmethod
    def of(cls, model: TextToSemantic) -> FoldedStep | None:
        """The step of a model; `None` where a layer is an adapter's."""
        linears = [linear for layer in model.h.layers for linear in layer.linears]
        known = all(type(linear) is nn.Linear or isinstance(linear, nn.QuantizedLinear) for linear in linears)
        return cls(model) if known else None

    def __call__(
        self, tokens: mx.array, positions: Sequence[int], mask: mx.array | None, caches: Sequence[KVCache]
    ) -> mx.array:
        """See `TextToSemantic.step`."""
        x = self.embedding(tokens[:, None]) + self._at(positions)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, mask, cache)
        return self.predict(x[:, 0].astype(mx.float32))

    def _at(self, positions: Sequence[int]) -> mx.array:
        """What is added at these positions, (B or 1, 1, width)."""
        if max(positions) >= len(self.positions):
            return (self.table.at(positions) + self.carried).astype(self.dtype)[:, None]
        if len(set(positions)) == 1:
            return self.positions[positions[0] : positions[0] + 1][None]
        return self.positions[mx.array(list(positions))][:, None]


def _without(linear: LinearLayer, bias: mx.array) -> mx.array:
    """What remains of a layer's bias where its input already carries another one: b − W · bias, float32."""
    return linear.bias.astype(mx.float32) - whole_weight(linear).astype(mx.float32) @ bias.astype(mx.float32)
