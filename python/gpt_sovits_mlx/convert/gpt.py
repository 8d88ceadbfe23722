"""The text-to-semantic GPT: an official `.ckpt` → `gpt.safetensors` and `gpt_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..models.t2s import TextToSemantic
from ..quantization import Quantization
from .output import Conversion, check_output, write_model
from .source import Settings, check_kind, count, read_converted, without_prefix
from .tensors import Tensor, axes, expected_tensors, gather, state_dict, stored_dtype
from .torchfile import read_torch


def convert_gpt(
    input: Path | str,
    output: Path | str,
    dtype: str | None = None,
    progress: bool = False,
    quantization: Quantization | None = None,
) -> Conversion:
    """Convert an official GPT checkpoint (of v1, v2 and later: one architecture).

    Args:
        input: the `.ckpt` that the trainer exports, its Lightning training state, or a `gpt.safetensors` that was
            converted before, with its configuration beside it, to be stored in another way.
        output: `…/gpt.safetensors`; `gpt_config.json` is written beside it.
        dtype: "float16" or "float32" to store all tensors as; None keeps what the file stores.
        progress: show a progress bar.
        quantization: store the matrices in fewer bits; `dtype` is then that of all else, the groups' scales included.

    Raises:
        WeightsError: the file is no sound GPT checkpoint, or the output cannot be written; nothing is left.
    """
    source, output = Path(input), Path(output)
    check_output(source, output, dtype)
    converted = source.suffix == ".safetensors"
    tensors, settings = _converted(source) if converted else _official(read_torch(source).root, source)
    config = gpt_config(tensors, settings, source)
    expected = expected_tensors(TextToSemantic, config, tensors, source)
    arrays = gather(tensors, expected, source, dtype, "GPT" if progress else None)
    config = {**config, "dtype": stored_dtype(tensors, expected.shapes, dtype)}
    return write_model(TextToSemantic, output, arrays, config, quantization=quantization)


def gpt_config(tensors: Mapping[str, Tensor], settings: Settings, source: Path) -> dict[str, Any]:
    """The flat configuration of `gpt_config.json`, checked against the tensors' shapes.

    Raises:
        WeightsError: a setting is missing or contradicts the tensors.
    """
    model = settings.section("model")
    vocabulary, width = axes(tensors, "ar_predict_layer.weight", 2, source)
    found = {
        "hidden_dim": width,
        "n_layer": count(tensors, "h.layers.{}.linear1.weight"),
        "vocab_size": vocabulary,
        "phoneme_vocab_size": axes(tensors, "ar_text_embedding.word_embeddings.weight", 2, source)[0],
        "EOS": vocabulary - 1,
    }
    for name, value in found.items():
        if model.integer(name) != value:
            stated = model.integer(name)
            raise WeightsError(f"{source}: its configuration states {name} {stated}, its tensors have {value}")
    head = model.integer("head")
    if not head or width % head or width // head % 2:
        raise WeightsError(f"{source}: {head} heads do not divide a width of {width}")
    return {
        "hidden_dim": width,
        "n_layer": found["n_layer"],
        "head": head,
        "vocab_size": vocabulary,
        "phoneme_vocab_size": found["phoneme_vocab_size"],
        "EOS": found["EOS"],
        "linear_units": axes(tensors, "h.layers.0.linear1.weight", 2, source)[0],
        "bert_dim": axes(tensors, "bert_proj.weight", 2, source)[1],
        "max_sec": settings.section("data").integer("max_sec"),
    }


def _official(root: Any, source: Path) -> tuple[dict[str, Tensor], Settings]:
    """The tensors, without their `model.` prefix, and the configuration of an export or a training state."""
    if not isinstance(root, dict):
        raise WeightsError(f"{source} is not a GPT file: it holds a {type(root).__name__}")
    stored = root.get("weight", root.get("state_dict", root))
    hyper = root.get("hyper_parameters")
    config = root.get("config", hyper.get("config") if isinstance(hyper, dict) else None)
    tensors = without_prefix(state_dict(stored, source), "model.")
    check_kind(tensors, "GPT", source)
    return tensors, Settings(config, source)


def _converted(source: Path) -> tuple[dict[str, Tensor], Settings]:
    """The same of a `gpt.safetensors` with the flat configuration beside it."""
    tensors, config = read_converted(source)
    check_kind(tensors, "GPT", source)
    return tensors, Settings({"model": config, "data": config}, source)
