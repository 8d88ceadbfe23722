"""CNHubert, the speech encoder: a Hugging Face folder → `cnhubert.safetensors` and `cnhubert_config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..models.cnhubert import CNHubert
from ..quantization import Quantization
from .output import Conversion, check_output, write_model
from .source import Settings, check_kind, count, read_hugging_face, without_prefix
from .tensors import Tensor, axes, expected_tensors, gather, stored_dtype

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
    expected = expected_tensors(CNHubert, config, tensors, weights, is_unused, {POSITIONS: 2})
    arrays = gather(tensors, expected, weights, dtype, "CNHubert" if progress else None)
    config |= {"dtype": stored_dtype(tensors, expected.shapes, dtype)}
    unused = tuple(filter(is_unused, tensors))
    return write_model(CNHubert, output, arrays, config, unused, quantization=quantization)


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
