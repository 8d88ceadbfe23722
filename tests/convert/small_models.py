"""Checkpoints of small models in the official formats, written by PyTorch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import gpt_sovits_mlx
import random_weights
from gpt_sovits_mlx.convert.cnhubert import POSITIONS
from gpt_sovits_mlx.models.cnhubert import CNHubert
from gpt_sovits_mlx.models.model import shapes_of
from gpt_sovits_mlx.models.roberta import Roberta
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.models.sovits.synthesizer import CODEBOOK

State = dict[str, torch.Tensor]

SOVITS_MODEL: dict[str, Any] = {
    "inter_channels": 8,
    "hidden_channels": 12,
    "filter_channels": 16,
    "n_heads": 2,
    "n_layers": 2,
    "kernel_size": 3,
    "p_dropout": 0.1,
    "resblock": "1",
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 3]],
    "upsample_rates": [10, 64],
    "upsample_initial_channel": 16,
    "upsample_kernel_sizes": [16, 128],
    "gin_channels": 20,
    "semantic_frame_rate": "25hz",
}
SOVITS_DATA = {"sampling_rate": 32000, "filter_length": 2048, "hop_length": 640, "win_length": 2048}
SOVITS_CONFIG: dict[str, Any] = {"train": {"segment_size": 20480}, "data": SOVITS_DATA, "model": SOVITS_MODEL}

HUBERT_CONFIG: dict[str, Any] = {
    "model_type": "hubert",
    "conv_dim": [6, 6],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "conv_bias": False,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "layer_norm_eps": 1e-5,
    "feat_extract_norm": "group",
    "hidden_act": "gelu",
}

BERT_CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 120,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def values(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float16) -> State:
    """Random values of the given shapes, the same in every run."""
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def normed(state: State, names: list[str], axis: int = 0, form: tuple[str, str] = ("_g", "_v")) -> State:
    """The state with each weight split into weight norm's magnitude and direction."""
    out: State = {}
    for name, value in state.items():
        if name not in names:
            out[name] = value
            continue
        stem = name if form[0].startswith("_") else f"{name.removesuffix('weight')}parametrizations.weight"
        others = [a for a in range(value.ndim) if a != axis]
        magnitude = value.float().norm(dim=others, keepdim=True) * 1.25
        out[stem + form[0]], out[stem + form[1]] = magnitude.to(value.dtype), value
    return out


def sovits_state(version: str = "v2", dtype: torch.dtype = torch.float16) -> State:
    """A small SoVITS, with weight norm where the official files have it and the tensors that only training needs."""
    config = {"version": version, "symbols": version, "data": SOVITS_DATA, "model": sovits_sizes(version)}
    shapes = shapes_of(SoVITS, config)
    state = values(shapes, dtype)
    state = normed(state, [n for n in shapes if is_normed(n)])
    extra = {"enc_q.pre.weight": (4, 4, 1), CODEBOOK.replace("embed", "inited"): (1,)}
    return state | values(extra, dtype)


def sovits_sizes(version: str, ssl: int = 10, codes: int = 6, style: int = 4) -> dict[str, Any]:
    """`model` of a converted configuration: the checkpoint's numbers, and those that its tensors have."""
    phonemes, bins = {"v1": (322, 1025), "v2": (732, 704)}[version]
    found = {"phonemes": phonemes, "codes": codes, "ssl_channels": ssl, "style_bins": bins, "style_channels": style}
    return {n: v for n, v in SOVITS_MODEL.items() if n not in ("p_dropout", "semantic_frame_rate")} | found


def is_normed(name: str) -> bool:
    return name.endswith("weight") and (name.startswith(("dec.ups", "dec.resblocks")) or ".enc." in name)


def write_sovits(path: Path, state: State, config: dict[str, Any] | None = None, marker: str = "") -> Path:
    random_weights.save_sovits(path, state, config or SOVITS_CONFIG, "test", marker)
    return path


def gpt_parts() -> tuple[State, dict[str, Any]]:
    """The small GPT's tensors (with their `model.` prefix) and its configuration."""
    manifest = random_weights.load_manifest("gpt_tiny")
    return {n: torch.from_numpy(a) for n, a in random_weights.state(manifest, 1)}, manifest["config"]


def write_gpt(path: Path, state: State, config: dict[str, Any], **options: Any) -> Path:
    torch.save({"weight": state, "config": config, "info": "GPT-e15"}, path, **options)
    return path


def hubert_state(dtype: torch.dtype = torch.float16, form: tuple[str, str] = ("_g", "_v")) -> State:
    state = values(shapes_of(CNHubert, HUBERT_CONFIG), dtype)
    return normed(state, [POSITIONS], 2, form) | {"masked_spec_embed": torch.zeros(8)}


def bert_state(dtype: torch.dtype = torch.float16) -> State:
    """All four layers, the head and the pooler of a small BERT."""
    state = values(shapes_of(Roberta, {**BERT_CONFIG, "feature_layer": 4}), dtype)
    head = {"bert.pooler.dense.weight": (8, 8), "cls.predictions.bias": (120,)}
    return state | values(head, dtype) | {"bert.embeddings.position_ids": torch.arange(20)[None]}


def write_folder(folder: Path, state: State, config: dict[str, Any]) -> Path:
    """A Hugging Face folder; a BERT's gets a vocabulary, too."""
    folder.mkdir(parents=True)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    if config["model_type"] == "bert":
        tokens = random_weights.placeholder_vocabulary(config["vocab_size"])
        (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return folder


def torch_fold(g: torch.Tensor, v: torch.Tensor, axis: int) -> torch.Tensor:
    """The weight that PyTorch's own weight norm computes of its two tensors."""
    module = torch.nn.Module()
    module.register_parameter("weight", torch.nn.Parameter(v.clone()))
    torch.nn.utils.parametrizations.weight_norm(module, dim=axis)
    dict(module.named_parameters())["parametrizations.weight.original0"].data.copy_(g)
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach()


def torch_folded(state: State) -> Iterator[tuple[str, np.ndarray]]:
    """The state in float32, weight norm folded by PyTorch itself."""
    for name, value in state.items():
        if name.endswith("weight_v"):
            g = state[name.removesuffix("v") + "g"].float()
            axis = next((a for a, n in enumerate(g.shape) if n > 1), 0)
            yield name.removesuffix("_v"), torch_fold(g, value.float(), axis).numpy()
        elif not name.endswith("weight_g"):
            yield name, value.float().numpy()


def environment(**extra: str) -> dict[str, str]:
    """The environment of a program that imports this package, installed or not."""
    return {**os.environ, "PYTHONPATH": str(Path(gpt_sovits_mlx.__path__[0]).parent), **extra}
