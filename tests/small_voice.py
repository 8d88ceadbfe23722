"""A model folder with a small random voice and small random encoders, in the formats of converted official ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from safetensors.numpy import save_file

from gpt_sovits_mlx.files import file_sha256
from gpt_sovits_mlx.models.cnhubert import CNHubert
from gpt_sovits_mlx.models.model import Model, shapes_of
from gpt_sovits_mlx.models.roberta import Roberta
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.models.t2s import TextToSemantic

GPT = {
    "hidden_dim": 32,
    "n_layer": 2,
    "head": 4,
    "vocab_size": 1025,
    "phoneme_vocab_size": 732,
    "EOS": 1024,
    "linear_units": 128,
    "bert_dim": 64,
    "max_sec": 54,
}
SOVITS_SIZES = {
    "inter_channels": 16,
    "hidden_channels": 16,
    "filter_channels": 32,
    "n_heads": 2,
    "n_layers": 2,
    "kernel_size": 3,
    "resblock": "1",
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "upsample_rates": [10, 8, 2, 2, 2],
    "upsample_initial_channel": 32,
    "upsample_kernel_sizes": [16, 16, 8, 2, 2],
    "gin_channels": 32,
    "phonemes": 732,
    "codes": 1024,
    "ssl_channels": 32,
    "style_bins": 704,
    "style_channels": 32,
}
CNHUBERT = {
    "conv_dim": [16] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "layer_norm_eps": 1e-5,
}
ROBERTA = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "feature_layer": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
SPECTRUM = {"sampling_rate": 32000, "filter_length": 2048, "hop_length": 640, "win_length": 2048}
SOVITS_CONFIG = {"version": "v2", "symbols": "v2", "data": SPECTRUM, "model": SOVITS_SIZES}
SPOKEN = "今天天气很好我们去公园散步吧一二三四五六七八九十,.!?…-"


def make_model_folder(folder: Path, voices: tuple[str, ...] = ("small",), roberta: bool = True) -> Path:
    """`encoders/` and `voices/<name>/`; voices differ in all weights and in their reference."""
    encoders = folder / "encoders"
    write(encoders / "cnhubert.safetensors", CNHubert, CNHUBERT, 4)
    if roberta:
        write(encoders / "roberta.safetensors", Roberta, ROBERTA, 2)
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *SPOKEN]
        (encoders / "roberta_vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    for seed, name in enumerate(voices, start=10):
        make_voice(folder / "voices" / name, seed, encoders)
    return folder


def make_voice(folder: Path, seed: int, encoders: Path) -> None:
    write(folder / "gpt.safetensors", TextToSemantic, GPT, seed)
    write(folder / "sovits.safetensors", SoVITS, SOVITS_CONFIG, seed + 100)
    tone(folder / "reference.wav", 3.5, 100 + 10 * seed)
    hashes = {p.stem: file_sha256(p) for p in encoders.glob("*.safetensors")}
    voice = {
        "format": 1,
        "name": folder.name,
        "version": "v2",
        "sample_rate": 32000,
        "reference": {"text": "今天天气很好", "language": "zh", "auxiliary": []},
        "languages": ["zh", "en"],
        "encoders": {"cnhubert": hashes["cnhubert"], "roberta": hashes.get("roberta", "0" * 64)},
        "defaults": {"max_tokens": 30},
        "licence": "MIT",
        "card": "random weights",
    }
    (folder / "voice.json").write_text(json.dumps(voice), encoding="utf-8")


def write(path: Path, kind: type[Model], config: Mapping[str, Any], seed: int) -> None:
    """A model's random tensors: gains near 1, the rest small enough that signals neither vanish nor explode."""
    random, tensors = np.random.default_rng(seed), {}
    for name, shape in sorted(shapes_of(kind, config).items()):
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 0
        gain = len(shape) == 1 and name.endswith(("weight", "gamma", "alpha"))
        scale = 0.1 if gain or not fan_in else 1.2 / np.sqrt(fan_in)
        tensors[name] = (random.standard_normal(shape) * scale + gain).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    content = {**config, "dtype": "float32", "quantization": None}
    path.with_name(f"{path.stem}_config.json").write_text(json.dumps(content), encoding="utf-8")


def tone(path: Path, seconds: float, pitch: float, rate: int = 32000) -> Path:
    """A buzz with a changing loudness, standing in for a recording."""
    time = np.arange(int(seconds * rate)) / rate
    samples = sum(np.sin(2 * np.pi * pitch * k * time + k) / k for k in range(1, 8))
    samples = 0.2 * samples * (1 + np.sin(2 * np.pi * 3 * time)) / 2
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path
