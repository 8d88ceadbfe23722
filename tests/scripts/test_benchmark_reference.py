"""The reference's side of scripts/benchmark.py: a process of its own, here with a checkout that only looks like one."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts.bench import stages, torch_reference
from scripts.bench.errors import BenchmarkError
from scripts.bench.reference import Reference
from scripts.bench.workbench import Workbench
from scripts.benchmark import main

from gpt_sovits_mlx.runtime import backend

needs_device = pytest.mark.skipif(
    backend() == "cuda" and not torch.cuda.is_available(), reason="this PyTorch computes on no GPU"
)
DECODER = """
import torch

MOST = 20  # tokens, however many are asked for


class Loaded:
    missing_keys = unexpected_keys = ()


class Text2SemanticDecoder(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        if config["model"]["embedding_dim"] != 32:
            raise RuntimeError("size mismatch")

    def load_state_dict(self, state, strict):
        return Loaded()

    def infer_panel_naive(self, phones, length, prompt, bert, early_stop_num, **settings):
        print("the reference is talkative")
        assert phones.shape[1] == length == bert.shape[2]
        for _ in range(min(early_stop_num + 1, MOST)):
            yield torch.ones(1, 1), False

    def infer_panel_batch_infer(self, phones, lengths, prompts, bert, early_stop_num, **settings):
        return [torch.zeros(prompts.shape[1] + early_stop_num) for _ in phones], None
"""
SAMPLE = """
import json, os, sys

loaded = [name for name in sys.modules if name.split(".")[0] in ("mlx", "gpt_sovits_mlx")]
with open(os.path.join(sys.path[0], "seen.json"), "w") as file:
    json.dump({"loaded": loaded, "blas": os.environ.get("OPENBLAS_THREAD_TIMEOUT"), "pid": os.getpid()}, file)


def sample(logits, tokens, top_k, top_p, temperature, repetition_penalty):
    return logits
"""


def write_checkout(folder: Path, **files: str) -> Path:
    """A checkout of the modules that are named by their last part."""
    known = {"t2s_model": "AR/models", "utils": "AR/models", "models": "module", "torch": ".."}
    for name, content in files.items():
        path = folder / "GPT_SoVITS" / known[name] / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (folder / "GPT_SoVITS" / "AR").mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    return write_checkout(folder, t2s_model=DECODER, utils=SAMPLE, models="SynthesizerTrn = None")


@pytest.fixture(scope="module")
def reference(checkout: Path) -> Iterator[Reference]:
    made = Reference(checkout)
    yield made
    made.close()


@needs_device
def test_both_sides_are_measured_and_our_memory_is_ours(measured, checkout, capfd):
    found = measured("--reference", str(checkout), "--stages", "decode", "parts")
    assert {"torch", "torch threads"} <= found["versions"].keys()
    for one in found["measurements"]:
        assert len(one["their_seconds"]) == 2 and min(one["their_seconds"]) > 0
        pairs = zip(one["seconds"], one["their_seconds"], strict=True)
        assert one["pair_ratios"] == [ours / theirs for ours, theirs in pairs]
        assert one["ratio"] == statistics.median(one["pair_ratios"]) and one["resident"] > 0
        assert one["their_peak_memory"] is one["their_resident"] is None
    assert "ours / reference" in (printed := capfd.readouterr().out) and "talkative" not in printed


@needs_device
def test_the_process_of_the_reference_has_neither_mlx_nor_its_settings(reference, checkout):
    seen = json.loads((checkout / "seen.json").read_text())
    assert seen["loaded"] == [] and seen["blas"] is None and seen["pid"] != os.getpid()
    assert reference.versions["torch"].startswith(torch.__version__)


@needs_device
def test_errors_of_the_other_process_arrive_and_it_goes_on(reference, home, tmp_path):
    bench = Workbench.of_voice("small", home, "float32", tmp_path)
    given, path = stages.request(bench, bench.gpt(), 10, 75), bench.endless_gpt_path
    reference.use("float32")
    assert reference.steps(path, given, 20)() > 0
    with pytest.raises(BenchmarkError, match="made 20 tokens instead of 30"):
        reference.steps(path, given, 30)()
    assert reference.first_token(path, given)() > 0

    config = path.with_name("gpt_config.json")
    content = json.loads(config.read_text())
    reference.use("float32")  # the model of that path is dropped
    config.write_text(json.dumps({**content, "hidden_dim": 64}))
    with pytest.raises(BenchmarkError, match=r"cannot load gpt.safetensors \(size mismatch\)"):
        reference.steps(path, given, 20)
    config.write_text(json.dumps({**content, "quantization": {"bits": 8}}))
    with pytest.raises(BenchmarkError, match="is quantized, which the reference cannot be"):
        reference.steps(path, given, 20)


@needs_device
def test_a_process_that_dies_is_an_error(checkout):
    made = Reference(checkout)
    clock = made.sampling(np.zeros((1, 8), np.float32), np.zeros((1, 2), np.int64), 1)
    assert clock() > 0
    os.kill(json.loads((checkout / "seen.json").read_text())["pid"], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(BenchmarkError, match="process ended"):
            clock()
    made.close()


@pytest.mark.parametrize("end", [lambda process: process.kill(), lambda process: process.terminate()])
def test_the_process_ends_with_ours_though_it_is_busy(end: Callable[[subprocess.Popen[str]], None], tmp_path):
    write_checkout(tmp_path, torch="import time\nprint('busy', flush=True)\ntime.sleep(300)")
    start = (
        f"from pathlib import Path; from scripts.bench.reference import Reference; Reference(Path({str(tmp_path)!r}))"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", f"import gpt_sovits_mlx; {start}"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdout and process.stdout.readline() == "busy\n"
    end(process)
    # both hold the pipe, so it ends when both are gone
    process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"t2s_model": "import not_installed_anywhere"}, "needs not_installed_anywhere, which is not installed"),
        ({"torch": "raise SystemExit(3)"}, "process ended (status 3)"),
    ],
)
def test_a_checkout_that_cannot_be_loaded_is_one_line(files, wrong, tmp_path, capsys):
    assert main(["--reference", str(write_checkout(tmp_path, **files)), "--stages", "text"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the reference") and error.count("\n") == 1 and wrong in error


def test_weight_norm_of_the_reference_gets_the_same_weights():
    with pytest.warns(FutureWarning, match="weight_norm"):
        conv = torch.nn.utils.weight_norm(torch.nn.ConvTranspose1d(6, 4, 5))
    model, weight = torch.nn.Sequential(conv), torch.randn(6, 4, 5)
    state = {"0.weight": weight.clone(), "0.bias": torch.zeros(4)}
    torch_reference._normed(torch, model, state)
    model.load_state_dict(state)
    model(torch.zeros(1, 6, 3))  # computes its weight
    torch.testing.assert_close(conv.weight, weight)
