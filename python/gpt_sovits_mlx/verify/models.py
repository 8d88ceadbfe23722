"""Text, GPT, SoVITS and the MLX encoders against the reference's own numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from safetensors.numpy import save_file

from .. import audio
from ..convert import convert_cnhubert, convert_roberta
from ..convert.gpt import gpt_config
from ..convert.source import Settings, without_prefix
from ..convert.sovits import is_unused, sovits_config
from ..convert.tensors import Tensor, expected_tensors, gather
from ..decoding.decoder import DecodeRequest
from ..decoding.generation import generate
from ..decoding.sampling import NoiseStream
from ..decoding.state import prefill
from ..encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from ..models.model import Model
from ..models.sovits import SoVITS
from ..models.t2s import TextToSemantic
from ..runtime import backend
from ..settings import Sampling
from ..text import TextFrontend
from ..voices.enrolment import APPENDED_SILENCE
from ..weights import model_of, prepare_to_speak
from .golden import DATA, load_manifest, load_outputs, load_texts, placeholder_vocabulary, state
from .report import Clock, Row

M = TypeVar("M", bound=Model)
SOURCE = Path("golden weights")
LIMITS = {"cpu": 1e-4, "metal": 1e-3, "cuda": 1e-2}
"""On float32 numbers of magnitude 1 to 10. GPUs sum in another order; CUDA multiplies in TF32 besides."""
SEEDS = {"gpt_v2": 1, "sovits_v2": 3, "hubert": 1, "roberta": 1}


@dataclass(frozen=True)
class Array:
    """An array as the converter's `Tensor`."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> str:
        return str(self.values.dtype)

    def read(self) -> np.ndarray:
        return self.values


def device() -> str:
    """Where MLX computes, for the table."""
    return {"cpu": "MLX, CPU", "metal": "MLX, Metal", "cuda": "MLX, CUDA"}[backend()]


def no_metal() -> str:
    """Why MLX does not compute on Metal here; empty where it does."""
    if backend() == "metal":
        return ""
    return "this Mac offers no GPU" if sys.platform == "darwin" else "needs a Mac"


def verify_text() -> Iterator[Row]:
    frontend, texts, clock = TextFrontend(), load_texts(), Clock()
    with clock.running():
        wrong = sum(
            " ".join(frontend.utterance(text["text"], text["language"]).phones) != text["phones"] for text in texts
        )
    yield Row("text to phones", "CPU", wrong, 0, f"of {len(texts)} texts", clock.seconds)


def verify_gpt() -> Iterator[Row]:
    settings, arrays = golden_gpt("float32")
    model = _model(TextToSemantic, settings, arrays)
    data, clock, stepping = load_outputs("gpt"), Clock(), Clock()
    phones, prompt = data["phones"].astype(np.int32), data["prompt"].astype(np.int32).reshape(1, -1)
    bert = mx.array(data["bert"].astype(np.float32)).swapaxes(1, 2)
    with clock.running():
        logits = np.array(prefill(model, mx.array(phones), bert, mx.array(prompt))[0])
    difference = float(np.abs(logits - data["step0_logits"]).max())
    yield Row("GPT, first logits", device(), difference, LIMITS[backend()], "", clock.seconds)
    # the reference tests its limit after a token was added, with >: it allows one token more
    limit = int(data["early_stop_num"]) + 1 or Sampling.max_tokens
    sampling = Sampling(top_k=1, max_tokens=limit)
    request = DecodeRequest(phones[0].tolist(), prompt[0].tolist(), NoiseStream(0, 0), sampling, bert[0])
    with stepping.running():
        made = generate(model, [request])[0].tokens
    expected = data["tokens"][0, prompt.shape[1] :].tolist()
    wrong = sum(a != b for a, b in zip(made, expected, strict=False)) + abs(len(made) - len(expected))
    yield Row("GPT, greedy tokens", device(), wrong, 0, f"of {len(expected)} tokens", stepping.seconds)


