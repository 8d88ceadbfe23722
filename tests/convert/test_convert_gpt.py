"""The GPT's conversion: official files of either format, strict names and shapes, all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_models import State, gpt_parts, sovits_state, write_gpt, write_sovits

import random_weights
from gpt_sovits_mlx.convert import convert_gpt
from gpt_sovits_mlx.errors import WeightsError


@pytest.mark.parametrize("zipped", [True, False])
def test_every_tensor_is_kept(tmp_path: Path, zipped: bool):
    state, config = gpt_parts()
    source = write_gpt(tmp_path / "x.ckpt", state, config, _use_new_zipfile_serialization=zipped)
    done = convert_gpt(source, tmp_path / "new" / "gpt.safetensors")
    tensors = load_file(done.weights)
    assert tensors.keys() == {name.removeprefix("model.") for name in state}
    for name, value in state.items():
        stored = tensors[name.removeprefix("model.")]
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored, value.numpy())
    assert json.loads(done.config_path.read_text()) == done.config
    assert done.config_path == tmp_path / "new" / "gpt_config.json"
    assert done.config == {
        "hidden_dim": 64,
        "n_layer": 3,
        "head": 4,
        "vocab_size": 33,
        "phoneme_vocab_size": 732,
        "EOS": 32,
        "linear_units": 256,
        "bert_dim": 1024,
        "max_sec": 54,
        "dtype": "float16",
        "quantization": None,
    }
    assert done.parameters == sum(v.numel() for v in state.values())


@pytest.mark.parametrize("model", ["gpt_v2"])
def test_real_size(tmp_path: Path, model: str):
    random_weights.write(model, tmp_path / "x.ckpt", 1)
    done = convert_gpt(tmp_path / "x.ckpt", tmp_path / "gpt.safetensors")
    assert done.parameters == 77_606_402
    assert done.config["n_layer"] == 24 and done.config["phoneme_vocab_size"] == 732
    tensors = load_file(done.weights)
    manifest = random_weights.load_manifest(model)
    assert len(tensors) == len(manifest["tensors"])
    for name, shape, rule in manifest["tensors"][::40]:
        expected = random_weights.tensor(name, shape, rule, 1)
        np.testing.assert_array_equal(tensors[name.removeprefix("model.")], expected)


def test_dtypes(tmp_path: Path):
    state, config = gpt_parts()
    wide = write_gpt(tmp_path / "wide.ckpt", {n: v.double() for n, v in state.items()}, config)
    assert convert_gpt(wide, tmp_path / "a.safetensors").config["dtype"] == "float32"
    narrow = convert_gpt(wide, tmp_path / "b.safetensors", dtype="float16")
    assert narrow.config["dtype"] == "float16"
    assert {t.dtype for t in load_file(narrow.weights).values()} == {np.dtype(np.float16)}
    half = write_gpt(tmp_path / "half.ckpt", {n: v.bfloat16() for n, v in state.items()}, config)
    tensors = load_file(convert_gpt(half, tmp_path / "c.safetensors").weights)
    for name, value in state.items():
        np.testing.assert_array_equal(tensors[name.removeprefix("model.")], value.bfloat16().float().numpy())


def test_training_state_of_lightning(tmp_path: Path):
    state, config = gpt_parts()
    hyper = {"config": config, "output_dir": tmp_path / "logs", "is_train": True}
    data = {
        "epoch": 14,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"step": 3, "delta": torch.ones(2)}}, "param_groups": []}],
        "hyper_parameters": hyper,
    }
    torch.save(data, tmp_path / "epoch=14-step=100.ckpt")
    done = convert_gpt(tmp_path / "epoch=14-step=100.ckpt", tmp_path / "gpt.safetensors")
    assert done.parameters == sum(v.numel() for v in state.values())


def change(state: State, config: dict[str, Any], what: str) -> str:
    """Spoil a checkpoint; returns what the refusal must name."""
    layer = "model.h.layers.1.norm1.weight"
    if what == "missing":
        del state[layer]
        return "h.layers.1.norm1.weight"
    if what == "missing embedding":
        del state["model.bert_proj.weight"]
        return "bert_proj.weight"
    if what == "unknown":
        state["model.h.layers.1.extra"] = torch.ones(1)
        return "h.layers.1.extra"
    if what == "misshapen":
        state[layer] = torch.ones(63)
        return "h.layers.1.norm1.weight has shape 63, expected 64"
    if what == "of another rank":
        state["model.ar_predict_layer.weight"] = torch.ones(33)
        return "ar_predict_layer.weight has 1 axes"
    if what == "integers":
        state[layer] = torch.ones(64, dtype=torch.int64)
        return "norm1.weight is int64"
    if what == "not finite":
        state[layer] = torch.full((64,), float("nan"))
        return "norm1.weight holds values that are not finite"
    if what == "layers stated":
        config["model"]["n_layer"] = 4
        return "n_layer 4"
    if what == "EOS":
        config["model"]["EOS"] = 31
        return "EOS 31"
    if what == "heads":
        config["model"]["head"] = 5
        return "5 heads"
    if what == "text for a number":
        config["model"]["head"] = "4"
        return "'head' is '4'"
    assert what == "no section"
    del config["data"]
    return "no section 'data'"


SPOILED = ["missing", "missing embedding", "unknown", "misshapen", "of another rank", "integers", "not finite"]
SPOILED += ["layers stated", "EOS", "heads", "text for a number", "no section"]


@pytest.mark.parametrize("what", SPOILED)
def test_spoiled_file_leaves_nothing(tmp_path: Path, what: str):
    state, config = gpt_parts()
    named = change(state, config, what)
    source = write_gpt(tmp_path / "x.ckpt", state, config)
    output = tmp_path / "out" / "gpt.safetensors"
    with pytest.raises(WeightsError) as refused:
        convert_gpt(source, output)
    assert named in str(refused.value)
    assert str(source) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not output.parent.exists()


def test_other_models_are_named(tmp_path: Path):
    sovits = write_sovits(tmp_path / "s.pth", sovits_state())
    with pytest.raises(WeightsError, match="is not a GPT file: it is a SoVITS file"):
        convert_gpt(sovits, tmp_path / "gpt.safetensors")
    torch.save({"fc.weight": torch.ones(2, 2)}, tmp_path / "other.ckpt")
    with pytest.raises(WeightsError, match="of none of the models"):
        convert_gpt(tmp_path / "other.ckpt", tmp_path / "gpt.safetensors")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(WeightsError, match="holds a list"):
        convert_gpt(tmp_path / "list.ckpt", tmp_path / "gpt.safetensors")
    state, _ = gpt_parts()
    torch.save({"state_dict": state}, tmp_path / "bare.ckpt")
    with pytest.raises(WeightsError, match="holds no configuration"):
        convert_gpt(tmp_path / "bare.ckpt", tmp_path / "gpt.safetensors")


def test_too_large_for_float16(tmp_path: Path):
    state, config = gpt_parts()
    state["model.bert_proj.bias"] = torch.full((64,), 1e6)
    source = write_gpt(tmp_path / "x.ckpt", state, config)
    with pytest.raises(WeightsError, match=r"bert_proj.bias does not fit in float16"):
        convert_gpt(source, tmp_path / "gpt.safetensors", dtype="float16")
    convert_gpt(source, tmp_path / "gpt.safetensors")


def test_outputs_that_cannot_be_meant(tmp_path: Path):
    state, config = gpt_parts()
    source = write_gpt(tmp_path / "x.safetensors", state, config)
    with pytest.raises(WeightsError, match=r"must end in .safetensors"):
        convert_gpt(source, tmp_path / "gpt.bin")
    with pytest.raises(WeightsError, match="is the input"):
        convert_gpt(source, source)
    with pytest.raises(WeightsError, match="dtype 'int8' is unknown"):
        convert_gpt(source, tmp_path / "gpt.safetensors", dtype="int8")
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="cannot write"):
        convert_gpt(write_gpt(tmp_path / "x.ckpt", state, config), tmp_path / "file" / "gpt.safetensors")


def test_weights_and_config_come_together_or_not_at_all(tmp_path: Path):
    state, config = gpt_parts()
    source = write_gpt(tmp_path / "x.ckpt", state, config)
    output = tmp_path / "out" / "gpt.safetensors"
    (output.parent / "gpt_config.json" / "in the way").mkdir(parents=True)
    with pytest.raises(WeightsError, match="cannot write"):
        convert_gpt(source, output)
    assert [path.name for path in output.parent.iterdir()] == ["gpt_config.json"]
