"""`gpt-sovits-mlx verify`: passes here, fails where a number differs, and never passes what it did not run."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest
from rich.console import Console

from gpt_sovits_mlx.cli import main
from gpt_sovits_mlx.convert.coreml import convert_cnhubert_package
from gpt_sovits_mlx.convert.coreml.interpreter import Interpreter
from gpt_sovits_mlx.encoders.buckets import TextBucket
from gpt_sovits_mlx.encoders.coreml import CoreMLSpeechEncoder, has_engine
from gpt_sovits_mlx.encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.verify import STAGES, Row, golden, models, print_table, tokens, verify
from gpt_sovits_mlx.verify import coreml as verify_coreml
from gpt_sovits_mlx.verify.coreml import ALLOW_LIST, ENGINE, INTERPRETER, PROCESSOR, worst_cosine
from gpt_sovits_mlx.verify.models import excess
from gpt_sovits_mlx.verify.report import FAILED, NOT_RUN, PASSED, broken, not_run
from gpt_sovits_mlx.verify.tokens import agreement
from gpt_sovits_mlx.voices.loader import VoiceLoader
from small_voice import make_model_folder


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """All stages but RoBERTa, whose package takes the longest and goes the way of CNHubert's."""
    return [*verify([stage for stage in STAGES if stage != "roberta"])]


def test_every_stage_passes_here(rows):
    verdicts = {(row.stage, row.device.split(",")[0]): row.verdict for row in rows if row.device != ENGINE}
    for stage in ("CNHubert", "GPT, first logits", "GPT, greedy tokens", "SoVITS, audio"):
        assert verdicts[stage, "MLX"] == PASSED, rows
    assert verdicts["text to phones", "CPU"] == PASSED
    assert verdicts["CNHubert, package", "allow-list"] == PASSED
    assert next(row for row in rows if row.device == INTERPRETER).verdict == PASSED
    # the demo voice's own encoder and codebook, on 40 utterances: at least 98 % of its tokens, and 100 codes
    assert verdicts["semantic tokens", "Core ML"] == PASSED, rows
    assert FAILED not in verdicts.values(), rows
    assert all(row.seconds > 0 for row in rows if row.difference is not None and row.device != "allow-list")


def test_what_cannot_run_here_is_listed_as_not_run(rows):
    """The Neural Engine and Metal anywhere but on a Mac that has them."""
    engine = [row for row in rows if row.device == ENGINE]
    assert {row.stage for row in engine} >= {"CNHubert", "CNHubert, placement"}
    assert {row.verdict for row in engine} == {PASSED if has_engine() else NOT_RUN}
    metal = [row for row in rows if row.device == "MLX, Metal"]
    assert {row.verdict for row in metal} == {PASSED if backend() == "metal" else NOT_RUN}
    assert all(row.difference is None and row.reason for row in rows if row.verdict == NOT_RUN)


def test_a_difference_fails_and_so_does_no_number():
    assert Row("x", "y", 0.1, 0.1, "").verdict == PASSED
    assert Row("x", "y", 0.11, 0.1, "").verdict == FAILED
    assert Row("x", "y", float("nan"), 0.1, "").verdict == FAILED
    assert Row("x", "y", None, 0.1, "").verdict == FAILED
    assert not_run("x", "y", "no Mac").verdict == NOT_RUN
    assert broken("x", RuntimeError("no\nluck")).verdict == FAILED


@pytest.mark.parametrize("measure", [lambda a, b: 1 - worst_cosine(a, b), excess], ids=["cosine", "excess"])
def test_features_that_are_no_numbers_fail(measure):
    ones = np.ones((2, 3), np.float16)
    assert Row("x", "y", measure(ones, ones), 1e-3, "").verdict == PASSED
    spoilt = [np.ones((3, 3), np.float16)]
    for value in (np.nan, np.inf):
        spoilt.append(ones.copy())
        spoilt[-1][1, 2] = value
    for features in spoilt:
        assert Row("x", "y", measure(features, ones), 1e-3, "").verdict == FAILED


