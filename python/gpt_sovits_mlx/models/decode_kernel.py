"""The decode kernel for a GPT: its layers' weights end to end, of which the layers then hold views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import mlx.core as mx

from ..kernels.decode_layout import DecoderSizes, device
from ..kernels.decode_steps import DecodeKernel, Matrix
from ..layers.linear import Embedding, Linear, QuantizedMatrix

if TYPE_CHECKING:
    from .t2s import DecoderLayer

AMPERE = 8
"""Compute capability from which on tensor cores multiply as the kernel needs it."""


def decode_kernel(layers: Sequence[DecoderLayer], embedding: Embedding, predict: Linear) -> DecodeKernel | None:
    """The kernel for decoder layers on a CUDA device; `None` for sizes that it cannot take, or an old device."""
    first = layers[0]
    sizes = DecoderSizes(
        width=first.out.out_features,
        inner=first.linear1.out_features,
        heads=first.heads,
        layers=len(layers),
        vocabulary=predict.out_features,
    )
    if not sizes.supported or device().generation < AMPERE:
        return None
    matrices = {
        "qkv": _together([layer.qkv for layer in layers]),
        "out": _together([layer.out for layer in layers]),
        "first": _together([layer.linear1 for layer in layers]),
        "second": _together([layer.linear2 for layer in layers]),
    }
    vectors = {
        "b_qkv": [layer.qkv.bias for layer in layers],
        "b_out": [layer.out.bias for layer in layers],
        "b_first": [layer.linear1.bias for layer in layers],
        "b_second": [layer.linear2.bias for layer in layers],
        "norm1": [layer.norm1.weight for layer in layers],
        "shift1": [layer.norm1.bias for layer in layers],
        "norm2": [layer.norm2.weight for layer in layers],
        "shift2": [layer.norm2.bias for layer in layers],
    }
    stacked = {name: mx.stack(rows) for name, rows in vectors.items()}
    mx.eval(stacked)
    assert isinstance(predict.weight, mx.array)
    kernel = DecodeKernel(sizes, matrices, {**stacked, "embedding": embedding.weight}, predict.weight)
    return kernel if kernel.layouts else None


def _together(linears: Sequence[Linear]) -> Matrix:
    """Weights (L, out, in); each layer keeps a view of them, so that they are held once."""
    packed = [linear.weight for linear in linears if isinstance(linear.weight, QuantizedMatrix)]
    if packed:
        parts = {name: _joined([getattr(w, name) for w in packed]) for name in ("packed", "scales", "biases")}
        views = {name: _views(part) for name, part in parts.items()}
        for at, (linear, weight) in enumerate(zip(linears, packed, strict=True)):
            linear.weight = replace(weight, **{name: of_layers[at] for name, of_layers in views.items()})
        how = packed[0].quantization
        return Matrix(parts["packed"], parts["scales"], parts["biases"], how.bits, how.group_size)
    numbers = _joined([linear.weight for linear in linears if isinstance(linear.weight, mx.array)])
    for linear, weight in zip(linears, _views(numbers), strict=True):
        linear.weight = weight
    return Matrix(numbers)


def _joined(arrays: Sequence[mx.array]) -> mx.array:
    joined = mx.stack(list(arrays))
    mx.eval(joined)
    return joined


def _views(joined: mx.array) -> list[mx.array]:
    """(L, …) → its L parts, which share its memory; an index would copy them."""
    views = [part.squeeze(0) for part in mx.split(joined, len(joined))]
    mx.eval(views)
    return views
