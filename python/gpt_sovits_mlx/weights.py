"""Weights files: reading them into models strictly, making models ready to speak, and saving them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from .errors import WeightsError
from .files import written_whole
from .layers.derived import derive_all
from .layers.linear import for_backend
from .models.model import Model, Shape, parameters_of
from .quantization import GROUP_SIZES, SCALES, Quantization, either
from .runtime import backend

M = TypeVar("M", bound=Model)
STORED_DTYPES = {"float32": mx.float32, "float16": mx.float16}


def load_model(kind: type[M], path: str | Path, dtype: mx.Dtype | None = None) -> M:
    """A model of a converted file, ready to speak (see `prepare_to_speak`).

    Args:
        kind: which model.
        path: the safetensors file, its configuration `<stem>_config.json` beside it.
        dtype: the type to compute in; by default what the configuration states. A CPU computes in float32.

    Raises:
        WeightsError: a file is missing or damaged, or is not of this model.
    """
    path = Path(path)
    stored = STORED_DTYPES.get(str(read_config(path).get("dtype")))
    model = load_stored(kind, path)
    prepare_to_speak(model, dtype or stored)
    return model


def load_stored(kind: type[M], path: str | Path) -> M:
    """A model with the very numbers of a converted file, to be trained or saved again.

    Raises:
        WeightsError: see `load_model`.
    """
    path = Path(path)
    config, tensors = read_config(path), read_tensors(path)
    return model_of(kind, config, tensors, str(path))


def model_of(kind: type[M], config: Mapping[str, Any], tensors: Mapping[str, mx.array], source: str) -> M:
    """A model of a configuration and of the tensors of a file.

    Args:
        kind: which model.
        config: the content of the configuration file.
        tensors: name → array, under the names and in the layouts of a file.
        source: the file's name, for messages.

    Raises:
        WeightsError: a tensor is missing, unknown or misshapen, or of another type; the message names it.
    """
    quantization = Quantization.of(config, source)
    if any(name.endswith(SCALES) for name in tensors) != (quantization is not None):
        state = "not quantized" if quantization else "quantized"
        raise WeightsError(f"{source} is {state}, its configuration says otherwise: convert the weights again")
    try:
        model = kind.of_config(config, whole_shapes(tensors, quantization))
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    if quantization is not None:
        scaled = {kind.parameter_name(name) for name in tensors if name.endswith(SCALES)}
        nn.quantize(
            model,
            quantization.group_size,
            quantization.bits,
            class_predicate=lambda path, layer: isinstance(layer, nn.Linear) and f"{path}.{SCALES}" in scaled,
        )
    check_tensors(model, tensors, source)
    weights: Any = tree_unflatten(list(model.sanitize(tensors).items()))
    model.update(weights)
    return model


def quantize(model: Model, quantization: Quantization) -> None:
    """Quantize the matrices of a model's linear layers (`mx.quantize`, affine), as files hold them.

    Embeddings are looked up, a row a token, so that fewer bits would save no time: they stay whole, as do
    convolutions, biases, gains, and the layers in `Model.NEVER_QUANTIZED`. Scales and biases of the groups have the
    matrix's type.

    Raises:
        WeightsError: groups do not divide a row; the message names the tensor.
    """
    size, chosen = quantization.group_size, set[str]()
    for path, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or path in model.NEVER_QUANTIZED:
            continue
        chosen.add(path)
        columns = layer.weight.shape[1]
        if columns % size:
            smaller = [n for n in GROUP_SIZES if columns % n == 0]
            mend = f"choose groups of {either(smaller)}" if smaller else "store the model unquantized"
            name = model.file_name(f"{path}.weight")
            raise WeightsError(f"groups of {size} do not divide the rows of {name}, {columns} wide: {mend}")
    nn.quantize(model, size, quantization.bits, class_predicate=lambda path, _: path in chosen)


def whole_shapes(tensors: Mapping[str, mx.array], quantization: Quantization | None) -> dict[str, Shape]:
    """Name → shape of a file's tensors, those of quantized matrices as if they were not."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if quantization is not None:
        for name in [name for name in shapes if name.endswith(SCALES) and len(shapes[name]) == 2]:
            rows, groups = shapes[name]
            shapes[name.removesuffix(SCALES) + "weight"] = rows, groups * quantization.group_size
    return shapes