def test_the_table_names_each_check():
    rows = [
        Row("a", "CPU", 2e-6, 1e-4, "", 1.5),
        Row("b", "CPU", 3, 0, "of 9 tokens", 0.25, note="late"),
        not_run("c", "Core ML", "needs a Mac"),
        broken("d", RuntimeError("no\nluck")),
    ]
    stream = io.StringIO()
    print_table(rows, Console(file=stream, width=110))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines == [
        "stage device difference limit verdict time",
        "a CPU 2.0e-06 1.0e-04 passed 1.50 s",
        "b CPU 3 of 9 tokens (late) 0 FAILED 0.25 s",
        "c Core ML not run: needs a Mac",
        "d no number (RuntimeError: no luck) 0 FAILED 0.00 s",
        "1 passed, 2 FAILED, 1 not run",
    ]


def test_the_exit_status_says_whether_anything_failed(tmp_path, monkeypatch, capsys):
    assert main(["verify", "--stages", "text"]) == 0
    assert "text to phones" in capsys.readouterr().out
    texts = golden.load_texts()
    texts[3]["phones"] += " ."
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    monkeypatch.setattr(golden, "DATA", tmp_path)
    assert main(["verify", "--stages", "text"]) == 1
    assert "1 of 32 texts" in (out := capsys.readouterr().out) and "FAILED" in out


def test_a_stage_that_breaks_off_fails_and_the_next_one_runs(monkeypatch, capsys):
    def breaks() -> Iterator[Row]:
        yield Row("first half", "CPU", 0.0, 1.0, "")
        raise RuntimeError("out of luck")

    monkeypatch.setattr(models, "verify_text", breaks)
    monkeypatch.setattr(models, "verify_gpt", lambda: iter([Row("second stage", "CPU", 0.0, 1.0, "")]))
    assert main(["verify", "--stages", "text", "gpt"]) == 1
    lines = capsys.readouterr().out.splitlines()
    stages = [line.split("  ")[0].strip() for line in lines if "all models" not in line]
    assert stages[:-1] == ["stage", "first half", "text", "second stage"]
    assert "RuntimeError: out of luck" in " ".join(" ".join(lines).split())
    assert stages[-1].startswith("2 passed, 1 FAILED")


@dataclass
class Machine:
    """What a Mac would answer."""

    mac: bool
    engine: bool
    off_the_engine: float = 0.0


@pytest.fixture
def on(monkeypatch, tmp_path) -> Callable[[str, Machine], list[Row]]:
    """Verify a small encoder's package on a machine; Core ML is played by the interpreter."""
    folder = make_model_folder(tmp_path) / "encoders"
    samples = noise(np.random.default_rng(5), 48000)
    ids = [2, *range(4, 34), 3]
    features = {
        "cnhubert": np.array(MLXSpeechEncoder(folder / "cnhubert.safetensors")(samples)[0]),
        "roberta": np.array(MLXCharacterEncoder(folder / "roberta.safetensors").model(mx.array([ids]))[0]),
    }
    speech = samples, {"frames": np.arange(len(features["cnhubert"])), "features": features["cnhubert"]}
    monkeypatch.setattr(verify_coreml, "golden_recording", lambda: speech)
    text = {"input_ids": np.array([ids]), "features": features["roberta"]}
    monkeypatch.setattr(verify_coreml, "load_outputs", lambda _: text)
    monkeypatch.setattr(verify_coreml, "in_place", Interpreter)
    monkeypatch.setattr(verify_coreml, "TEXT_BUCKETS", [TextBucket(n) for n in (16, 32, 64, 128)])

    def run(name: str, machine: Machine) -> list[Row]:
        share = {"softmax": machine.off_the_engine}
        monkeypatch.setattr(verify_coreml, "runs_here", lambda: machine.mac)
        monkeypatch.setattr(verify_coreml, "has_engine", lambda: machine.engine)
        monkeypatch.setattr(verify_coreml, "work_off_the_engine", lambda package, function: share)
        return [*verify_coreml.verify_package(name, folder / f"{name}.safetensors")]

    return run


