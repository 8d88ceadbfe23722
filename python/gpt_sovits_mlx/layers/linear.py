"""Linear layers and embeddings."""

from __future__ import annotations

import mlx.core as mx

from .weights import Scope


class Linear:
    """y = x Wᵀ + b over the last axis. Also a 1×1 convolution, whose weight is (out, in, 1).

    The weight is kept transposed and contiguous: a CPU multiplies a single row by it almost three times as
    fast as by the layout in the file, which is most of what decoding costs there.
    """

    def __init__(self, scope: Scope, bias: bool = True, name: str = "weight"):
        shape = scope.shape(name)
        weight = scope.raw(name)
        if len(shape) == 3:
            weight = scope.raw(name, None, None, 1)[..., 0]
        self.weight = scope.keep(weight.T)
        self.bias = scope.tensor("bias", shape[0]) if bias else None

    def __call__(self, x: mx.array) -> mx.array:
        return x @ self.weight if self.bias is None else mx.addmm(self.bias, x, self.weight)

    @property
    def out_features(self) -> int:
        return self.weight.shape[1]


class Embedding:
    """Rows of a table by id: (…) int → (…, width)."""

    def __init__(self, scope: Scope, name: str = "weight"):
        self.weight = scope.tensor(name, None, None)

    def __call__(self, ids: mx.array) -> mx.array:
        return self.weight[ids]
