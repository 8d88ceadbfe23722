"""CNHubert's and RoBERTa's conversion from Hugging Face folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from small_models import BERT_CONFIG, HUBERT_CONFIG, bert_state, hubert_state, torch_folded, values, write_folder

import random_weights
from gpt_sovits_mlx.convert import Quantization, convert_cnhubert, convert_encoders, convert_roberta
from gpt_sovits_mlx.convert.cnhubert import POSITIONS
from gpt_sovits_mlx.encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from gpt_sovits_mlx.errors import WeightsError
from gpt_sovits_mlx.layers import linear
from gpt_sovits_mlx.models.cnhubert import CNHubert
from gpt_sovits_mlx.models.model import shapes_of
from gpt_sovits_mlx.models.roberta import Roberta


def test_cnhubert(tmp_path: Path):
    state = hubert_state()
    folder = write_folder(tmp_path / "hubert", state, HUBERT_CONFIG)
    done = convert_cnhubert(folder, tmp_path / "cnhubert.safetensors")
    tensors = load_file(done.weights)
    folded = dict(torch_folded(state))
    assert tensors.keys() == folded.keys() - {"masked_spec_embed"}
    for name, tensor in tensors.items():
        np.testing.assert_allclose(tensor, folded[name], rtol=2e-6, err_msg=name)
    assert tensors[POSITIONS].dtype == np.float32
    assert done.unused == ("masked_spec_embed",)
    written = json.loads((tmp_path / "cnhubert_config.json").read_text())
    assert written == done.config
    assert HUBERT_CONFIG.items() <= written.items()
    assert written["do_stable_layer_norm"] is False and written["dtype"] == "float16"


@pytest.mark.parametrize("form", [(".original0", ".original1"), ("_g", "_v")])
@pytest.mark.parametrize("prefix", ["", "hubert."])
def test_cnhubert_in_other_dress(tmp_path: Path, form: tuple[str, str], prefix: str):
    plain = write_folder(tmp_path / "plain", hubert_state(), HUBERT_CONFIG)
    first = convert_cnhubert(plain, tmp_path / "a.safetensors")
    state = {prefix + name: value for name, value in hubert_state(form=form).items()}
    dressed = write_folder(tmp_path / "dressed", state | {"lm_head.weight": torch.ones(2)}, HUBERT_CONFIG)
    assert convert_cnhubert(dressed, tmp_path / "b.safetensors").sha256 == first.sha256


@pytest.mark.parametrize("model", ["hubert"])
def test_cnhubert_names_and_shapes_are_official(model: str):
    manifest = random_weights.load_manifest(model)
    official = {
        name.replace("weight_v", "weight"): tuple(shape)
        for name, shape, _ in manifest["tensors"]
        if name != "masked_spec_embed" and not name.endswith("weight_g")
    }
    assert shapes_of(CNHubert, manifest["config"]) == official


def test_safetensors_and_single_files_are_read_alike(tmp_path: Path):
    state = hubert_state()
    folder = write_folder(tmp_path / "hubert", state, HUBERT_CONFIG)
    first = convert_cnhubert(folder / "pytorch_model.bin", tmp_path / "a.safetensors")
    (folder / "pytorch_model.bin").unlink()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    assert convert_cnhubert(folder, tmp_path / "b.safetensors").sha256 == first.sha256
    save_file({name: value.bfloat16() for name, value in state.items()}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="BF16"):
        convert_cnhubert(folder, tmp_path / "c.safetensors")
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        convert_cnhubert(folder, tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"do_stable_layer_norm": True}, "'do_stable_layer_norm' is 'True'"),
        ({"feat_extract_norm": "layer"}, "'feat_extract_norm' is 'layer'"),
        ({"model_type": "wav2vec2"}, "'model_type' is 'wav2vec2'"),
        ({"num_hidden_layers": 3}, "2 layers are not those of"),
        ({"num_attention_heads": 3}, "3 heads"),
        ({"conv_kernel": [10, 5]}, "conv_layers.1.conv.weight has shape 6×6×3, expected 6×6×5"),
        ({"num_conv_pos_embeddings": 8}, "expected 1×1×8"),
    ],
)
def test_cnhubert_of_another_build(tmp_path: Path, change: dict[str, Any], named: str):
    folder = write_folder(tmp_path / "hubert", hubert_state(), HUBERT_CONFIG | change)
    with pytest.raises(WeightsError) as refused:
        convert_cnhubert(folder, tmp_path / "out" / "x.safetensors")
    assert named in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_missing_files_are_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"neither model.safetensors nor pytorch_model.bin"):
        convert_cnhubert(tmp_path / "empty", tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="there is no file or folder"):
        convert_cnhubert(tmp_path / "absent", tmp_path / "x.safetensors")
    folder = write_folder(tmp_path / "bert", bert_state(), BERT_CONFIG)
    (folder / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match=r"neither vocab.txt nor tokenizer.json"):
        convert_roberta(folder, tmp_path / "x.safetensors")
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config.json is not JSON"):
        convert_roberta(folder, tmp_path / "x.safetensors")
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"cannot read .*config.json"):
        convert_roberta(folder, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="holds no folder chinese-hubert-base"):
        convert_encoders(tmp_path, tmp_path / "models")


def test_roberta(tmp_path: Path):
    state = bert_state()
    folder = write_folder(tmp_path / "bert", state, BERT_CONFIG)
    done = convert_roberta(folder, tmp_path / "roberta.safetensors")
    tensors = load_file(done.weights)
    assert tensors.keys() == shapes_of(Roberta, {**BERT_CONFIG, "feature_layer": 2}).keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, state[name].numpy())
    assert set(done.unused) == state.keys() - tensors.keys()
    assert {name.split(".")[3] for name in done.unused if ".layer." in name} == {"2", "3"}
    written = json.loads((tmp_path / "roberta_config.json").read_text())
    assert BERT_CONFIG.items() <= written.items()
    assert written["feature_layer"] == 2
    assert (tmp_path / "roberta_vocab.txt").read_text() == (folder / "vocab.txt").read_text()


def test_roberta_names_and_shapes_are_official():
    manifest = random_weights.load_manifest("roberta")
    official = {name: tuple(shape) for name, shape, _ in manifest["tensors"] if not name.startswith("cls.")}
    assert shapes_of(Roberta, {**manifest["config"], "feature_layer": 24}) == official


def test_roberta_in_other_dress(tmp_path: Path):
    folder = write_folder(tmp_path / "bert", bert_state(), BERT_CONFIG)
    first = convert_roberta(folder, tmp_path / "a.safetensors")
    bare = {
        name.removeprefix("bert.").replace("LayerNorm.weight", "LayerNorm.gamma"): value
        for name, value in bert_state().items()
        if not name.startswith("cls.")
    }
    folder = write_folder(tmp_path / "bare", bare, BERT_CONFIG)
    tokens = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").unlink()
    vocabulary = {token: i for i, token in reversed(list(enumerate(tokens)))}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": vocabulary}}))
    second = convert_roberta(folder, tmp_path / "b.safetensors")
    assert second.sha256 == first.sha256
    assert (tmp_path / "a_vocab.txt").read_text() == (tmp_path / "b_vocab.txt").read_text()


@pytest.mark.parametrize("bits", [8, 4])
def test_fewer_bits(tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch):
    """Features of encoders with quantized matrices point where those of the whole ones do."""
    wide = {"hidden_size": 64, "intermediate_size": 96, "conv_dim": [32, 32]}
    hubert, bert = HUBERT_CONFIG | wide, BERT_CONFIG | wide
    states = {
        "cnhubert": values(shapes_of(CNHubert, hubert)),
        "roberta": values(shapes_of(Roberta, {**bert, "feature_layer": 4})),
    }
    inputs = {"cnhubert": np.sin(np.arange(4000)), "roberta": "一二三"}
    makers = {"cnhubert": (convert_cnhubert, MLXSpeechEncoder), "roberta": (convert_roberta, MLXCharacterEncoder)}
    for name, config in (("cnhubert", hubert), ("roberta", bert)):
        convert, encoder = makers[name]
        state = {n: value / 8 if value.ndim > 1 else value for n, value in states[name].items()}
        folder = write_folder(tmp_path / str(bits) / name, state, config)
        plain = convert(folder, tmp_path / f"{name}.safetensors")
        done = convert(folder, tmp_path / "few" / f"{name}.safetensors", quantization=Quantization(bits, 32))
        assert done.config["quantization"] == {"bits": bits, "group_size": 32}
        assert done.parameters == plain.parameters and done.sha256 != plain.sha256
        expected, made = (np.array(encoder(c.weights)(inputs[name])).ravel() for c in (plain, done))
        cosine = made @ expected / np.linalg.norm(made) / np.linalg.norm(expected)
        print(f"{name}, {bits} bits: cosine {cosine:.5f}")
        assert {8: 0.9995, 4: 0.95}[bits] < cosine < 1
        with monkeypatch.context() as patch:
            patch.setattr(linear, "backend", lambda: "metal")
            assert np.abs(np.array(encoder(done.weights)(inputs[name])).ravel() - made).max() < 1e-4


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("vocab.txt", "[PAD]\n[UNK]\n", "has 2 tokens, the model has 120"),
        ("vocab.txt", "\n".join(f"token {i}" for i in range(120)), "belongs to another model"),
        ("tokenizer.json", "{}", "holds no vocabulary"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0, "b": 2}}}', "holds no vocabulary"),
    ],
)
def test_vocabulary_that_does_not_fit(tmp_path: Path, file: str, content: str, named: str):
    folder = write_folder(tmp_path / "bert", bert_state(), BERT_CONFIG)
    (folder / "vocab.txt").unlink()
    (folder / file).write_text(content)
    with pytest.raises(WeightsError) as refused:
        convert_roberta(folder, tmp_path / "out" / "x.safetensors")
    assert named in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_roberta_strictness(tmp_path: Path):
    cases: dict[str, dict[str, torch.Tensor]] = {
        "unknown tensor bert.encoder.layer.1.adapter": {"bert.encoder.layer.1.adapter": torch.ones(1)},
        "intermediate.dense.bias has shape 3, expected 12": {
            "bert.encoder.layer.1.intermediate.dense.bias": torch.ones(3)
        },
        "cls.predictions.decoder.weight differs": {"cls.predictions.decoder.weight": torch.ones(120, 8)},
    }
    for i, (named, change) in enumerate(cases.items()):
        folder = write_folder(tmp_path / str(i), bert_state() | change, BERT_CONFIG)
        with pytest.raises(WeightsError) as refused:
            convert_roberta(folder, tmp_path / "x.safetensors")
        assert named in str(refused.value)
    folder = write_folder(tmp_path / "hubert", hubert_state(), HUBERT_CONFIG)
    with pytest.raises(WeightsError, match="is not a RoBERTa file: it is a CNHubert file"):
        convert_roberta(folder, tmp_path / "x.safetensors")
