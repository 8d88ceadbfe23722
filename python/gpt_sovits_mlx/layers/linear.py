"""Linear layers, whole or quantized, and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from ..quantization import SCALES, Quantization
from ..runtime import backend
from .weights import Scope


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix (out, in) as `mx.quantize` packs it: numbers, scales and biases of its groups."""

    packed: mx.array
    scales: mx.array
    biases: mx.array
    quantization: Quantization

    @classmethod
    def of(cls, scope: Scope, out: int | None = None, columns: int | None = None) -> QuantizedMatrix | None:
        """The matrix `weight` of a scope; `None` where the file holds it whole. It must go through `keep`."""
        quantization = scope.weights.quantization
        if quantization is None or SCALES not in scope:
            return None
        scales = scope.raw(SCALES, out, None if columns is None else -(-columns // quantization.group_size))
        out, groups = scales.shape
        words = groups * quantization.group_size * quantization.bits // 32
        packed = scope.raw("weight", out, words, dtype=mx.uint32)
        return cls(packed, scales, scope.raw("biases", out, groups), quantization)

    @property
    def shape(self) -> tuple[int, int]:
        out, groups = self.scales.shape
        return out, groups * self.quantization.group_size

    def whole(self) -> mx.array:
        """The matrix of what the numbers stand for, in the type of its scales."""
        q = self.quantization
        return mx.dequantize(self.packed, self.scales, self.biases, group_size=q.group_size, bits=q.bits)

    def product(self, x: mx.array) -> mx.array:
        """x Wᵀ: (…, in) → (…, out).

        On CUDA the matrix is unpacked first: for some sizes MLX would compile a product of its own there for minutes,
        with headers that its wheel lacks.
        """
        if backend() == "cuda":
            return x @ self.whole().T
        q = self.quantization
        return mx.quantized_matmul(x, self.packed, self.scales, self.biases, True, q.group_size, q.bits)


class Linear:
    """y = x Wᵀ + b over the last axis. Also a 1×1 convolution, whose weight is (out, in, 1).

    The weight keeps the file's layout, (out, in). One that the file holds quantized stays packed, except on a CPU,
    where MLX's quantized products run at about 2 GFLOP/s, BLAS's at 70 and more: there it is unpacked once, when it is
    loaded.

    Layers of several scopes that read the same x become one, whose outputs lie side by side; `shape` is that of each.
    """

    def __init__(
        self,
        *scopes: Scope,
        bias: bool = True,
        dtype: mx.Dtype | None = None,
        shape: tuple[int | None, int | None] = (None, None),
    ):
        out, columns = shape
        weights, biases = [], []
        for scope in scopes:
            weights.append(QuantizedMatrix.of(scope, out, columns) or _plain(scope, dtype, (out, columns)))
            rows, columns = weights[-1].shape
            if bias:
                biases.append(scope.raw("bias", rows))
        keep = scopes[0].keep
        self.weight = _kept(_joined(weights), keep)
        self.out_features, self.in_features = self.weight.shape
        self.bias = keep(mx.concatenate(biases)) if bias else None

    @property
    def dtype(self) -> mx.Dtype:
        """The type that it computes in."""
        return self.weight.scales.dtype if isinstance(self.weight, QuantizedMatrix) else self.weight.dtype

    def __call__(self, x: mx.array) -> mx.array:
        if isinstance(self.weight, QuantizedMatrix):
            y = self.weight.product(x)
            return y if self.bias is None else y + self.bias
        return x @ self.weight.T if self.bias is None else mx.addmm(self.bias, x, self.weight.T)


def _joined(weights: Sequence[QuantizedMatrix | mx.array]) -> QuantizedMatrix | mx.array:
    """One matrix of the rows of several; whole if one of them is."""
    packed = [weight for weight in weights if isinstance(weight, QuantizedMatrix)]
    if len(packed) < len(weights):
        return mx.concatenate([w.whole() if isinstance(w, QuantizedMatrix) else w for w in weights])
    return QuantizedMatrix(
        packed=mx.concatenate([weight.packed for weight in packed]),
        scales=mx.concatenate([weight.scales for weight in packed]),
        biases=mx.concatenate([weight.biases for weight in packed]),
        quantization=packed[0].quantization,
    )


def _kept(weight: QuantizedMatrix | mx.array, keep: Callable[[mx.array], mx.array]) -> QuantizedMatrix | mx.array:
    """The matrix as it is multiplied by: a CPU's is whole."""
    if isinstance(weight, QuantizedMatrix):
        if backend() != "cpu":
            parts = {name: keep(getattr(weight, name)) for name in ("packed", "scales", "biases")}
            return replace(weight, **parts)
        weight = weight.whole()
    return keep(weight)


def _plain(scope: Scope, dtype: mx.Dtype | None, shape: tuple[int | None, int | None]) -> mx.array:
    """The matrix (out, in) of a file that is not quantized."""
    if len(scope.shape("weight")) == 3:
        return scope.raw("weight", *shape, 1, dtype=dtype)[..., 0]
    return scope.raw("weight", *shape, dtype=dtype)


class Embedding:
    """Rows of a table by id: (…) int → (…, width)."""

    def __init__(self, scope: Scope, name: str = "weight"):
        self.weight = scope.tensor(name, None, None)

    def __call__(self, ids: mx.array) -> mx.array:
        return self.weight[ids]
