"""Strict access to the tensors of one model: what is missing, left over or misshapen is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import WeightsError
from ..quantization import SCALES, Quantization
from ..runtime import backend


class Weights:
    """Tensors by name, in PyTorch's layouts, handed out in the layouts that MLX wants.

    A model takes each tensor once, through `scope`s that carry its prefix, and calls `finish` at its end,
    which evaluates all that was made and refuses tensors that nobody took.

    Args:
        tensors: name → array, as read from a safetensors file.
        source: the file's name, for error messages.
        dtype: the type to compute in; `None` keeps the stored one, except on a CPU, where only float32
            reaches BLAS.
        quantization: how those matrices are packed that have scales beside them.

    Raises:
        WeightsError: there are scales and no `quantization`, or the reverse.
    """

    def __init__(
        self,
        tensors: dict[str, mx.array],
        source: str,
        dtype: mx.Dtype | None = None,
        quantization: Quantization | None = None,
    ):
        if any(name.endswith(SCALES) for name in tensors) != (quantization is not None):
            state = "not quantized" if quantization else "quantized"
            raise WeightsError(f"{source} is {state}, its configuration says otherwise: convert the weights again")
        self._tensors = tensors
        self.quantization = quantization
        self._left = set(tensors)
        self._made: list[mx.array] = []
        self.source = source
        self.dtype = mx.float32 if backend() == "cpu" else dtype

    @classmethod
    def load(cls, path: str | Path, dtype: mx.Dtype | None = None, quantization: Quantization | None = None) -> Weights:
        """Read a safetensors file.

        Raises:
            WeightsError: the file is missing, is no safetensors file, or is not quantized as stated.
        """
        path = Path(path)
        if not path.is_file():
            raise WeightsError(f"no weights at {path}: convert the official files first (gpt-sovits-mlx convert)")
        try:
            tensors = mx.load(str(path), format="safetensors")
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"{path} is not a safetensors file: {error}") from None
        assert isinstance(tensors, dict)
        return cls(tensors, str(path), dtype, quantization)

    def scope(self, prefix: str = "") -> Scope:
        return Scope(self, prefix)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._tensors:
            raise WeightsError(f"{self.source}: tensor {name} is missing")
        return tuple(self._tensors[name].shape)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, *shape: int | None, dtype: mx.Dtype | None = None) -> mx.array:
        """One tensor of the given shape (`None`: any size) in the type to compute in, or in uint32 where packed."""
        have = self.shape(name)
        if shape and (len(shape) != len(have) or any(w not in (None, h) for w, h in zip(shape, have, strict=True))):
            want = "×".join("any" if n is None else str(n) for n in shape)
            raise WeightsError(f"{self.source}: tensor {name} has shape {'×'.join(map(str, have))}, expected {want}")
        self._left.discard(name)
        dtype = dtype or self.dtype
        tensor = self._tensors[name]
        packed = dtype is not None and dtype == mx.uint32
        if (tensor.dtype == mx.uint32) != packed:
            state = "not packed" if packed else "packed"
            raise WeightsError(f"{self.source}: tensor {name} is {state}: it was not quantized by this package")
        return tensor.astype(dtype) if dtype is not None else tensor

    def keep(self, array: mx.array) -> mx.array:
        """Register an array made from tensors, contiguous, to be evaluated by `finish`."""
        array = mx.contiguous(array)
        self._made.append(array)
        return array

    def finish(self) -> None:
        """Evaluate what was made (no lazy array may cross threads) and release the rest.

        Raises:
            WeightsError: tensors are left that the model does not know.
        """
        if self._left:
            raise WeightsError(f"{self.source}: unknown tensors {_some(self._left)}: not a file of this model")
        mx.eval(self._made)
        self._tensors, self._made = {}, []


class Scope:
    """A view of `Weights` below a prefix."""

    def __init__(self, weights: Weights, prefix: str):
        self.weights = weights
        self.prefix = prefix

    def __truediv__(self, name: str | int) -> Scope:
        """The scope one name, or a dotted path of names, deeper."""
        return Scope(self.weights, f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.weights

    def shape(self, name: str) -> tuple[int, ...]:
        return self.weights.shape(self.prefix + name)

    def raw(self, name: str, *shape: int | None, dtype: mx.Dtype | None = None) -> mx.array:
        """The tensor before any change of layout; what is made of it must go through `keep`."""
        return self.weights.take(self.prefix + name, *shape, dtype=dtype)

    def keep(self, array: mx.array) -> mx.array:
        return self.weights.keep(array)

    def tensor(self, name: str, *shape: int | None, dtype: mx.Dtype | None = None) -> mx.array:
        return self.keep(self.raw(name, *shape, dtype=dtype))

    def count(self, pattern: str) -> int:
        """How many of `pattern.format(0)`, `pattern.format(1)`, … there are."""
        n = 0
        while pattern.format(n) in self:
            n += 1
        return n


def host_view(array: mx.array) -> np.ndarray:
    """For numpy, in float32: an array of that type in the memory that it has, which stays as long as the view."""
    return np.array(array.astype(mx.float32), copy=False)


def _some(names: set[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")


def read_config(path: Path) -> dict[str, Any]:
    """The configuration beside a weights file: `<stem>_config.json`.

    Raises:
        WeightsError: it is missing or damaged.
    """
    file = path.with_name(f"{path.stem}_config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise WeightsError(f"no {file.name} beside {path}: convert the weights again") from None
    except ValueError as error:
        raise WeightsError(f"{file} is damaged ({error}): convert the weights again") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{file} is damaged: convert the weights again")
    return config


def open_model(path: Path, dtype: mx.Dtype | None = None) -> tuple[dict[str, Any], Weights]:
    """Configuration and weights of a model, to be computed in `dtype`, or else in what its configuration names.

    Raises:
        WeightsError: one of the two files is missing or damaged.
    """
    config = read_config(path)
    stored = {"float32": mx.float32, "float16": mx.float16}.get(config.get("dtype", ""))
    return config, Weights.load(path, dtype or stored, Quantization.of(config, path))
