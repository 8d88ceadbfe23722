"""Writing a converted model: weights, configuration and what belongs beside them, all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ..errors import WeightsError
from ..files import file_sha256
from ..models.model import Model
from ..quantization import Quantization
from ..weights import model_of, quantize
from .tensors import DTYPES


@dataclass(frozen=True)
class Conversion:
    """What a conversion wrote.

    Attributes:
        weights: the safetensors file.
        config_path: the configuration beside it.
        config: its content.
        parameters: how many numbers the model has.
        sha256: of the weights file, as `voice.json` names encoders by.
        unused: tensors of the input that the model does not need.
    """

    weights: Path
    config_path: Path
    config: dict[str, Any]
    parameters: int
    sha256: str
    unused: tuple[str, ...]


def check_output(source: Path, output: Path, dtype: str | None) -> None:
    """Refuse an output that cannot be meant, before any work is done."""
    if output.suffix != ".safetensors":
        raise WeightsError(f"the output {output} must end in .safetensors")
    if output.exists() and source.exists() and output.samefile(source):
        raise WeightsError(f"the output {output} is the input: choose another name")
    if dtype not in (None, *DTYPES):
        raise WeightsError(f"dtype {dtype!r} is unknown: choose {' or '.join(DTYPES)}")


def write_model(
    kind: type[Model],
    output: Path,
    tensors: Mapping[str, np.ndarray],
    config: dict[str, Any],
    unused: tuple[str, ...] = (),
    beside: Mapping[str, str] | None = None,
    quantization: Quantization | None = None,
) -> Conversion:
    """Write a model's `output`, `<stem>_config.json` and the texts `beside` (suffix → text: `<stem>_<suffix>`).

    The matrices are quantized first where that is asked for; the configuration states it, or null.
    All are written in a temporary folder beside the output and renamed into place, so that nothing half
    written is ever found under the final names.

    Raises:
        WeightsError: something cannot be written, or not be quantized.
    """
    parameters = sum(array.size for array in tensors.values())
    stated = None
    if quantization is not None:
        tensors, stated = quantized(kind, config, tensors, quantization), asdict(quantization)
    config = {**config, "quantization": stated}
    config_text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    texts = {"config.json": config_text, **(beside or {})}
    config_path = output.with_name(f"{output.stem}_config.json")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.stem}-", dir=output.parent) as work:
            made = Path(work) / output.name
            save_file(dict(tensors), made)
            finished = {made: output}
            for suffix, text in texts.items():
                path = Path(work) / f"{output.stem}_{suffix}"
                path.write_text(text, encoding="utf-8")
                finished[path] = output.with_name(path.name)
            shutil.copymode(Path(work) / f"{output.stem}_config.json", made)  # made readable by its owner only
            digest = file_sha256(made)
            _place(finished)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot write {output}: {getattr(error, 'strerror', None) or error}") from None
    return Conversion(output, config_path, config, parameters, digest, unused)


def quantized(
    kind: type[Model], config: Mapping[str, Any], tensors: Mapping[str, np.ndarray], quantization: Quantization
) -> dict[str, np.ndarray]:
    """A file's tensors with the matrices of the model's linear layers quantized.

    Raises:
        WeightsError: groups do not divide a row; the message names the tensor.
    """
    arrays = {name: mx.array(values) for name, values in tensors.items()}
    model = model_of(kind, config, arrays, kind.NAME)
    quantize(model, quantization)
    return {name: np.array(tensor) for name, tensor in model.file_tensors().items()}


def _place(finished: Mapping[Path, Path]) -> None:
    """Rename every made file to its final name; if one cannot be, none stays."""
    placed: list[Path] = []
    try:
        for made, final in finished.items():
            os.replace(made, final)
            placed.append(final)
    except OSError:
        for final in placed:
            final.unlink(missing_ok=True)
        raise
