"""The trained parts as files in the official formats: GPT .ckpt, SoVITS .pth, the encoder as a Hugging Face folder."""

from __future__ import annotations

import json
import sys
import types
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from . import gpt, sovits, tokenizer, weights
from .hubert import Tokenizer
from .speech import CLASSES
from .vits import Size, SoVITS


class HParams:
    """Nested attributes; pickled as `utils.HParams`, the class that the official trainer writes."""

    def __init__(self, **values: Any) -> None:
        for key, value in values.items():
            setattr(self, key, HParams(**value) if isinstance(value, dict) else value)


def gpt_checkpoint(state: dict[str, Tensor], size: gpt.Size) -> OrderedDict[str, Any]:
    weight = OrderedDict((f"model.{k}", v.half()) for k, v in state.items())
    model = {
        "vocab_size": gpt.VOCABULARY,
        "phoneme_vocab_size": size.symbols,
        "embedding_dim": size.hidden,
        "hidden_dim": size.hidden,
        "head": size.heads,
        "linear_units": 4 * size.hidden,
        "n_layer": size.layers,
        "dropout": 0,
        "EOS": gpt.EOS,
        "random_bert": 0,
    }
    return OrderedDict(weight=weight, config={"model": model, "data": {"max_sec": 54}}, info="demo")


def sovits_checkpoint(model: SoVITS, encoder: Tokenizer) -> OrderedDict[str, Any]:
    weight = {k: v.half() for k, v in model.state_dict().items() if k != "codebook"}
    weight["ssl_proj.weight"], weight["ssl_proj.bias"] = encoder.ssl_proj.weight.half(), encoder.ssl_proj.bias.half()  # type: ignore[union-attr]
    book = "quantizer.vq.layers.0._codebook."
    embed = model.codebook.half()
    weight |= {
        book + "embed": embed, book + "embed_avg": embed.clone(), book + "inited": torch.ones(1).half(),
        book + "cluster_size": torch.ones(len(embed)).half(),
    }  # fmt: skip
    size = model.size
    config = {
        "train": {"segment_size": 20480},
        "data": {
            "sampling_rate": 32000, "filter_length": 2048, "hop_length": 640, "win_length": 2048, "n_speakers": 300,
            "n_mel_channels": 128, "max_wav_value": 32768.0, "add_blank": True, "cleaned_text": True,
        },
        "model": {
            "inter_channels": size.hidden, "hidden_channels": size.hidden, "filter_channels": size.filter,
            "n_heads": 2, "n_layers": 6, "kernel_size": 3, "p_dropout": 0.0, "resblock": "1",
            "resblock_kernel_sizes": list(size.residual_kernels),
            "resblock_dilation_sizes": [list(size.dilations) for _ in size.residual_kernels],
            "upsample_rates": list(size.rates), "upsample_initial_channel": size.initial,
            "upsample_kernel_sizes": list(size.kernels), "n_layers_q": 3, "use_spectral_norm": False,
            "gin_channels": size.style, "semantic_frame_rate": "25hz", "freeze_quantizer": True, "version": "v2",
        },
    }  # fmt: skip
    return OrderedDict(weight={k: v.cpu() for k, v in weight.items()}, config=config, info="demo")


def _save_sovits(content: OrderedDict[str, Any], path: Path) -> None:
    module = types.ModuleType("utils")
    HParams.__module__, HParams.__qualname__ = "utils", "HParams"
    module.HParams = HParams  # type: ignore[attr-defined]
    saved = sys.modules.get("utils")
    sys.modules["utils"] = module
    try:
        torch.save(content | {"config": HParams(**content["config"])}, path)
    finally:
        del sys.modules["utils"]
        if saved is not None:
            sys.modules["utils"] = saved


def write(work: Path, out: Path) -> None:
    """`work`'s gpt.pt, sovits.pt and tokenizer.pt -> `out`/demo.ckpt, demo.pth and cnhubert/."""
    out.mkdir(parents=True, exist_ok=True)
    model: nn.Module = gpt.load(work / "gpt.pt").cpu()
    assert isinstance(model, gpt.GPT)
    torch.save(gpt_checkpoint(model.state_dict(), model.size), out / "demo.ckpt")
    encoder = tokenizer.load(work / "tokenizer.pt").cpu()
    _save_sovits(sovits_checkpoint(sovits.load(work / "sovits.pt").cpu(), encoder), out / "demo.pth")
    folder = out / "cnhubert"
    folder.mkdir(exist_ok=True)
    torch.save({k: v.half() for k, v in encoder.encoder.hugging_face_state().items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(encoder.encoder.config, indent=2))


def take_up(voice: Path, work: Path) -> None:
    """A shipped voice's weights -> `work`'s gpt.pt, sovits.pt and tokenizer.pt, from which the stages train on.

    What only training needs, the tokenizer's heads and the discriminators, starts anew; so does, when a stage resumes,
    whatever has another shape there.
    """
    work.mkdir(parents=True, exist_ok=True)
    weights.save(unpacked(load_file(voice / "gpt.safetensors")), work / "gpt.pt")
    stored = load_file(voice / "sovits.safetensors")
    book = stored["quantizer.vq.layers.0._codebook.embed"]
    state: dict[str, Tensor] = {"codebook": book}
    for name in SoVITS(Size(code_width=book.shape[1])).state_dict():
        base, _, part = name.rpartition("_")
        if part == "g" and base in stored:
            state[name] = stored[base].float().flatten(1).norm(dim=1).view(-1, 1, 1)
        elif name != "codebook":
            state[name] = stored[base if part == "v" and base in stored else name]
    weights.save(state, work / "sovits.pt")
    encoder = {f"encoder.{k}": v for k, v in load_file(voice / "cnhubert.safetensors").items()}
    encoder |= {f"ssl_proj.{k}": stored[f"ssl_proj.{k}"] for k in ("weight", "bias")}
    own = Tokenizer(CLASSES)
    anew = weights.take_what_fits(own, {k: v.float() for k, v in (encoder | {"embed": book}).items()})
    if any(not name.startswith(("head.", "direct.", "count", "total")) for name in anew):
        print(f"the tokenizer of {voice} has another shape, and is left out")
        return
    tokenizer.save(own, work / "tokenizer.pt")


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the matrices that MLX packed in 8 bits (uint32 words, scales, biases) as numbers again."""
    whole = {}
    for name, value in stored.items():
        stem = name.removesuffix("weight")
        if stem != name and stem + "scales" in stored:
            scales, biases = stored[stem + "scales"].float(), stored[stem + "biases"].float()
            numbers = value.view(torch.uint8).float().unflatten(1, (scales.shape[1], -1))
            value = (numbers * scales[..., None] + biases[..., None]).flatten(1)
        elif name.endswith(("scales", "biases")):
            continue
        whole[name] = value
    return whole
