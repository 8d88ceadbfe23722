"""scripts/benchmark.py: it measures every stage, the same work on both sides, and says in one line what it lacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from scripts.bench import measure, stages, turns
from scripts.bench.errors import BenchmarkError
from scripts.bench.measure import Case, Measurement
from scripts.bench.plot import draw
from scripts.bench.profile import Profile
from scripts.bench.workbench import Workbench
from scripts.benchmark import main

from gpt_sovits_mlx.decoding.generation import generate
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend


@pytest.fixture(scope="module")
def found(measured: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What a whole run writes."""
    return measured("--profile")


def test_every_stage_is_measured(found):
    assert {"machine", "versions", "voice", "repeats", "measurements", "skipped", "operations"} <= found.keys()
    assert {"processor", "backend", "load_before"} <= found["machine"].keys() and "mlx" in found["versions"]
    assert {one["stage"] for one in found["measurements"]} == set(stages.STAGES)
    assert found["skipped"] == []
    for one in found["measurements"]:
        assert len(one["seconds"]) == 2 and min(one["seconds"]) > 0
        assert one["low"] <= one["median"] <= one["high"]
        assert one["their_seconds"] == one["pair_ratios"] == [] and one["ratio"] is None
        assert one["precision"] == "float32" and one["resident"] > 0
    rates = {one["stage"]: one for one in found["measurements"] if one["audio"] or one["tokens"]}
    assert rates["decode"]["tokens_per_second"] > 0
    assert all(rates[stage]["real_time_factor"] > 0 for stage in ("sovits", "end_to_end", "streaming"))


def test_the_slowest_operations_of_every_stage_that_computes_are_named(found):
    operations = found["operations"]
    linear, convolution = ("NumpyProduct 96×32", "NumpyConv") if backend() == "cpu" else ("Linear 96×32", "Conv1d")
    assert {one["stage"] for one in operations} == set(stages.STAGES) - {"text", "parts"}
    assert any(one["operation"].startswith(linear) for one in operations if one["stage"] == "decode")
    assert any(one["operation"].startswith(convolution) for one in operations if one["stage"] == "sovits")
    for stage in {one["stage"] for one in operations}:
        shares = [one["share"] for one in operations if one["stage"] == stage]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.001


def test_the_sides_take_turns_and_warming_up_does_not_count():
    ran = []

    def side(name: str) -> measure.Clock:
        def clock() -> float:
            ran.append(name)
            return float(len(ran))

        return clock

    (found,) = measure.measure([Case("x", "y", side("A"), side("B"))], "float32", 3)
    # three turns to warm up, and three that count; every second one the other way round
    assert "".join(ran) == "ABBAAB" + "ABBAAB"
    assert found.seconds == [7, 10, 11] and found.their_seconds == [8, 9, 12]
    assert found.pair_ratios == [7 / 8, 10 / 9, 11 / 12] and found.ratio == 11 / 12
    assert found.resident and found.their_resident is None


def test_what_takes_long_runs_less_often():
    (found,) = measure.measure([Case("x", "y", lambda: turns.LONG)], "float32", 7)
    assert len(found.seconds) == turns.FEWEST


def test_no_decode_ends_before_its_number_of_tokens(home, tmp_path):
    bench = Workbench.of_voice("small", home, "float32", tmp_path)
    model = bench.gpt()
    requests = [stages.request(bench, model, 10, 75, row, 200) for row in range(4)]
    assert [len(made.tokens) for made in generate(model, requests)] == [200] * 4
    # of all logits only the end token's differ from the voice's
    voice = Workbench.of_voice("small", home, "float32", tmp_path).engine()[1].gpt
    same = np.all(head_of(model) == head_of(voice), axis=1)
    assert same[:-1].all() and not same[-1]


def head_of(model: TextToSemantic) -> np.ndarray:
    """(vocabulary, width) of the last layer."""
    return np.array(model.ar_predict_layer.weight)


def test_a_decode_of_other_work_is_refused(home, tmp_path):
    bench = Workbench.of_voice("small", home, "float32", tmp_path)
    model = bench.gpt()
    given = stages.request(bench, model, 10, 75, tokens=60)
    # an end token that is as likely as the likeliest, and comes first
    head = head_of(model)
    head[:-1] = 0
    model.ar_predict_layer.weight = mx.array(head)
    with pytest.raises(BenchmarkError, match="tokens instead of 60"):
        stages.steps_clock(model, given, 60)()


def test_a_profile_gives_each_operation_its_own_time_and_leaves_nothing_behind():
    before, attention = nn.Linear.__call__, mx.fast.scaled_dot_product_attention
    layer = nn.Linear(4, 8)
    clock = measure.timed(lambda: layer(mx.ones((2, 4))))
    operations = Profile().operations(Case("x", "y", clock), 5)
    assert {one["operation"]: one["calls"] for one in operations} == {"Linear 8×4": 1, "outside of layers": 1}
    assert sum(one["share"] for one in operations) == pytest.approx(1)
    assert nn.Linear.__call__ is before and mx.fast.scaled_dot_product_attention is attention


def test_a_voice_without_an_encoder_has_no_such_stage(tmp_path, capsys):
    file = tmp_path / "found.json"
    assert main(["--voice", "demo", "--stages", "roberta", "--quick", "--json", str(file)]) == 0
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["measurements"] == []
    assert found["skipped"] == [{"stage": "roberta", "reason": "the voice demo was trained without RoBERTa"}]
    assert "roberta was not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--voice", "nobody"], "no voice 'nobody'"),
        (["--reference", "nowhere"], "nowhere is no checkout"),
        (["--json", "nowhere/found.json"], "no folder nowhere"),
        (["--plot", "plot.png"], "--plot needs matplotlib: pip install"),
    ],
)
def test_errors_are_one_line(options, wrong, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([*options, "--stages", "text"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and wrong in error


@pytest.mark.skipif(backend() != "cpu", reason="GPUs compute in float16")
def test_a_cpu_refuses_what_it_would_compute_in_float32(capsys):
    assert main(["--dtype", "float16"]) == 1
    assert "a CPU computes everything in float32" in capsys.readouterr().err


def test_a_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    made = [
        Measurement(stage, f"{length} tokens", "float32", [1.0, 2.0], [3.0, 4.0], 0, None, length=length)
        for stage in ("decode", "sovits")
        for length in (50, 100)
    ]
    draw(made, "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(BenchmarkError, match="cannot write"):
        draw(made, "title", tmp_path / "plot.nothing")
