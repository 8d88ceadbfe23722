"""CNHubert, the speech encoder: a Hugging Face folder → `cnhubert.safetensors` and `cnhubert_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..quantization import Quantization
from .output import Conversion, check_output, write_model
from .source import Settings, check_kind, count, read_hugging_face, without_prefix
from .tensors import Expected, Shape, Tensor, axes, gather, stored_dtype

POSITIONS = "encoder.pos_conv_embed.conv.weight"
_UNUSED = (
    "masked_spec_embed",
    "lm_head.",
    "final_proj.",
    "label_embs_concat",
    "project_",
    "quantizer.",
    "classifier.",
)


def convert_cnhubert(
    input: Path | str,
    output: Path | str,
    dtype: str | None = None,
    progress: bool = False,
    quantization: Quantization | None = None,
) -> Conversion:
    """Convert a HuBERT of the base model's build (`chinese-hubert-base` or one with other widths).

    Args:
        input: a Hugging Face folder, or its `pytorch_model.bin` or `model.safetensors` with `config.json`
            beside it.
        output: `…/cnhubert.safetensors`; `cnhubert_config.json` is written beside it.
        dtype: "float16" or "float32" to store all tensors as; None keeps what the file stores.
        progress: show a progress bar.
        quantization: store the matrices in fewer bits; `dtype` is then that of all else, the groups' scales included.

    Raises:
        WeightsError: the files are no sound HuBERT of this build, or the output cannot be written; nothing is
            left.
    """
    source, output = Path(input), Path(output)
    check_output(source, output, dtype)
    weights, tensors, settings = read_hugging_face(source)
    tensors = without_prefix(tensors, "hubert.")
    check_kind(tensors, "CNHubert", weights)
    config = cnhubert_config(tensors, settings, weights)
    expected = Expected(cnhubert_tensors(config), is_unused, {POSITIONS: 2})
    arrays = gather(tensors, expected, weights, dtype, "CNHubert" if progress else None)
    config |= {"dtype": stored_dtype(tensors, expected.shapes, dtype)}
    return write_model(output, arrays, config, tuple(filter(is_unused, tensors)), quantization=quantization)


def cnhubert_config(tensors: Mapping[str, Tensor], settings: Settings, source: Path) -> dict[str, Any]:
    """Hugging Face's keys that the model needs, widths taken from the tensors.

    Raises:
        WeightsError: a setting is missing, contradicts the tensors, or is of a build that is not supported.
    """
    for name, build in _BUILD.items():
        settings.only(name, build, build)
    hidden = axes(tensors, "feature_projection.projection.weight", 2, source)[0]
    kernels, strides = settings.integers("conv_kernel"), settings.integers("conv_stride")
    layers = count(tensors, "encoder.layers.{}.final_layer_norm.weight")
    if not layers or len(kernels) != len(strides) or settings.integer("num_hidden_layers") != layers:
        raise WeightsError(f"{source}: its {layers} layers are not those of {settings.source}")
    heads, groups = settings.integer("num_attention_heads"), settings.integer("num_conv_pos_embedding_groups")
    if not heads or not groups or hidden % heads or hidden % groups:
        raise WeightsError(f"{source}: {heads} heads and {groups} groups do not divide a width of {hidden}")
    dims = [axes(tensors, f"feature_extractor.conv_layers.{i}.conv.weight", 3, source)[0] for i in range(len(kernels))]
    return {
        **_BUILD,
        "conv_dim": dims,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "hidden_size": hidden,
        "intermediate_size": axes(tensors, _INNER, 2, source)[0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_conv_pos_embeddings": settings.integer("num_conv_pos_embeddings"),
        "num_conv_pos_embedding_groups": groups,
        "layer_norm_eps": settings.number("layer_norm_eps", 1e-5),
    }


def cnhubert_tensors(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Name → shape of every tensor of a HuBERT, the positional convolution's weight norm folded."""
    hidden, inner, dims = config["hidden_size"], config["intermediate_size"], config["conv_dim"]
    shapes: dict[str, Shape] = {}
    for i, (kernel, inputs) in enumerate(zip(config["conv_kernel"], [1, *dims[:-1]], strict=True)):
        shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] = (dims[i], inputs, kernel)
    shapes |= _norm("feature_extractor.conv_layers.0.layer_norm", dims[0])
    shapes |= _norm("feature_projection.layer_norm", dims[-1])
    shapes |= _linear("feature_projection.projection", dims[-1], hidden)
    group = hidden // config["num_conv_pos_embedding_groups"]
    shapes[POSITIONS] = (hidden, group, config["num_conv_pos_embeddings"])
    shapes[POSITIONS.replace("weight", "bias")] = (hidden,)
    shapes |= _norm("encoder.layer_norm", hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{layer}.attention.{name}", hidden, hidden)
        shapes |= _linear(f"{layer}.feed_forward.intermediate_dense", hidden, inner)
        shapes |= _linear(f"{layer}.feed_forward.output_dense", inner, hidden)
        shapes |= _norm(f"{layer}.layer_norm", hidden) | _norm(f"{layer}.final_layer_norm", hidden)
    return shapes


def is_unused(name: str) -> bool:
    """Tensors of training and of heads on top of the encoder."""
    return name.startswith(_UNUSED)


# What sets the base build apart from other builds of HuBERT; the model supports this one.
_BUILD: dict[str, Any] = {
    "model_type": "hubert",
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "do_stable_layer_norm": False,
    "conv_bias": False,
    "conv_pos_batch_norm": False,
    "hidden_act": "gelu",
}
_INNER = "encoder.layers.0.feed_forward.intermediate_dense.weight"


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
