"""From a checkpoint's tensors to a model's: names and shapes checked, weight norm folded, types cast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from ..models.model import Model, shapes_of

Shape = tuple[int, ...]
DTYPES = ("float16", "float32")
_FLOATS = ("float16", "bfloat16", "float32", "float64")
# Weight norm's two tensors (magnitude, direction) as `torch.nn.utils.weight_norm` names them, old and new.
_NORMED = (("_g", "_v"), (".original0", ".original1"))


class Tensor(Protocol):
    """A tensor that can be read: its shape and type are known before its values are."""

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> str: ...
    def read(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Expected:
    """The tensors that a model is made of.

    Args:
        shapes: name → shape, weight norm folded.
        unused: whether a tensor of the file is known and not needed.
        norm_axis: name → the axis of a weight that its weight norm keeps, where that is not axis 0.
    """

    shapes: Mapping[str, Shape]
    unused: Callable[[str], bool] = lambda name: False
    norm_axis: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _SafeTensor:
    path: Path
    name: str
    shape: Shape
    dtype: str

    def read(self) -> np.ndarray:
        with safe_open(self.path, framework="numpy") as file:
            return file.get_tensor(self.name)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: it is no safetensors file, is damaged, or holds types that NumPy lacks.
    """
    names = {"F16": "float16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32"}
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            kinds = {name: part.get_dtype() for name, part in slices.items()}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {_line(error)}") from None
    if unknown := sorted({*kinds.values()} - {*names}):
        raise WeightsError(f"{path} stores tensors as {', '.join(unknown)}: save it as float32 or float16")
    return {name: _SafeTensor(path, name, shapes[name], names[kinds[name]]) for name in kinds}


def state_dict(root: Any, source: Path) -> dict[str, Tensor]:
    """`root` as name → tensor.

    Raises:
        WeightsError: it is anything else.
    """
    if not isinstance(root, dict) or not root:
        raise WeightsError(f"{source} holds no tensors by name: it is not a file of weights")
    for name, tensor in root.items():
        if not isinstance(name, str) or not hasattr(tensor, "read"):
            raise WeightsError(f"{source}: {str(name)[:60]!r} is not a tensor: it is not a file of weights")
    return root


def axes(tensors: Mapping[str, Tensor], name: str, rank: int, source: Path) -> Shape:
    """The shape of one tensor, from which sizes of the model are taken.

    Raises:
        WeightsError: it is missing or has another number of axes.
    """
    if name not in tensors:
        raise WeightsError(f"{source}: tensor {name} is missing: the file is incomplete or of another model")
    shape = tuple(tensors[name].shape)
    if len(shape) != rank:
        raise WeightsError(f"{source}: tensor {name} has {len(shape)} axes, expected {rank}: the file is damaged")
    return shape


def gather(
    tensors: Mapping[str, Tensor],
    expected: Expected,
    source: Path,
    dtype: str | None,
    progress: str | None = None,
) -> dict[str, np.ndarray]:
    """Read a model's tensors, weight norm folded, every name and shape checked before anything is read.

    With `dtype=None` each tensor keeps its stored type (bfloat16 and float64 become float32), and folded
    weights are float32: rounding them again to float16 would not give the reference's weights.

    Args:
        tensors: what the file holds.
        expected: what the model is made of.
        source: the file, for error messages.
        dtype: "float16", "float32" or None.
        progress: label of a progress bar, or None for none.

    Returns:
        name → array in PyTorch's layout, C-contiguous.

    Raises:
        WeightsError: a tensor is missing, unknown, misshapen, no floating-point tensor, not finite, or too
            large for float16; the message names it.
    """
    parts = {name: _parts(tensors, name) for name in expected.shapes}
    if missing := [name for name, found in parts.items() if not found]:
        raise WeightsError(f"{source}: {_some(missing, 'tensor')} missing: the file is incomplete or of another model")
    taken = {name for names in parts.values() for name in names}
    if left := [name for name in tensors if name not in taken and not expected.unused(name)]:
        raise WeightsError(f"{source}: {_some(left, 'unknown tensor')}: the file is of another model")
    for name, names in parts.items():
        _check_shapes(tensors, names, expected.shapes[name], expected.norm_axis.get(name, 0), source)
    work: Iterable[tuple[str, list[str]]] = parts.items()
    if progress:
        work = track(work, description=progress, total=len(parts), console=Console(stderr=True))
    return {
        name: _value([tensors[n] for n in names], expected.norm_axis.get(name, 0), dtype, f"{source}: tensor {name}")
        for name, names in work
    }


