"""What is common to reading every kind of file: which kind it is, and numbers out of its configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .tensors import Tensor, read_safetensors, state_dict
from .torchfile import read_torch

# A tensor that only this kind of file has.
KINDS = {
    "GPT": "ar_predict_layer.weight",
    "SoVITS": "ssl_proj.weight",
    "CNHubert": "feature_projection.projection.weight",
    "RoBERTa": "embeddings.word_embeddings.weight",
}
_FILES = ("model.safetensors", "pytorch_model.bin")


def check_kind(tensors: Mapping[str, Tensor], kind: str, source: Path) -> None:
    """Refuse a file that is of another kind than `kind`, saying what it is.

    Raises:
        WeightsError: the tensor that marks the kind is not in the file.
    """
    found = [k for k, mark in KINDS.items() if any(f".{name}".endswith(f".{mark}") for name in tensors)]
    if kind in found:
        return
    what = f"a {found[0]} file" if found else "of none of the models that GPT-SoVITS uses"
    raise WeightsError(f"{source} is not a {kind} file: it is {what}")


class Settings:
    """A nested configuration, read strictly.

    Args:
        values: the dictionary.
        source: where it was read, for error messages.
    """

    def __init__(self, values: Any, source: Path | str):
        self.source = source
        if not isinstance(values, dict):
            raise WeightsError(f"{source} holds no configuration: give the file that the trainer exported")
        self.values: dict[str, Any] = values

    def section(self, name: str) -> Settings:
        if not isinstance(self.values.get(name), dict):
            raise WeightsError(f"{self.source}: its configuration has no section {name!r}")
        return Settings(self.values[name], self.source)

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name, default)
        if type(value) is not int or value < 0:
            raise self._unusable(name, value, "a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.values.get(name, default)
        if type(value) not in (int, float):
            raise self._unusable(name, value, "a number")
        return value

    def integers(self, name: str) -> list[int]:
        value = self.values.get(name)
        if not isinstance(value, list | tuple) or not value or any(type(n) is not int or n < 1 for n in value):
            raise self._unusable(name, value, "a list of whole numbers")
        return list(value)

    def lists(self, name: str) -> list[list[int]]:
        value = self.values.get(name)
        if not isinstance(value, list | tuple):
            raise self._unusable(name, value, "a list of lists")
        return [Settings({name: item}, self.source).integers(name) for item in value]

    def only(self, name: str, allowed: Any, default: Any) -> Any:
        """The setting, which must be `allowed`: the models support no other."""
        value = self.values.get(name, default)
        if value != allowed:
            raise self._unusable(name, value, repr(allowed))
        return value

    def _unusable(self, name: str, value: Any, wanted: str) -> WeightsError:
        have = "missing" if name not in self.values else f"{str(value)[:40]!r}"
        return WeightsError(f"{self.source}: setting {name!r} is {have}, expected {wanted}")


def read_hugging_face(source: Path) -> tuple[Path, dict[str, Tensor], Settings]:
    """The weights file, tensors and configuration of a Hugging Face folder, or of its weights file.

    Raises:
        WeightsError: a file is missing or unreadable.
    """
    weights = source
    if source.is_dir():
        found = [source / name for name in _FILES if (source / name).is_file()]
        if not found:
            raise WeightsError(f"{source} holds neither {' nor '.join(_FILES)}: give the folder of the model")
        weights = found[0]
    elif not source.is_file():
        raise WeightsError(f"there is no file or folder {source}")
    config = weights.with_name("config.json")
    settings = Settings(read_json(config), config)
    if weights.suffix == ".safetensors":
        return weights, read_safetensors(weights), settings
    return weights, state_dict(read_torch(weights).root, weights), settings


def read_converted(source: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a model that was converted before, and the configuration beside it.

    Raises:
        WeightsError: a file is missing or unreadable, or the model is quantized.
    """
    path = source.with_name(f"{source.stem}_config.json")
    config = read_json(path)
    if not isinstance(config, dict):
        raise WeightsError(f"{path} is damaged: convert the weights again")
    if config.get("quantization") is not None:
        raise WeightsError(f"{source} is quantized, which cannot be undone: give the file that it was made from")
    return read_safetensors(source), config


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        WeightsError: it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}; it belongs beside the weights") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None


def without_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under their names without `prefix`, where they carry it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many of `pattern.format(0)`, `pattern.format(1)`, … there are."""
    n = 0
    while pattern.format(n) in tensors:
        n += 1
    return n