def check_tensors(model: Model, tensors: Mapping[str, mx.array], source: str) -> None:
    """Compare a file's tensors with those that a model saves.

    Raises:
        WeightsError: one is missing, unknown or misshapen, or of another type.
    """
    expected = model.file_tensors()
    for name, wanted in expected.items():
        if name not in tensors:
            raise WeightsError(f"{source}: tensor {name} is missing")
        tensor = tensors[name]
        if (tensor.dtype == mx.uint32) != (wanted.dtype == mx.uint32):
            state = "packed" if tensor.dtype == mx.uint32 else "not packed"
            raise WeightsError(f"{source}: tensor {name} is {state}: it was not quantized by this package")
        if tensor.shape != wanted.shape:
            have, want = ("×".join(map(str, array.shape)) for array in (tensor, wanted))
            raise WeightsError(f"{source}: tensor {name} has shape {have}, expected {want}")
        if tensor.dtype != mx.uint32 and not mx.issubdtype(tensor.dtype, mx.floating):
            raise WeightsError(f"{source}: tensor {name} holds {tensor.dtype}, expected floating-point numbers")
    if left := sorted(tensors.keys() - expected.keys()):
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise WeightsError(f"{source}: unknown tensors {', '.join(left[:3])}{more}: not a file of this model")


def prepare_to_speak(model: Model, dtype: mx.Dtype | None = None, keep_weights: bool = False) -> None:
    """Cast a model to the type that it computes in, and make what layers derive of its parameters.

    Quantized matrices take the form that the back end multiplies by.

    Args:
        model: changed in place.
        dtype: `None` for the stored one. A CPU always computes in float32, the only type that reaches BLAS.
        keep_weights: keep parameters that layers hold in another layout as well: then the model can be trained and
            saved again, and takes more memory.
    """
    dtype = mx.float32 if backend() == "cpu" else dtype
    if dtype is not None:
        cast(model, dtype)
    for_backend(model)
    derive_all(model, keep_sources=keep_weights)


def cast(model: Model, dtype: mx.Dtype) -> None:
    """Cast the parameters of a model, but for packed ones and those that need full precision."""
    weights: Any = tree_unflatten(
        [
            (name, parameter.astype(mx.float32 if name in model.FULL_PRECISION else dtype))
            for name, parameter in parameters_of(model).items()
            if mx.issubdtype(parameter.dtype, mx.floating)
        ]
    )
    model.update(weights)


def save_model(model: Model, path: str | Path, config: Mapping[str, Any]) -> None:
    """Write a model's parameters as a file that `load_model` reads, and its configuration beside it.

    Args:
        model: with all its parameters (see `prepare_to_speak`).
        path: the safetensors file.
        config: the content of `<stem>_config.json`.
    """
    path = Path(path)
    with written_whole(path) as part:
        mx.save_safetensors(str(part), model.file_tensors())
    with written_whole(config_path(path)) as part:
        part.write_text(json.dumps(dict(config), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_tensors(path: Path) -> dict[str, mx.array]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: the file is missing or is no safetensors file.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: convert the official files first (gpt-sovits-mlx convert)")
    try:
        tensors = mx.load(str(path), format="safetensors")
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from None
    assert isinstance(tensors, dict)
    return tensors


def config_path(path: Path) -> Path:
    """Where the configuration of a weights file lies."""
    return path.with_name(f"{path.stem}_config.json")


def read_config(path: Path) -> dict[str, Any]:
    """The configuration beside a weights file: `<stem>_config.json`.

    Raises:
        WeightsError: it is missing or damaged.
    """
    file = config_path(path)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise WeightsError(f"no {file.name} beside {path}: convert the weights again") from None
    except ValueError as error:
        raise WeightsError(f"{file} is damaged ({error}): convert the weights again") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{file} is damaged: convert the weights again")
    return config
