"""Linear layers: kernels of width 1, layers that are multiplied by together, quantized ones by back end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map_with_path

from ..runtime import backend

LinearLayer = nn.Linear | nn.QuantizedLinear
Q = TypeVar("Q", bound=nn.QuantizedLinear)


class PointwiseConv1d(nn.Linear):
    """A convolution of kernel 1 over time: (B, T, in) → (B, T, out).

    The weight is (out, in), and (out, in, 1) in files.
    """

    @staticmethod
    def weight_of_file(weight: mx.array) -> mx.array:
        return weight.squeeze(-1) if weight.ndim == 3 else weight

    @staticmethod
    def weight_to_file(weight: mx.array) -> mx.array:
        return weight[..., None]


class UnpackedLinear(nn.QuantizedLinear):
    """A quantized layer that unpacks its matrix, (out, in), whenever it multiplies by it.

    For CUDA: for some sizes MLX 0.32 would compile a product of its own there for minutes, with headers that its wheel
    lacks.
    """

    @classmethod
    def of(cls, layer: nn.QuantizedLinear) -> UnpackedLinear:
        return _quantized(cls, layer, dict(layer))

    def __call__(self, x: mx.array) -> mx.array:
        """(…, in) → (…, out)."""
        y = x @ whole_weight(self).T
        return y + self.bias if "bias" in self else y


def width_of(layer: LinearLayer) -> tuple[int, int]:
    """Outputs and inputs of a linear layer."""
    rows, columns = layer.weight.shape
    return rows, columns * 32 // layer.bits if isinstance(layer, nn.QuantizedLinear) else columns


def dtype_of(layer: LinearLayer) -> mx.Dtype:
    """The type that a layer computes in."""
    return layer.scales.dtype if isinstance(layer, nn.QuantizedLinear) else layer.weight.dtype


def whole_weight(layer: LinearLayer) -> mx.array:
    """The matrix (out, in) of a layer, of packed numbers what they stand for in the type of their scales."""
    if not isinstance(layer, nn.QuantizedLinear):
        return layer.weight
    return mx.dequantize(
        layer.weight, layer.scales, layer.biases, group_size=layer.group_size, bits=layer.bits, mode=layer.mode
    )


def product(layer: LinearLayer, x: mx.array, addend: mx.array) -> mx.array:
    """addend + x Wᵀ without the layer's own bias: (…, in) → (…, out)."""
    if not isinstance(layer, nn.QuantizedLinear) or isinstance(layer, UnpackedLinear):
        return mx.addmm(addend, x, whole_weight(layer).T)
    packed, scales, biases = layer.weight, layer.scales, layer.biases
    return addend + mx.quantized_matmul(x, packed, scales, biases, True, layer.group_size, layer.bits, mode=layer.mode)


def whole(layer: nn.QuantizedLinear) -> nn.Linear:
    """The layer with its matrix unpacked."""
    return _linear(whole_weight(layer), layer.get("bias"))


def for_backend(model: nn.Module) -> None:
    """Put the form that the back end multiplies by fastest in the place of each quantized layer of a model.

    Metal takes MLX's own. A CPU gets whole matrices, since MLX's quantized products run at about 2 GFLOP/s there and
    BLAS's at 70 and more; CUDA gets `UnpackedLinear`.
    """
    forms = {"cpu": whole, "cuda": UnpackedLinear.of}
    if form := forms.get(backend()):
        replaced = tree_map_with_path(
            lambda _, layer: form(layer) if isinstance(layer, nn.QuantizedLinear) else layer,
            model.leaf_modules(),
            is_leaf=nn.Module.is_module,
        )
        model.update_modules(replaced)


def joined(layers: Sequence[nn.Module]) -> LinearLayer | None:
    """One layer whose outputs are those of several that read the same x, side by side.

    `None` where they are of different kinds, or of kinds that are not known here (an adapter).
    """
    first, kinds = layers[0], {type(layer) for layer in layers}
    arrays = {
        name: mx.concatenate([layer[name] for layer in layers])
        for name in ("weight", "scales", "biases", "bias")
        if all(name in layer for layer in layers)
    }
    if kinds == {nn.Linear}:
        return _linear(**arrays)
    if len(kinds) == 1 and isinstance(first, nn.QuantizedLinear):
        return _quantized(type(first), first, arrays)
    return None


def _quantized(kind: type[Q], like: nn.QuantizedLinear, arrays: dict[str, Any]) -> Q:
    """A layer of these arrays, packed as `like` is."""
    rows, words = arrays["weight"].shape
    made = kind(words * 32 // like.bits, rows, "bias" in arrays, like.group_size, like.bits, like.mode)
    made.update(arrays)
    return made


def _linear(weight: mx.array, bias: mx.array | None = None) -> nn.Linear:
    rows, columns = weight.shape
    made = nn.Linear(columns, rows, bias=False)
    made.weight = weight
    if bias is not None:
        made.bias = bias
    return made
