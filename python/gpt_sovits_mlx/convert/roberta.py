"""RoBERTa, the text encoder: a Hugging Face folder → `roberta.safetensors`, configuration and vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..models.roberta import Roberta
from ..quantization import Quantization
from .output import Conversion, check_output, write_model
from .source import Settings, check_kind, count, read_hugging_face, read_json
from .tensors import Tensor, axes, expected_tensors, gather, stored_dtype

FEATURE = -3
"""Which of BERT's hidden states GPT-SoVITS takes: the output of the third layer from the end (22 of 24)."""
_TIED = "cls.predictions.decoder.weight"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def convert_roberta(
    input: Path | str,
    output: Path | str,
    dtype: str | None = None,
    progress: bool = False,
    quantization: Quantization | None = None,
) -> Conversion:
    """Convert a BERT whose hidden states are the GPT's features (`chinese-roberta-wwm-ext-large`).

    The layers behind the feature, the pooler and the language model's head are left out.

    Args:
        input: a Hugging Face folder, or its `pytorch_model.bin` or `model.safetensors` with `config.json`
            and `vocab.txt` or `tokenizer.json` beside it.
        output: `…/roberta.safetensors`; `roberta_config.json` and `roberta_vocab.txt` are written beside it.
        dtype: "float16" or "float32" to store all tensors as; None keeps what the file stores.
        progress: show a progress bar.
        quantization: store the matrices in fewer bits; `dtype` is then that of all else, the groups' scales included.

    Raises:
        WeightsError: the files are no sound BERT, or the output cannot be written; nothing is left.
    """
    source, output = Path(input), Path(output)
    check_output(source, output, dtype)
    weights, tensors, settings = read_hugging_face(source)
    tensors = {_modern(name): tensor for name, tensor in tensors.items()}
    check_kind(tensors, "RoBERTa", weights)
    config = roberta_config(tensors, settings, weights)
    vocabulary = read_vocabulary(weights.parent, config["vocab_size"])
    feature_layer = config["feature_layer"]

    def unused(name: str) -> bool:
        parts = name.split(".")
        behind = parts[:3] == ["bert", "encoder", "layer"] and parts[3].isdecimal() and int(parts[3]) >= feature_layer
        return behind or name.startswith(("bert.pooler.", "cls.", "bert.embeddings.position_ids"))

    _check_tied(tensors, weights)
    expected = expected_tensors(Roberta, config, tensors, weights, unused)
    arrays = gather(tensors, expected, weights, dtype, "RoBERTa" if progress else None)
    config |= {"dtype": stored_dtype(tensors, expected.shapes, dtype)}
    beside = {"vocab.txt": vocabulary}
    return write_model(Roberta, output, arrays, config, tuple(filter(unused, tensors)), beside, quantization)


def _modern(name: str) -> str:
    """The name under which `BertForMaskedLM` knows a tensor of a bare `BertModel` or of TensorFlow's days."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name if name.startswith(("bert.", "cls.")) else f"bert.{name}"


def roberta_config(tensors: Mapping[str, Tensor], settings: Settings, source: Path) -> dict[str, Any]:
    """Hugging Face's keys that the model needs, widths taken from the tensors, and `feature_layer`: how many
    layers run, and are stored.

    Raises:
        WeightsError: a setting is missing, contradicts the tensors, or is of a build that is not supported.
    """
    for name, build in _BUILD.items():
        settings.only(name, build, build)
    tokens, hidden = axes(tensors, "bert.embeddings.word_embeddings.weight", 2, source)
    layers = count(tensors, "bert.encoder.layer.{}.output.dense.weight")
    heads = settings.integer("num_attention_heads")
    if layers <= -FEATURE - 1 or settings.integer("num_hidden_layers") != layers:
        raise WeightsError(f"{source}: its {layers} layers are not those of {settings.source}")
    if not heads or hidden % heads:
        raise WeightsError(f"{source}: {heads} heads do not divide a width of {hidden}")
    return {
        **_BUILD,
        "vocab_size": tokens,
        "hidden_size": hidden,
        "intermediate_size": axes(tensors, "bert.encoder.layer.0.intermediate.dense.weight", 2, source)[0],
        "num_hidden_layers": layers,
        "feature_layer": layers + FEATURE + 1,
        "num_attention_heads": heads,
        "max_position_embeddings": axes(tensors, "bert.embeddings.position_embeddings.weight", 2, source)[0],
        "type_vocab_size": axes(tensors, "bert.embeddings.token_type_embeddings.weight", 2, source)[0],
        "layer_norm_eps": settings.number("layer_norm_eps", 1e-12),
    }


def _check_tied(tensors: Mapping[str, Tensor], source: Path) -> None:
    """BERT's input and output embeddings are one tensor; a file in which they differ has no one meaning."""
    words, output = (tensors.get(name) for name in ("bert.embeddings.word_embeddings.weight", _TIED))
    if words and output and not np.array_equal(words.read(), output.read()):
        raise WeightsError(f"{source}: {_TIED} differs from the word embeddings, to which BERT ties it: it is damaged")


def read_vocabulary(folder: Path, size: int) -> str:
    """The text of a `vocab.txt`: one token a line, in the order of their ids.

    Raises:
        WeightsError: there is none, or it does not fit the model.
    """
    plain, fast = folder / "vocab.txt", folder / "tokenizer.json"
    if plain.is_file():
        source = plain
        tokens = plain.read_text(encoding="utf-8", errors="replace").splitlines()
    elif fast.is_file():
        source = fast
        tokens = _tokens(read_json(fast), fast)
    else:
        raise WeightsError(f"{folder} holds neither vocab.txt nor tokenizer.json: they belong beside the weights")
    if len(tokens) != size or len(set(tokens)) != size or not {*_SPECIAL} <= {*tokens}:
        raise WeightsError(f"{source} has {len(tokens)} tokens, the model has {size}: it belongs to another model")
    return "\n".join(tokens) + "\n"


def _tokens(tokenizer: Any, source: Path) -> list[str]:
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    ids = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(ids, dict) or sorted(map(str, ids.values())) != sorted(map(str, range(len(ids)))):
        raise WeightsError(f"{source} holds no vocabulary of numbered tokens")
    return sorted(ids, key=lambda token: ids[token])


# What sets this build apart from other builds of BERT; the model supports this one.
_BUILD: dict[str, Any] = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
