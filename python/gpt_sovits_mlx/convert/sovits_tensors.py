"""Name → shape of every tensor of a SoVITS v1 or v2 file, weight norm folded.

Written from the structure of the reference's `SynthesizerTrn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tensors import Shape, Tensor, axes

FLOW_LAYERS, COUPLINGS, FLOW_KERNEL = 4, 4, 5  # fixed in the reference
CODEBOOK = "quantizer.vq.layers.0._codebook.embed"


@dataclass(frozen=True)
class Widths:
    """What the configuration does not say and the shapes do."""

    phones: int
    ssl: int
    codes: int
    bins: int
    style: int

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], source: Path) -> Widths:
        """Raises `WeightsError` for a tensor that is missing or of another rank."""
        style, bins = axes(tensors, "ref_enc.spectral.0.fc.weight", 2, source)
        return cls(
            phones=axes(tensors, "enc_p.text_embedding.weight", 2, source)[0],
            ssl=axes(tensors, "ssl_proj.weight", 3, source)[0],
            codes=axes(tensors, CODEBOOK, 2, source)[0],
            bins=bins,
            style=style,
        )


def sovits_tensors(model: Mapping[str, Any], widths: Widths) -> dict[str, Shape]:
    """All tensors of a vocoder.

    Args:
        model: the constructor's numbers, as in `sovits_config.json`.
        widths: of the tensors that the numbers do not cover.
    """
    return {
        **_conv("ssl_proj", widths.ssl, widths.ssl, 2),
        CODEBOOK: (widths.codes, widths.ssl),
        **_style_encoder(widths.bins, widths.style, model["gin_channels"]),
        **_text_encoder(model, widths),
        **_flow(model["inter_channels"], model["hidden_channels"], model["gin_channels"]),
        **generator_tensors(model),
    }


def is_unused(name: str) -> bool:
    """Tensors that only training needs: the posterior encoder and the codebook's statistics."""
    statistics = ("inited", "cluster_size", "embed_avg")
    return name.startswith("enc_q.") or name in {CODEBOOK.replace("embed", s) for s in statistics}


def _conv(name: str, inputs: int, outputs: int, kernel: int = 1) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs, kernel), f"{name}.bias": (outputs,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _style_encoder(bins: int, width: int, gin: int) -> dict[str, Shape]:
    shapes = _linear("ref_enc.spectral.0.fc", bins, width) | _linear("ref_enc.spectral.3.fc", width, width)
    for i in range(2):
        shapes |= _conv(f"ref_enc.temporal.{i}.conv1.conv", width, 2 * width, 5)
    for name in ("w_qs", "w_ks", "w_vs", "fc"):
        shapes |= _linear(f"ref_enc.slf_attn.{name}", width, width)
    return shapes | _linear("ref_enc.fc.fc", width, gin)


def _text_encoder(model: Mapping[str, Any], widths: Widths) -> dict[str, Shape]:
    hidden, gin, layers = model["hidden_channels"], model["gin_channels"], model["n_layers"]
    shapes: dict[str, Shape] = {"enc_p.text_embedding.weight": (widths.phones, hidden)}
    shapes |= _conv("enc_p.ssl_proj", widths.ssl, hidden)
    for name, depth in (("encoder_ssl", layers // 2), ("encoder_text", layers), ("encoder2", layers // 2)):
        shapes |= _attention_encoder(f"enc_p.{name}", model, depth)
    # the style is added inside the cross-attention block, so that block is as wide as the style
    for name in "qkvo":
        shapes |= _conv(f"enc_p.mrte.cross_attention.conv_{name}", gin, gin)
    shapes |= _conv("enc_p.mrte.c_pre", hidden, gin) | _conv("enc_p.mrte.text_pre", hidden, gin)
    shapes |= _conv("enc_p.mrte.c_post", gin, hidden)
    return shapes | _conv("enc_p.proj", hidden, 2 * model["inter_channels"])


def _attention_encoder(name: str, model: Mapping[str, Any], depth: int) -> dict[str, Shape]:
    """VITS's encoder: self-attention with relative positions within 4 frames, then two convolutions."""
    hidden, inner, kernel = model["hidden_channels"], model["filter_channels"], model["kernel_size"]
    shapes: dict[str, Shape] = {}
    for i in range(depth):
        attention = f"{name}.attn_layers.{i}"
        shapes |= {f"{attention}.emb_rel_{part}": (1, 9, hidden // model["n_heads"]) for part in "kv"}
        for part in "qkvo":
            shapes |= _conv(f"{attention}.conv_{part}", hidden, hidden)
        shapes |= _conv(f"{name}.ffn_layers.{i}.conv_1", hidden, inner, kernel)
        shapes |= _conv(f"{name}.ffn_layers.{i}.conv_2", inner, hidden, kernel)
        shapes |= {f"{name}.norm_layers_{n}.{i}.{p}": (hidden,) for n in (1, 2) for p in ("gamma", "beta")}
    return shapes


def _flow(inter: int, hidden: int, gin: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for i in range(COUPLINGS):
        name = f"flow.flows.{2 * i}"  # the odd ones are flips, without tensors
        shapes |= _conv(f"{name}.pre", inter // 2, hidden) | _conv(f"{name}.post", hidden, inter // 2)
        shapes |= _conv(f"{name}.enc.cond_layer", gin, 2 * hidden * FLOW_LAYERS)
        for j in range(FLOW_LAYERS):
            both = hidden if j == FLOW_LAYERS - 1 else 2 * hidden  # the last layer has no residual
            shapes |= _conv(f"{name}.enc.in_layers.{j}", hidden, 2 * hidden, FLOW_KERNEL)
            shapes |= _conv(f"{name}.enc.res_skip_layers.{j}", hidden, both)
    return shapes


def generator_tensors(model: Mapping[str, Any]) -> dict[str, Shape]:
    """HiFi-GAN's generator with residual blocks of type 1, conditioned once at its input."""
    width = model["upsample_initial_channel"]
    shapes = _conv("dec.conv_pre", model["inter_channels"], width, 7) | _conv("dec.cond", model["gin_channels"], width)
    block = 0
    for i, kernel in enumerate(model["upsample_kernel_sizes"]):
        width //= 2
        shapes |= {f"dec.ups.{i}.weight": (2 * width, width, kernel), f"dec.ups.{i}.bias": (width,)}
        kernels = zip(model["resblock_kernel_sizes"], model["resblock_dilation_sizes"], strict=True)
        for size, dilations in kernels:
            for part in ("convs1", "convs2"):
                for j in range(len(dilations)):
                    shapes |= _conv(f"dec.resblocks.{block}.{part}.{j}", width, width, size)
            block += 1
    return shapes | {"dec.conv_post.weight": (1, width, 7)}
