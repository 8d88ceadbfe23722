"""The two conversion scripts: what they write, and one line for what they cannot use."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from small_models import BERT_CONFIG, HUBERT_CONFIG, bert_state, environment, hubert_state, write_folder

from gpt_sovits_mlx.convert import convert_cnhubert, convert_roberta
from gpt_sovits_mlx.convert.coreml import convert_cnhubert_package, convert_roberta_package, package
from gpt_sovits_mlx.encoders.coreml import embeddings_beside, read_metadata, read_spec
from gpt_sovits_mlx.errors import DependencyError, WeightsError

CONVERT = {"roberta": convert_roberta_package, "cnhubert": convert_cnhubert_package}
SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPTS / f"convert_{name}_coreml.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment())


def test_a_folder_becomes_a_package_and_its_tables(tmp_path):
    folder = write_folder(tmp_path / "bert", bert_state(), BERT_CONFIG)
    output = tmp_path / "models/encoders/roberta_ane.mlpackage"
    done = run("roberta", "--input", folder, "--output", output)
    assert done.returncode == 0, done.stderr
    assert f"wrote {output} (" in done.stdout
    # the progress bar, and nothing of coremltools'
    assert done.stderr.startswith("RoBERTa ") and "100%" in done.stderr and done.stderr.count("\n") == 1
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name, embeddings_beside(output).name]
    weights = convert_roberta(folder, tmp_path / "roberta.safetensors")
    metadata = read_metadata(output)
    assert metadata["weights_sha256"] == weights.sha256 and metadata["model"] == "roberta"
    assert "RoBERTa, the text encoder" in read_spec(output).description.metadata.shortDescription
    assert metadata["lengths"] == "20" and metadata["precision"] == "float16"
    assert {"torch", "coremltools", "numpy", "gpt-sovits-mlx"} <= metadata.keys()
    with safe_open(embeddings_beside(output), framework="np") as tables:
        assert tables.metadata()["weights_sha256"] == weights.sha256
        stored = load_file(weights.weights)
        np.testing.assert_array_equal(tables.get_tensor("words"), stored["bert.embeddings.word_embeddings.weight"])
        assert tables.get_tensor("positions").shape == (20, 8)
    # the weights converted before give the same, and replace what is there
    assert convert_roberta_package(weights.weights, output).sha256 == weights.sha256
    assert len([*output.parent.iterdir()]) == 2
    quantized = {**weights.config, "quantization": {"bits": 8, "group_size": 64}}
    weights.config_path.write_text(json.dumps(quantized))
    with pytest.raises(WeightsError, match=r"roberta.safetensors is quantized, which cannot be undone"):
        convert_roberta_package(weights.weights, output)


@pytest.mark.parametrize(
    ("name", "folder", "named"),
    [
        ("roberta", "hubert", "is not a RoBERTa file: it is a CNHubert file"),
        ("cnhubert", "bert", "is not a CNHubert file: it is a RoBERTa file"),
        ("cnhubert", "absent", "there is no file or folder"),
        ("cnhubert", "empty", "neither model.safetensors nor pytorch_model.bin"),
        ("cnhubert", "hubert", "cannot be made into a Core ML package"),
    ],
)
def test_what_is_not_the_model_is_refused_in_a_line(tmp_path, name, folder, named):
    write_folder(tmp_path / "bert", bert_state(), BERT_CONFIG)
    write_folder(tmp_path / "hubert", hubert_state(), HUBERT_CONFIG)
    (tmp_path / "empty").mkdir()
    output = tmp_path / "out" / f"{name}_ane.mlpackage"
    done = run(name, "--input", tmp_path / folder, "--output", output)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1 and named in done.stderr
    assert not output.exists() and not [*tmp_path.glob("out/*")]


def test_an_output_that_cannot_be_meant_is_refused(tmp_path):
    folder = write_folder(tmp_path / "bert", bert_state(), BERT_CONFIG)
    with pytest.raises(WeightsError, match=r"must end in \.mlpackage"):
        convert_roberta_package(folder, tmp_path / "roberta.safetensors")
    file = tmp_path / "x.mlpackage"
    file.write_text("mine")
    with pytest.raises(WeightsError, match="is a file: choose another name"):
        convert_roberta_package(folder, file)
    with pytest.raises(WeightsError, match="cannot write"):
        convert_roberta_package(folder, file / "x.mlpackage")
    assert file.read_text() == "mine"


def test_damaged_weights_of_ones_own_are_refused(tmp_path):
    for name, convert, state, config in (
        ("roberta", convert_roberta, bert_state(), BERT_CONFIG),
        ("cnhubert", convert_cnhubert, hubert_state(), HUBERT_CONFIG),
    ):
        made = convert(write_folder(tmp_path / name, state, config), tmp_path / f"{name}.safetensors")
        settings = json.loads(made.config_path.read_text(encoding="utf-8"))
        for missing in ("layer_norm_eps", "num_attention_heads", "hidden_size"):
            damaged = {key: value for key, value in settings.items() if key != missing}
            made.config_path.write_text(json.dumps(damaged), encoding="utf-8")
            with pytest.raises(WeightsError, match=f"{missing}.* convert (it|the encoder) again"):
                CONVERT[name](made.weights, tmp_path / f"out/{name}_ane.mlpackage")
        made.config_path.write_text(json.dumps(settings), encoding="utf-8")
    (tmp_path / "roberta_vocab.txt").unlink()
    with pytest.raises(WeightsError, match=r"cannot read .*roberta_vocab\.txt .*: convert it again"):
        convert_roberta_package(tmp_path / "roberta.safetensors", tmp_path / "out/roberta_ane.mlpackage")
    assert not [*tmp_path.glob("out/*")]


@pytest.mark.parametrize(
    "failure",
    [
        OSError(28, "No space left on device"),
        shutil.Error([("a", "b", "No space left on device")]),
        RuntimeError("filesystem error: cannot copy: Input/output error [a] [b]"),
        RuntimeError("[MIL FileWriter]: Unknown error occurred while writing data to the file."),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, failure):
    output = tmp_path / "out/roberta_ane.mlpackage"
    folder = write_folder(tmp_path / "bert", bert_state(), BERT_CONFIG)
    convert_roberta_package(folder, output)
    before = {path: path.read_bytes() for path in output.parent.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(package, "save_multifunction", fail)
    with pytest.raises(WeightsError, match=r"^cannot write .*roberta_ane\.mlpackage: (No space left|the disk seems)"):
        convert_roberta_package(folder, output)
    assert {path: path.read_bytes() for path in output.parent.rglob("*") if path.is_file()} == before
    monkeypatch.setattr(package, "save_multifunction", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        convert_roberta_package(folder, output)


@pytest.mark.parametrize("missing", ["coremltools", "torch"])
def test_missing_packages_are_named(tmp_path, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    for convert in (convert_roberta_package, convert_cnhubert_package):
        with pytest.raises(DependencyError, match=rf"{missing} is missing.*: pip install 'gpt-sovits-mlx\[coreml\]'"):
            convert(tmp_path, tmp_path / "x.mlpackage")


def test_a_numpy_that_breaks_conversion_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "__version__", "2.4.1")
    with pytest.raises(DependencyError, match=r"cannot convert with numpy 2\.4\.1, only below 2\.4"):
        convert_roberta_package(tmp_path, tmp_path / "x.mlpackage")
