"""`gpt-sovits-mlx verify`: passes here, fails where a number differs, and never passes what it did not run."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from gpt_sovits_mlx.cli import main
from gpt_sovits_mlx.convert.coreml import convert_cnhubert_package
from gpt_sovits_mlx.convert.coreml.interpreter import Interpreter
from gpt_sovits_mlx.encoders.coreml import CoreMLSpeechEncoder, has_engine
from gpt_sovits_mlx.encoders.mlx import MLXSpeechEncoder
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.store import ModelStore
from gpt_sovits_mlx.verify import STAGES, Row, golden, print_table, verify
from gpt_sovits_mlx.verify.coreml import ENGINE, INTERPRETER, worst_cosine
from gpt_sovits_mlx.verify.report import FAILED, NOT_RUN, PASSED, not_run
from gpt_sovits_mlx.verify.tokens import agreement
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
    assert np.isnan(worst_cosine(np.ones((2, 3)), np.ones((3, 3))))


def test_the_table_names_each_check():
    rows = [
        Row("a", "CPU", 2e-6, 1e-4, "", 1.5),
        Row("b", "CPU", 3, 0, "of 9 tokens", 0.25, note="late"),
        not_run("c", "Core ML", "needs a Mac"),
    ]
    stream = io.StringIO()
    print_table(rows, Console(file=stream, width=110))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines == [
        "stage device difference limit verdict time",
        "a CPU 2.0e-06 1.0e-04 passed 1.50 s",
        "b CPU 3 of 9 tokens (late) 0 FAILED 0.25 s",
        "c Core ML not run: needs a Mac",
        "1 passed, 1 FAILED, 1 not run",
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


def test_tokens_of_both_back_ends_agree(tmp_path):
    """On the small random voice, whose codes a random codebook spreads."""
    models = make_model_folder(tmp_path)
    weights = models / "encoders/cnhubert.safetensors"
    package = weights.with_name("cnhubert_ane.mlpackage")
    convert_cnhubert_package(weights, package)
    sovits = ModelStore(models, None, None).sovits(models / "voices/small/sovits.safetensors")
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