@pytest.mark.parametrize(
    ("name", "title", "functions"),
    [
        ("cnhubert", "CNHubert", ["samples_64000", "samples_96000", "samples_128000", "samples_169600"]),
        ("roberta", "RoBERTa", ["tokens_32", "tokens_64", "tokens_128"]),
    ],
)
def test_on_the_neural_engine_every_function_is_run_and_placed(on, name, title, functions):
    rows = on(name, Machine(mac=True, engine=True, off_the_engine=0.04))
    assert {row.verdict for row in rows} == {PASSED}
    assert [(row.stage, row.device, row.note) for row in rows] == [
        (f"{title}, package", ALLOW_LIST, ""),
        (title, INTERPRETER, functions[0]),
        *(
            row
            for function in functions
            for row in [(title, ENGINE, function), (f"{title}, placement", ENGINE, f"{function}, softmax 4.0%")]
        ),
    ]


def test_work_off_the_engine_fails(on):
    verdicts = [row.verdict for row in on("roberta", Machine(mac=True, engine=True, off_the_engine=0.11))]
    assert verdicts == [PASSED, PASSED, *([PASSED, FAILED] * 3)]


def test_a_mac_without_the_engine_runs_core_ml_on_its_cpu(on):
    rows = on("roberta", Machine(mac=True, engine=False))
    assert [(row.device, row.verdict) for row in rows] == [
        (ALLOW_LIST, PASSED),
        (INTERPRETER, PASSED),
        (PROCESSOR, PASSED),
        (ENGINE, NOT_RUN),
        (ENGINE, NOT_RUN),
    ]
    assert {row.reason for row in rows[3:]} == {"this Mac offers no Neural Engine"}


@pytest.mark.parametrize("mac", [True, False])
def test_without_coremltools_nothing_of_core_ml_passes(on, mac, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "coremltools" else find(name))
    rows = on("cnhubert", Machine(mac=mac, engine=mac))
    monkeypatch.setattr(tokens, "runs_here", lambda: mac)
    rows += tokens.verify_tokens(tmp_path)
    assert [row.device for row in rows] == [ALLOW_LIST, INTERPRETER, ENGINE, ENGINE, INTERPRETER, ENGINE]
    assert {row.verdict for row in rows} == {NOT_RUN}
    missing = ["coremltools is missing" in row.reason for row in rows]
    assert missing == [True, True, mac, mac, True, mac]


def test_tokens_of_both_back_ends_agree(tmp_path):
    """On the small random voice, whose codes a random codebook spreads."""
    models = make_model_folder(tmp_path)
    weights = models / "encoders/cnhubert.safetensors"
    package = weights.with_name("cnhubert_ane.mlpackage")
    convert_cnhubert_package(weights, package)
    sovits = VoiceLoader(models).sovits(models / "voices/small/sovits.safetensors")
    random = np.random.default_rng(5)
    recordings = [noise(random, 16000 * seconds) for seconds in (3, 5, 9)]
    mlx = MLXSpeechEncoder(weights)
    found = agreement(sovits, CoreMLSpeechEncoder(package, Interpreter), mlx, recordings)
    assert found.frames == sum(((len(r) + 9600 - 400) // 320 + 1) // 2 for r in recordings)
    assert found.different <= 0.02
    assert found.codes > 1
    other = agreement(sovits, lambda samples: mlx(samples[::-1].copy()), mlx, recordings)
    assert other.different > 0.02


def noise(random: np.random.Generator, count: int) -> np.ndarray:
    """Noise whose colour and loudness change every tenth of a second."""
    pieces = [random.uniform(0.01, 0.5) * random.standard_normal(1600) for _ in range(count // 1600)]
    widths = random.integers(1, 40, len(pieces))
    smooth = [np.convolve(p, np.ones(w) / np.sqrt(w), "same") for p, w in zip(pieces, widths, strict=True)]
    return np.clip(np.concatenate(smooth), -1, 1).astype(np.float32)


def test_golden_numbers_are_small_and_their_weights_reproducible():
    size = sum(path.stat().st_size for path in golden.DATA.rglob("*") if path.is_file())
    assert size < 800_000
    manifest = golden.load_manifest(golden.DATA / "manifests/hubert.json")
    name, values = next(golden.state(manifest, 1))
    again = golden.tensor(name, list(values.shape), manifest["tensors"][0][2], 1)
    np.testing.assert_array_equal(values, again)
    assert len((golden.DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()) == 40