def expected_tensors(
    kind: type[Model],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: Path,
    unused: Callable[[str], bool] = lambda name: False,
    norm_axis: Mapping[str, int] | None = None,
) -> Expected:
    """The tensors that a model of this configuration saves.

    Args:
        kind: which model.
        config: as in its configuration file.
        tensors: what the file holds, from which come sizes that `config` does not state.
        source: the file, for error messages.
        unused, norm_axis: see `Expected`.

    Raises:
        WeightsError: the configuration describes no model.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        shapes = shapes_of(kind, config, found)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        raise WeightsError(f"{source}: no model has the sizes that its configuration states: {_line(error)}") from None
    return Expected(shapes, unused, norm_axis or {})


def stored_dtype(tensors: Mapping[str, Tensor], names: Iterable[str], dtype: str | None) -> str:
    """What a configuration states as `dtype`: "float16" where nothing unfolded needs more, else "float32"."""
    kinds = {tensors[n].dtype for name in names for n in _parts(tensors, name)}
    return dtype or ("float16" if kinds <= {"float16"} else "float32")


def _parts(tensors: Mapping[str, Tensor], name: str) -> list[str]:
    """The file's tensors that make up tensor `name`: itself, or the two of its weight norm."""
    if name in tensors:
        return [name]
    stem = name.removesuffix(".weight")
    for prefix in (name, f"{stem}.parametrizations.weight"):
        for g, v in _NORMED:
            if name.endswith(".weight") and prefix + g in tensors and prefix + v in tensors:
                return [prefix + g, prefix + v]
    return []


def _check_shapes(tensors: Mapping[str, Tensor], names: list[str], shape: Shape, norm_axis: int, source: Path) -> None:
    magnitude = tuple(n if axis == norm_axis else 1 for axis, n in enumerate(shape))
    wanted = [shape] if len(names) == 1 else [magnitude, shape]
    for name, want in zip(names, wanted, strict=True):
        tensor = tensors[name]
        if tuple(tensor.shape) != want:
            have = "×".join(map(str, tensor.shape)) or "no axes"
            want_text = "×".join(map(str, want))
            raise WeightsError(
                f"{source}: tensor {name} has shape {have}, expected {want_text}:"
                " the file is damaged or of another model"
            )
        if tensor.dtype not in _FLOATS:
            raise WeightsError(f"{source}: tensor {name} is {tensor.dtype}, expected floating-point numbers")


def _value(parts: list[Tensor], norm_axis: int, dtype: str | None, what: str) -> np.ndarray:
    if len(parts) == 2:
        value = fold_weight_norm(parts[0].read(), parts[1].read(), norm_axis)
    else:
        value = parts[0].read()
        if value.dtype == np.float64:
            value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise WeightsError(f"{what} holds values that are not finite: its training went wrong or the file is damaged")
    if dtype == "float16" and value.dtype != np.float16:
        with np.errstate(over="ignore"):
            value = value.astype(np.float16)
        if not np.isfinite(value).all():
            raise WeightsError(f"{what} does not fit in float16: convert with dtype float32")
    elif dtype is not None:
        value = value.astype(dtype, copy=False)
    return np.require(value, requirements=["C", "A"])


def fold_weight_norm(g: np.ndarray, v: np.ndarray, axis: int = 0) -> np.ndarray:
    """The weight that weight norm stands for: g·v/‖v‖, the norm taken over all axes but `axis`.

    Salimans and Kingma, "Weight Normalization", 2016; as in `torch.nn.utils.weight_norm(dim=axis)`.

    Args:
        g: magnitudes, of size 1 along all axes but `axis`.
        v: directions, any shape.

    Returns:
        float32, of v's shape.
    """
    wide = v.astype(np.float64)
    others = tuple(a for a in range(v.ndim) if a != axis)
    norm = np.sqrt(np.square(wide).sum(axis=others, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (wide * (g.astype(np.float64) / norm)).astype(np.float32)


def _some(names: list[str], what: str) -> str:
    first = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    plural = "s" if len(names) > 1 else ""
    verb = "" if what.startswith("unknown") else " are" if plural else " is"
    return f"{what}{plural} {first}{verb}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
