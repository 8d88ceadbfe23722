"""Quantized weights: what is stored, that both ways to multiply by them agree, and how far the models move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpt_sovits_mlx import GPTSoVITSEngine
from gpt_sovits_mlx.convert import Quantization, convert_gpt
from gpt_sovits_mlx.decoding.state import DecodeState, prefill
from gpt_sovits_mlx.errors import WeightsError
from gpt_sovits_mlx.layers import linear
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.voices.library import shipped_voices
from gpt_sovits_mlx.weights import load_model, quantize
from small_voice import make_model_folder

SENTENCES = Path(__file__).parent.parent / "scripts" / "demo_voice_sentences" / "english.txt"
WIDTHS = {"in": 128, "out": 48}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_all_products_are_that_of_what_the_numbers_stand_for(bits, group_size, monkeypatch):
    """Packed weights as Metal and CUDA multiply by them, unpacked ones as a CPU does; one row, a batch, a prefill."""
    random, model = np.random.default_rng(bits), nn.Module()
    weight = random.standard_normal((WIDTHS["out"], WIDTHS["in"])).astype(np.float32)
    bias = random.standard_normal(WIDTHS["out"]).astype(np.float32)
    whole = nn.Linear(WIDTHS["in"], WIDTHS["out"])
    whole.weight, whole.bias = mx.array(weight), mx.array(bias)
    groups = weight.reshape(WIDTHS["out"], -1, group_size)
    steps = np.repeat(np.ptp(groups, axis=-1) / (2**bits - 1), group_size, axis=-1)
    forms: dict[str, Any] = {}
    for name in ("cpu", "metal", "cuda"):
        monkeypatch.setattr(linear, "backend", lambda name=name: name)
        model.layer = whole.to_quantized(group_size, bits)
        linear.for_backend(model)
        forms[name] = model.layer
    assert [type(form) for form in forms.values()] == [nn.Linear, nn.QuantizedLinear, linear.UnpackedLinear]
    stood_for = np.array(forms["cpu"].weight)
    assert (np.abs(stood_for - weight) <= 1.01 * steps).all()
    if backend() == "cuda":  # which lacks what Metal does
        del forms["metal"]
    for lead in ((1, 1), (8, 1), (1, 125), (3, 60)):
        x = random.standard_normal((*lead, WIDTHS["in"])).astype(np.float32)
        expected = x.astype(np.float64) @ stood_for.T.astype(np.float64) + bias
        for form in forms.values():
            y = form(mx.array(x))
            assert y.dtype == mx.float32 and y.shape == expected.shape
            assert np.abs(np.array(y) - expected).max() < 2e-6 * np.abs(expected).max()
    assert {linear.width_of(form) for form in forms.values()} == {weight.shape}


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.02), (4, 0.3)])
def test_a_checkpoint_converted_to_fewer_bits(bits, limit, checkpoint, golden, tmp_path, monkeypatch):
    """Random weights, the reference's logits: the difference as a share of their standard deviation."""
    source = checkpoint("gpt_tiny", 1)
    plain = convert_gpt(source, tmp_path / "plain.safetensors")
    done = convert_gpt(source, tmp_path / "gpt.safetensors", quantization=Quantization(bits))
    assert done.config == {**plain.config, "quantization": {"bits": bits, "group_size": 64}}
    assert json.loads(done.config_path.read_text()) == done.config
    assert done.parameters == plain.parameters
    before, after = load_file(plain.weights), load_file(done.weights)
    packed = {name for name, value in after.items() if value.dtype == np.uint32}
    whole = ("ar_text_embedding", "ar_audio_embedding", "ar_predict_layer")
    assert packed == {n for n, value in before.items() if value.ndim == 2 and not n.startswith(whole)}
    for name in before.keys() - packed:
        np.testing.assert_array_equal(after[name], before[name])
    again = convert_gpt(plain.weights, tmp_path / "again.safetensors", quantization=Quantization(bits))
    assert again.sha256 == done.sha256
    with pytest.raises(WeightsError, match="is quantized, which cannot be undone"):
        convert_gpt(done.weights, tmp_path / "more.safetensors")

    data = golden("gpt_tiny_greedy_0")
    bert = mx.array(data["bert"].astype(np.float32)).swapaxes(1, 2)
    prompt = mx.array(data["prompt"].astype(np.int32).reshape(1, -1))
    phones = mx.array(data["phones"].astype(np.int32))
    unpacked = np.array(prefill(load_model(TextToSemantic, done.weights), phones, bert, prompt)[0])
    expected = data["step0_logits"]
    moved = np.sqrt(np.square(unpacked - expected).mean()) / expected.std()
    print(f"{bits} bits: logits move by {100 * moved:.2f} % of their standard deviation")
    assert 1e-4 < moved < limit
    if backend() != "cuda":  # which unpacks, too, and lacks what Metal does
        monkeypatch.setattr(linear, "backend", lambda: "metal")
        packed = np.array(prefill(load_model(TextToSemantic, done.weights), phones, bert, prompt)[0])
        assert np.abs(packed - unpacked).max() < 1e-4


