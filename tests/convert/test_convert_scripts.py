"""The conversion scripts, run as users run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import (
    BERT_CONFIG,
    HUBERT_CONFIG,
    bert_state,
    environment,
    gpt_parts,
    hubert_state,
    sovits_state,
    write_folder,
    write_gpt,
    write_sovits,
)

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
OUTPUTS = {
    "gpt": {"gpt.safetensors", "gpt_config.json"},
    "sovits": {"sovits.safetensors", "sovits_config.json"},
    "cnhubert": {"cnhubert.safetensors", "cnhubert_config.json"},
    "roberta": {"roberta.safetensors", "roberta_config.json", "roberta_vocab.txt"},
}


def official(name: str, folder: Path) -> Path:
    if name == "gpt":
        return write_gpt(folder / "x.ckpt", *gpt_parts())
    if name == "sovits":
        return write_sovits(folder / "x.pth", sovits_state())
    if name == "cnhubert":
        return write_folder(folder / "hubert", hubert_state(), HUBERT_CONFIG)
    return write_folder(folder / "bert", bert_state(), BERT_CONFIG)


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPTS / f"convert_{name}_weights.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)


@pytest.mark.parametrize("name", OUTPUTS)
def test_script(tmp_path: Path, name: str):
    source, output = official(name, tmp_path), tmp_path / "out" / f"{name}.safetensors"
    done = run(name, "--input", source, "--output", output, "--dtype", "float32")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in output.parent.iterdir()} == OUTPUTS[name]
    assert str(output) in done.stdout
    assert '"dtype": "float32"' in (output.parent / f"{name}_config.json").read_text()


def test_bits(tmp_path: Path):
    source, output = official("gpt", tmp_path), tmp_path / "out" / "gpt.safetensors"
    done = run("gpt", "--input", source, "--output", output, "--bits", "4", "--group-size", "32")
    assert done.returncode == 0, done.stderr
    config = json.loads((output.parent / "gpt_config.json").read_text())
    assert config["quantization"] == {"bits": 4, "group_size": 32} and config["dtype"] == "float16"
    done = run("cnhubert", "--input", official("cnhubert", tmp_path), "--output", output, "--bits", "8")
    assert done.returncode == 1 and "groups of 64 do not divide the rows of" in done.stderr
    for name, option in (("sovits", "--bits"), ("gpt", "--group-size")):
        done = run(name, "--input", source, "--output", output, option, "32")
        assert done.returncode == 2 and option in done.stderr


@pytest.mark.parametrize("name", OUTPUTS)
def test_error_is_one_line(tmp_path: Path, name: str):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run(name, "--input", tmp_path / "picture.png", "--output", tmp_path / "out" / "x.safetensors")
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()
