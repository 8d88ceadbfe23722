"""The vocoder SoVITS: an official `.pth` → `sovits.safetensors` and `sovits_config.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..models.sovits import SoVITS
from ..models.sovits.synthesizer import CODEBOOK, TENSOR_SIZES
from .output import Conversion, check_output, write_model
from .source import Settings, check_kind
from .tensors import Shape, Tensor, axes, expected_tensors, gather, state_dict, stored_dtype
from .torchfile import Checkpoint, read_torch

SUPPORTED = ("v1", "v2")
_MARKED = {
    "00": "v1",
    "01": "v2",
    "02": "v3",
    "03": "v3 LoRA",
    "04": "v4 LoRA",
    "05": "v2Pro",
    "06": "v2ProPlus",
}
SYMBOLS = {"v1": 322, "v2": 732}
"""How many phonemes each version's front end has."""
_STYLE_BINS = 704  # of the spectrogram's 1,025, from v2 on


def convert_sovits(
    input: Path | str, output: Path | str, dtype: str | None = None, progress: bool = False
) -> Conversion:
    """Convert an official SoVITS checkpoint of v1 or v2.

    Args:
        input: the `.pth` that the trainer exports, or an official base model.
        output: `…/sovits.safetensors`; `sovits_config.json` is written beside it.
        dtype: "float16" or "float32" to store all tensors as; None keeps what the file stores, except that
            folded weights are float32 (see `gather`).
        progress: show a progress bar.

    Raises:
        WeightsError: the file is no sound SoVITS checkpoint, is of a version that is not supported, or the
            output cannot be written; nothing is left.
    """
    source, output = Path(input), Path(output)
    check_output(source, output, dtype)
    checkpoint = read_torch(source)
    tensors, settings = _contents(checkpoint, source)
    sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    version = sovits_version(sizes, checkpoint, source)
    if version not in SUPPORTED:
        raise WeightsError(f"{source} is a SoVITS {version} model, which is not supported yet: v1 and v2 are")
    config = sovits_config(version, settings, tensors)
    _check_bins(config["model"]["style_bins"], version, config["data"]["filter_length"], source)
    expected = expected_tensors(SoVITS, config, tensors, source, is_unused)
    arrays = gather(tensors, expected, source, dtype, "SoVITS" if progress else None)
    config = config | {"dtype": stored_dtype(tensors, expected.shapes, dtype)}
    return write_model(SoVITS, output, arrays, config, tuple(filter(is_unused, tensors)))


def is_unused(name: str) -> bool:
    """Tensors that only training needs: the posterior encoder and the codebook's statistics."""
    statistics = ("inited", "cluster_size", "embed_avg")
    return name.startswith("enc_q.") or name in {CODEBOOK.replace("embed", s) for s in statistics}


def sovits_version(sizes: Mapping[str, Shape], checkpoint: Checkpoint, source: Path) -> str:
    """Which version a file is of: "v1", "v2", "v2Pro", "v2ProPlus", "v3", "v4", "v3 or v4"; the last three
    with " LoRA" behind for a fine-tuning that needs its base model.

    The tensors decide; the marker and the configuration only tell apart what has the same tensors.

    Raises:
        WeightsError: no version has such tensors.
    """
    hint = (_MARKED.get(checkpoint.marker) or _stated_version(checkpoint.root)).removesuffix(" LoRA")
    hint = hint if hint in ("v3", "v4") else "v3 or v4"
    if _is_lora(checkpoint.root, sizes):
        return f"{hint} LoRA"
    if any(name.startswith("cfm.") for name in sizes):
        return hint
    if "sv_emb.weight" in sizes:
        wide = sizes.get("dec.conv_pre.weight", (0,))[0] > 512
        return "v2ProPlus" if wide else "v2Pro"
    phones = sizes.get("enc_p.text_embedding.weight", (0,))[0]
    for version, symbols in SYMBOLS.items():
        if phones == symbols:
            return version
    raise WeightsError(f"{source}: it knows {phones} phonemes, SoVITS v1 has 322 and v2 has 732")


def sovits_config(version: str, settings: Settings, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """`sovits_config.json`, of the checkpoint's configuration and of sizes that only its tensors tell.

    Raises:
        WeightsError: a setting or a tensor is missing, or no model can be built with them.
    """
    data, model = settings.section("data"), settings.section("model")
    wanted = ("sampling_rate", "filter_length", "hop_length", "win_length")
    sizes = ("inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers", "kernel_size")
    rates, kernels = model.integers("upsample_rates"), model.integers("upsample_kernel_sizes")
    blocks = model.integers("resblock_kernel_sizes")
    dilations = model.lists("resblock_dilation_sizes")
    model.only("resblock", "1", "1")
    if len(dilations) != len(blocks) or len(rates) != len(kernels):
        raise WeightsError(f"{settings.source}: the numbers of blocks and of their sizes in its configuration differ")
    found = {
        name: axes(tensors, tensor, 2, Path(settings.source))[axis] for name, (tensor, axis) in TENSOR_SIZES.items()
    }
    config = {
        "version": version,
        "symbols": version,
        "data": {name: data.integer(name) for name in wanted},
        "model": {
            **{name: model.integer(name) for name in sizes},
            "resblock": "1",
            "resblock_kernel_sizes": blocks,
            "resblock_dilation_sizes": dilations,
            "upsample_rates": rates,
            "upsample_initial_channel": model.integer("upsample_initial_channel"),
            "upsample_kernel_sizes": kernels,
            "gin_channels": model.integer("gin_channels"),
            **found,
        },
    }
    if math.prod(rates) != config["data"]["hop_length"] or not config["model"]["n_heads"]:
        raise WeightsError(f"{settings.source}: upsampling by {rates} does not make {version}'s frames into audio")
    return config


def _check_bins(bins: int, version: str, filter_length: int, source: Path) -> None:
    wanted = filter_length // 2 + 1 if version == "v1" else _STYLE_BINS
    if bins != wanted:
        raise WeightsError(
            f"{source}: tensor ref_enc.spectral.0.fc.weight takes {bins} bins of a spectrum, {version} has"
            f" {wanted}: the file is damaged or of another model"
        )


def _is_lora(root: dict[str, Any], names: Iterable[str]) -> bool:
    return "lora_rank" in root or any(".lora_" in name for name in names)


def _stated_version(root: Any) -> str:
    config = root.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    version = model.get("version") if isinstance(model, dict) else None
    return version if isinstance(version, str) else ""


def _contents(checkpoint: Checkpoint, source: Path) -> tuple[dict[str, Tensor], Settings]:
    root = checkpoint.root
    if not isinstance(root, dict):
        raise WeightsError(f"{source} is not a SoVITS file: it holds a {type(root).__name__}")
    tensors = state_dict(root.get("weight", root), source)
    if not _is_lora(root, tensors):  # which holds none of the tensors that mark a SoVITS
        check_kind(tensors, "SoVITS", source)
    return tensors, Settings(root.get("config"), source)
