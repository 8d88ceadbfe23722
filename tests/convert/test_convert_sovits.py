"""SoVITS's conversion: versions told apart, weight norm folded as PyTorch folds it, strict names and shapes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_models import (
    SOVITS_CONFIG,
    SOVITS_MODEL,
    gpt_parts,
    is_normed,
    sovits_sizes,
    sovits_state,
    torch_fold,
    torch_folded,
    write_gpt,
    write_sovits,
)

import random_weights
from gpt_sovits_mlx.convert import convert_sovits
from gpt_sovits_mlx.convert.tensors import fold_weight_norm
from gpt_sovits_mlx.errors import WeightsError
from gpt_sovits_mlx.models.model import shapes_of
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.models.sovits.synthesizer import CODEBOOK, TENSOR_SIZES


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_small_model(tmp_path: Path, version: str):
    state = sovits_state(version)
    source = write_sovits(tmp_path / "x.pth", state)
    done = convert_sovits(source, tmp_path / "sovits.safetensors")
    tensors = load_file(done.weights)
    folded = {n: v for n, v in torch_folded(state) if not n.startswith("enc_q") and not n.endswith("inited")}
    assert tensors.keys() == folded.keys()
    for name, value in folded.items():
        # what was folded stays exact in float32, everything else is stored as it came
        assert tensors[name].dtype == (np.float32 if is_normed(name) else np.float16), name
        np.testing.assert_allclose(tensors[name], value, rtol=2e-6, err_msg=name)
    assert json.loads((tmp_path / "sovits_config.json").read_text()) == done.config
    assert done.config == {
        "version": version,
        "symbols": version,
        "dtype": "float16",
        "quantization": None,
        "data": SOVITS_CONFIG["data"],
        "model": sovits_sizes(version),
    }
    assert set(done.unused) == {"enc_q.pre.weight", "quantizer.vq.layers.0._codebook.inited"}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_names_and_shapes_are_those_of_the_official_models(version: str):
    manifest = random_weights.load_manifest(f"sovits_{version}")
    official: dict[str, tuple[int, ...]] = {}
    for name, shape, _ in manifest["tensors"]:
        if not name.endswith(("weight_g", "inited", "cluster_size", "embed_avg")):
            official[name.replace("weight_v", "weight")] = tuple(shape)
    sizes = manifest["config"]["model"] | {
        name: size
        for name, size in sovits_sizes(version, ssl=768, codes=1024, style=128).items()
        if name in TENSOR_SIZES
    }
    config = {"version": version, "symbols": version, "data": SOVITS_CONFIG["data"], "model": sizes}
    assert shapes_of(SoVITS, config) == official


def test_real_size(tmp_path: Path):
    random_weights.write("sovits_v2", tmp_path / "x.pth", 3)
    done = convert_sovits(tmp_path / "x.pth", tmp_path / "sovits.safetensors", dtype="float16")
    assert done.config["version"] == "v2"
    assert done.weights.stat().st_size < 2 * done.parameters + 100_000
    tensors = load_file(done.weights)
    manifest = random_weights.load_manifest("sovits_v2")
    rules = {name: (shape, rule) for name, shape, rule in manifest["tensors"]}

    def values(name: str) -> np.ndarray:
        return random_weights.tensor(name, *rules[name], 3)

    np.testing.assert_array_equal(tensors["enc_p.proj.weight"], values("enc_p.proj.weight"))
    for stem in ("dec.ups.0", "flow.flows.4.enc.cond_layer"):
        g, v = (torch.from_numpy(values(f"{stem}.weight_{part}")).float() for part in "gv")
        expected = torch_fold(g, v, 0).half().numpy()
        np.testing.assert_allclose(tensors[f"{stem}.weight"], expected, rtol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_folding_is_that_of_torch(axis: int):
    v = torch.randn(5, 7, 4)
    g = torch.rand([n if a == axis else 1 for a, n in enumerate(v.shape)]) + 0.5
    folded = fold_weight_norm(g.numpy(), v.numpy(), axis)
    assert folded.dtype == np.float32
    np.testing.assert_allclose(folded, torch_fold(g, v, axis).numpy(), rtol=1e-6)


def test_parametrized_names_fold_alike(tmp_path: Path):
    state = sovits_state()
    new = {
        n.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): v
        for n, v in state.items()
    }
    old = convert_sovits(write_sovits(tmp_path / "old.pth", state), tmp_path / "old.safetensors")
    other = convert_sovits(write_sovits(tmp_path / "new.pth", new), tmp_path / "new.safetensors")
    assert old.sha256 == other.sha256


def test_config_as_a_plain_dict(tmp_path: Path):
    torch.save({"weight": sovits_state(), "config": SOVITS_CONFIG}, tmp_path / "x.pth")
    assert convert_sovits(tmp_path / "x.pth", tmp_path / "s.safetensors").config["version"] == "v2"


def without(state: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return {n: v for n, v in state.items() if not n.startswith(names)}


def versioned(version: str) -> dict[str, Any]:
    return {**SOVITS_CONFIG, "model": {**SOVITS_MODEL, "version": version}}


UNSUPPORTED: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any], str, str]] = {
    "v2Pro": ({"sv_emb.weight": torch.ones(4, 4), "dec.conv_pre.weight": torch.ones(512, 1, 7)}, {}, "05", "v2Pro"),
    "v2ProPlus": (
        {"sv_emb.weight": torch.ones(4, 4), "dec.conv_pre.weight": torch.ones(768, 1, 7)},
        {},
        "06",
        "v2ProPlus",
    ),
    "v2ProPlus without its marker": (
        {"sv_emb.weight": torch.ones(4, 4), "dec.conv_pre.weight": torch.ones(768, 1, 7)},
        {},
        "",
        "v2ProPlus",
    ),
    "v3": ({"cfm.estimator.x": torch.ones(1)}, versioned("v3"), "", "v3"),
    "v4": ({"cfm.estimator.x": torch.ones(1)}, versioned("v4"), "", "v4"),
    "v3 or v4": ({"cfm.estimator.x": torch.ones(1)}, {}, "", "v3 or v4"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_versions_are_named(tmp_path: Path, case: str):
    extra, config, marker, version = UNSUPPORTED[case]
    source = write_sovits(tmp_path / "x.pth", sovits_state() | extra, config or SOVITS_CONFIG, marker)
    with pytest.raises(WeightsError, match=f"is a SoVITS {version} model, which is not supported yet"):
        convert_sovits(source, tmp_path / "s.safetensors")
    assert not (tmp_path / "s.safetensors").exists()


@pytest.mark.parametrize(("marker", "version"), [("03", "v3 LoRA"), ("04", "v4 LoRA"), ("", "v3 or v4 LoRA")])
def test_lora_is_named(tmp_path: Path, marker: str, version: str):
    state = {"cfm.estimator.to_q.lora_A.default.weight": torch.ones(2, 2)}
    source = write_sovits(tmp_path / "x.pth", state, SOVITS_CONFIG, marker)
    with pytest.raises(WeightsError, match=f"is a SoVITS {version} model"):
        convert_sovits(source, tmp_path / "s.safetensors")


def test_v2_with_its_old_marker(tmp_path: Path):
    source = write_sovits(tmp_path / "x.pth", sovits_state(), marker="01")
    assert convert_sovits(source, tmp_path / "s.safetensors").config["version"] == "v2"


def test_spoiled_tensors_are_named(tmp_path: Path):
    state = sovits_state()
    cases = {
        "dec.ups.0.weight is missing": without(state, "dec.ups.0.weight_g"),
        "ssl_proj.bias is missing": without(state, "ssl_proj.bias"),
        "unknown tensor dec.ups.9.weight": state | {"dec.ups.9.weight": torch.ones(1)},
        "dec.ups.0.weight_g has shape 8×1×1, expected 16×1×1": state | {"dec.ups.0.weight_g": torch.ones(8, 1, 1)},
        "ref_enc.spectral.0.fc.weight takes 1025 bins": state | {"ref_enc.spectral.0.fc.weight": torch.ones(4, 1025)},
        "it knows 700 phonemes": state | {"enc_p.text_embedding.weight": torch.ones(700, 12)},
        f"{CODEBOOK} is missing": without(state, CODEBOOK),
    }
    for i, (named, spoiled) in enumerate(cases.items()):
        source = write_sovits(tmp_path / f"{i}.pth", spoiled)
        with pytest.raises(WeightsError) as refused:
            convert_sovits(source, tmp_path / "out" / "s.safetensors")
        assert named in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("section", "name", "value", "named"),
    [
        ("model", "n_heads", None, "'n_heads' is missing"),
        ("model", "resblock", "2", "'resblock' is '2', expected '1'"),
        ("model", "upsample_rates", [10, 32], "does not make v2's frames"),
        ("model", "upsample_kernel_sizes", [16], "differ"),
        ("model", "hidden_channels", 14, "expected"),
        ("data", "hop_length", "640", "'hop_length' is '640'"),
    ],
)
def test_spoiled_config_is_named(tmp_path: Path, section: str, name: str, value: Any, named: str):
    config = copy.deepcopy(SOVITS_CONFIG)
    config[section][name] = value
    if value is None:
        del config[section][name]
    source = write_sovits(tmp_path / "x.pth", sovits_state(), config)
    with pytest.raises(WeightsError) as refused:
        convert_sovits(source, tmp_path / "s.safetensors")
    assert named in str(refused.value)


def test_a_gpt_file_is_named(tmp_path: Path):
    source = write_gpt(tmp_path / "x.ckpt", *gpt_parts())
    with pytest.raises(WeightsError, match="is not a SoVITS file: it is a GPT file"):
        convert_sovits(source, tmp_path / "s.safetensors")