def spoil(tensors: dict[str, np.ndarray], config: dict[str, Any], what: str) -> str:
    """Damage a quantized model; returns what the refusal must name."""
    name = "h.layers.1.linear1."
    if what == "a configuration without":
        config["quantization"] = None
        return "is quantized, its configuration says otherwise"
    if what == "whole tensors":
        for left in [n for n in tensors if n.endswith(("scales", "biases"))]:
            del tensors[left]
        return "is not quantized, its configuration says otherwise"
    if what == "other bits":
        config["quantization"]["bits"] = 4
        return "weight has shape"
    if what == "unknown":
        config["quantization"] = {"bits": 3, "group_size": 64}
        return "is unknown: convert the weights again"
    if what == "another scheme":
        config["quantization"] |= {"mode": "mxfp4"}
        return "is unknown: convert the weights again"
    if what == "no biases":
        del tensors[name + "biases"]
        return name + "biases is missing"
    assert what == "numbers unpacked"
    tensors[name + "weight"] = tensors[name + "weight"].astype(np.float32)
    return name + "weight is not packed"


DAMAGE = (
    "a configuration without",
    "whole tensors",
    "other bits",
    "unknown",
    "another scheme",
    "no biases",
    "numbers unpacked",
)


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(what, checkpoint, tmp_path):
    path = convert_gpt(checkpoint("gpt_tiny", 1), tmp_path / "gpt.safetensors", None, False, Quantization(8)).weights
    tensors, config_path = load_file(path), path.with_name("gpt_config.json")
    config = json.loads(config_path.read_text())
    named = spoil(tensors, config, what)
    save_file(tensors, path)
    config_path.write_text(json.dumps(config))
    with pytest.raises(WeightsError) as refused:
        load_model(TextToSemantic, path)
    assert named in str(refused.value) and "\n" not in str(refused.value)


def test_configurations_of_before_are_read(checkpoint, tmp_path):
    path = convert_gpt(checkpoint("gpt_tiny", 1), tmp_path / "gpt.safetensors").weights
    config_path = path.with_name("gpt_config.json")
    config = json.loads(config_path.read_text())
    assert config.pop("quantization") is None
    config_path.write_text(json.dumps(config))
    assert load_model(TextToSemantic, path).h.layers


def test_what_cannot_be_quantized_is_refused(tmp_path):
    wrong = {"bits 3": (3, 64), "group size 48": (8, 48)}
    for named, (bits, size) in wrong.items():
        with pytest.raises(WeightsError, match=f"quantization: {named} is unknown: choose"):
            Quantization(bits, size)
    config = json.loads((make_model_folder(tmp_path) / "voices" / "small" / "gpt_config.json").read_text())
    odd = TextToSemantic.of_config({**config, "hidden_dim": 96, "bert_dim": 128}, {})
    named = r"groups of 64 do not divide the rows of h\.layers\.\d\.\S+weight, 96 wide: choose .* 32"
    with pytest.raises(WeightsError, match=named):
        quantize(odd, Quantization(8))
    path = tmp_path / "voices" / "small" / "gpt.safetensors"
    with pytest.raises(WeightsError, match="groups of 64 do not divide"):
        convert_gpt(path, tmp_path / "out" / "gpt.safetensors", quantization=Quantization(8))
    assert not (tmp_path / "out").exists()


def test_a_voice_with_a_quantized_gpt_speaks(tmp_path):
    folder = make_model_folder(tmp_path / "plain", ("small",)) / "voices" / "small"
    quiet = make_model_folder(tmp_path / "quantized", ("small",)) / "voices" / "small"
    convert_gpt(folder / "gpt.safetensors", quiet / "gpt.safetensors", quantization=Quantization(8, 32))
    audio = [
        GPTSoVITSEngine(p).synthesize("今天天气很好。", voice="small", seed=1)
        for p in (folder.parents[1], quiet.parents[1])
    ]
    assert audio[0].sentences[0].tokens == audio[1].sentences[0].tokens == 30
    assert np.abs(audio[1].audio).max() > 0


def test_the_demo_voice_chooses_the_same_tokens(tmp_path):
    """Teacher-forced with the whole model's own tokens: how often the quantized models' likeliest is the same."""
    voice = GPTSoVITSEngine(tmp_path).load_voice("demo")
    gpt = shipped_voices() / "demo" / "gpt.safetensors"
    models = [voice.gpt]
    for bits in (8, 4):
        done = convert_gpt(gpt, tmp_path / str(bits) / "gpt.safetensors", quantization=Quantization(bits))
        models.append(load_model(TextToSemantic, done.weights))
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[:10]
    rows = [[*voice.conditioning.phones, *voice.frontend.utterance(text, "en").phone_ids] for text in texts]
    lengths = [len(row) for row in rows]
    phones = mx.array([row + [0] * (max(lengths) - len(row)) for row in rows])
    prompt = mx.array([list(voice.conditioning.tokens)] * len(rows))
    made = [prefill(model, phones, None, prompt, lengths) for model in models]
    going, equal = np.ones(len(rows), bool), []
    while going.any():
        chosen = [mx.argmax(logits, axis=-1) for logits, _ in made]
        equal.append(np.array([np.array(other == chosen[0])[going] for other in chosen[1:]]))
        going &= np.array(chosen[0]) != voice.gpt.config.EOS
        made = [(step(model, chosen[0], state), state) for model, (_, state) in zip(models, made, strict=True)]
    tokens = np.concatenate(equal, axis=1)
    shares = tokens.mean(axis=1)
    print(f"of {tokens.shape[1]} tokens equal: 8 bits {shares[0]:.4f}, 4 bits {shares[1]:.4f}")
    assert shares[0] >= 0.98 and shares[1] >= 0.8


def step(model: TextToSemantic, tokens: mx.array, state: DecodeState) -> mx.array:
    positions = state.positions
    return model.step(tokens, positions, state.advance(), state.caches)