def verify_sovits() -> Iterator[Row]:
    settings, arrays = golden_sovits("float32")
    model = _model(SoVITS, settings, arrays)
    data, clock = load_outputs("sovits"), Clock()
    with clock.running():
        samples = mx.array(data["ref0_pcm32k"].astype(np.float32) / 32768)
        style = model.style([audio.spectrogram(samples, 2048, 640)])
        codes, phones = (mx.array(data[name].reshape(1, -1).astype(np.int32)) for name in ("codes", "phones"))
        made = np.array(model.decode(codes, phones, style))
    expected = data["audio"].reshape(1, -1)
    difference = float(np.abs(made - expected).max()) if made.shape == expected.shape else float("nan")
    yield Row("SoVITS, audio", device(), difference, LIMITS[backend()], "", clock.seconds)


def verify_cnhubert(weights: Path) -> Iterator[Row]:
    encoder, (samples, data) = MLXSpeechEncoder(weights, mx.float32), golden_recording()
    clock = Clock()
    with clock.running():
        features = np.array(encoder(samples)[0])
    made = features[data["frames"]]
    yield Row("CNHubert", device(), excess(made, data["features"]), LIMITS[backend()], "", clock.seconds)


def verify_roberta(weights: Path) -> Iterator[Row]:
    encoder, data, clock = MLXCharacterEncoder(weights, mx.float32), load_outputs("roberta"), Clock()
    with clock.running():
        features = np.array(encoder.model(mx.array(data["input_ids"].astype(np.int32)))[0])
    yield Row("RoBERTa", device(), excess(features, data["features"]), LIMITS[backend()], "", clock.seconds)


def golden_recording() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The recording that CNHubert's numbers belong to, its silence behind it, and these numbers."""
    data = load_outputs("cnhubert")
    spoken = data["pcm16k"].astype(np.float32) / 32768
    return np.concatenate([spoken, np.zeros(APPENDED_SILENCE, np.float32)]), data


def golden_gpt(dtype: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Configuration and tensors of the golden v2 GPT, as conversion to "float32" or "float16" makes them."""
    tensors, config = _tensors("gpt_v2")
    tensors = without_prefix(tensors, "model.")
    settings = gpt_config(tensors, Settings(config, SOURCE), SOURCE)
    return settings, gather(tensors, expected_tensors(TextToSemantic, settings, tensors, SOURCE), SOURCE, dtype)


def golden_sovits(dtype: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Configuration and tensors of the golden v2 SoVITS, as conversion to "float32" or "float16" makes them."""
    tensors, config = _tensors("sovits_v2")
    settings = sovits_config("v2", Settings(config, SOURCE), tensors)
    return settings, gather(tensors, expected_tensors(SoVITS, settings, tensors, SOURCE, is_unused), SOURCE, dtype)


def write_encoder(name: str, folder: Path) -> Path:
    """Make an encoder's golden weights and convert them: → `folder`/<name>.safetensors."""
    model = {"cnhubert": "hubert", "roberta": "roberta"}[name]
    source = folder / model
    source.mkdir(parents=True)
    manifest = load_manifest(DATA / "manifests" / f"{model}.json")
    save_file(dict(state(manifest, SEEDS[model])), source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(manifest["config"]), encoding="utf-8")
    if name == "cnhubert":
        return convert_cnhubert(source, folder / "cnhubert.safetensors").weights
    vocabulary = "\n".join(placeholder_vocabulary(manifest["config"]["vocab_size"])) + "\n"
    (source / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    return convert_roberta(source, folder / "roberta.safetensors").weights


def _tensors(model: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    manifest = load_manifest(DATA / "manifests" / f"{model}.json")
    return {name: Array(values) for name, values in state(manifest, SEEDS[model])}, manifest["config"]


def _model(kind: type[M], config: dict[str, Any], arrays: dict[str, np.ndarray]) -> M:
    model = model_of(kind, config, {name: mx.array(values) for name, values in arrays.items()}, str(SOURCE))
    prepare_to_speak(model, mx.float32)
    return model


def excess(made: np.ndarray, stored: np.ndarray) -> float:
    """Largest difference beyond the rounding of what is stored as float16; no number where one is none."""
    if made.shape != stored.shape:
        return float("nan")
    rounding = np.spacing(np.abs(stored)).astype(np.float32) / 2
    # unlike Python's max, NumPy's keeps what is no number
    return float(np.maximum(0.0, (np.abs(made - stored.astype(np.float32)) - rounding).max()))
