"""The command line, as a user runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from small_voice import make_model_folder, tone


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("models"))


def run(*arguments, input: str | None = None, home=None, width: int = 80) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": str(width), **({"GPT_SOVITS_MLX_HOME": str(home)} if home else {})}
    command = [sys.executable, "-m", "gpt_sovits_mlx.cli", *map(str, arguments)]
    return subprocess.run(command, input=input, capture_output=True, text=True, env=environment, timeout=300)


def fails(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


def test_speaks_an_argument_a_file_and_standard_input(model_dir, tmp_path):
    text = "今天天气很好。我们去公园吧。"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    common = ("--voice", "small", "--seed", "1", "--json")
    made = []
    for name, source, stdin in (("a", (text,), None), ("b", ("-f", tmp_path / "text.txt"), None), ("c", ("-",), text)):
        done = run(*source, "-o", tmp_path / f"{name}.wav", *common, input=stdin, home=model_dir)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert soundfile.info(summary["output"]).duration == pytest.approx(summary["duration"])
        assert len(summary["sentences"]) == 2
        made.append((tmp_path / f"{name}.wav").read_bytes())
    assert made[0] == made[1] == made[2]
    plain = run(text, "-o", tmp_path / "d.flac", "--voice", "small", home=model_dir)
    assert "s of speech" in plain.stdout and "real-time factor" in plain.stdout


def test_streams_to_standard_output(model_dir, tmp_path):
    common = ("今天天气很好。", "--voice", "small", "--seed", "1")
    assert run(*common, "-o", tmp_path / "whole.wav", home=model_dir).returncode == 0
    whole, rate = soundfile.read(tmp_path / "whole.wav", dtype="int16")
    command = [sys.executable, "-m", "gpt_sovits_mlx.cli", *common, "--stream", "--model-dir", str(model_dir)]
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0 and b"cut off" in done.stderr  # the random voice never ends by itself
    (tmp_path / "streamed.wav").write_bytes(done.stdout)
    streamed, streamed_rate = soundfile.read(tmp_path / "streamed.wav", dtype="int16")
    assert streamed_rate == rate and streamed.shape == whole.shape
    assert np.corrcoef(streamed, whole)[0, 1] > 0.99
    fails(run(*common, "--stream", "--json", home=model_dir), "--stream", "--json")
    assert run(*common, "--stream", "-o", tmp_path / "whole.wav").returncode == 2


def test_lists_voices(model_dir):
    done = run("voices", "--model-dir", model_dir, width=200)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("small", "float32", "32000 Hz"))


def test_a_damaged_voice_hides_no_other(model_dir, tmp_path):
    for name in ("small", "broken"):
        shutil.copytree(model_dir / "voices" / "small", tmp_path / "voices" / name)
    (tmp_path / "voices" / "broken" / "gpt_config.json").write_text("{")
    done = run("voices", "--model-dir", tmp_path, width=200)
    assert done.returncode == 1 and "small" in done.stdout
    assert done.stderr.startswith("error: ") and "gpt_config.json is damaged" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_phones(tmp_path):
    done = run("phones", "你好, world.", "--json")
    answer = json.loads(done.stdout)
    assert set(answer) == {"norm_text", "phones", "phone_ids", "word2ph", "segments"}
    assert len(answer["phones"]) == len(answer["phone_ids"])
    lines = run("phones", "-", "--language", "zh", input="你好。\n。。。\n今天\n").stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert len(answers) == 3 and "error" in answers[1] and answers[2]["phones"] == [".", "j", "in1", "t", "ian1"]


def test_errors_are_one_line(model_dir, tmp_path):
    fails(run("text", "--voice", "nobody", home=model_dir), "no voice 'nobody'", "small")
    fails(run("", "--voice", "small", home=model_dir), "empty")
    fails(run("-f", tmp_path / "missing.txt", home=model_dir), "missing.txt")
    fails(run("今天", "--voice", "small", "-o", tmp_path / "x.xyz", home=model_dir), "x.xyz", ".wav")
    fails(run("今天", "--voice", "small", "--reference", tone(tmp_path / "r.wav", 1, 200), home=model_dir), "1.00 s")
    assert run("今天", "--split", "cut9").returncode == 2
    assert not list(tmp_path.glob("*.xyz")) and not list(tmp_path.glob(".*"))


def test_converts_official_files(checkpoint, model_dir, tmp_path):
    """Real sizes: the tiny GPT knows another alphabet, so the official v2 is the smallest pair there is."""
    recording = tone(tmp_path / "me.wav", 3.2, 150)
    pair = ("--gpt", checkpoint("gpt_v2", 1), "--sovits", checkpoint("sovits_v2", 3))
    rest = ("--reference", recording, "--text", "今天天气很好", "--language", "zh", "--model-dir", tmp_path / "models")
    done = run("convert", *pair, *rest, "--name", "me", "--bits", "8")
    assert done.returncode == 0, done.stderr
    assert "encoders --fetch" in done.stdout  # none are installed in this model folder
    folder = tmp_path / "models" / "voices" / "me"
    files = ["gpt.safetensors", "gpt_config.json", "reference.wav", "sovits.safetensors", "sovits_config.json"]
    assert sorted(p.name for p in folder.iterdir()) == [*files, "voice.json"]
    assert json.loads((folder / "gpt_config.json").read_text())["quantization"] == {"bits": 8, "group_size": 64}
    assert json.loads((folder / "sovits_config.json").read_text())["quantization"] is None
    assert "8 bits" in run("voices", "--model-dir", tmp_path / "models", width=200).stdout
    fails(run("convert", *pair, *rest, "--name", "me"), "exists")
    fails(run("今天", "--voice", "me", "--model-dir", tmp_path / "models"), "cnhubert.safetensors is missing")
    fails(run("convert", *pair[:2], "--sovits", recording, *rest, "--name", "other"), "me.wav")
    assert not (folder.parent / "other").exists()
