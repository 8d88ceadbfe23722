"""The forms that `tune` chooses from give the same sound, and what it chose is what models then use."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx import choices as chosen
from gpt_sovits_mlx import cli
from gpt_sovits_mlx.choices import KNOWN, Choices, choices, remember, trying, usual
from gpt_sovits_mlx.errors import GPTSoVITSError
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.tune import tune
from small_voice import make_model_folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("models"), ("small",))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT_SOVITS_MLX_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def load(model_dir):
    return lambda: SoVITS.load(model_dir / "voices" / "small" / "sovits.safetensors")


def spoken(load, these: Choices) -> np.ndarray:
    with trying(these):
        model = load()
    style = mx.random.normal((1, 1, model.generator.condition.in_features), key=mx.random.key(1))
    noise = mx.random.normal((1, 50, model.latent_width), key=mx.random.key(2))
    return np.array(model.decode(mx.arange(25)[None], mx.arange(9)[None], style, noise=noise))


def test_all_forms_sound_the_same(load):
    expected = spoken(load, usual())
    for values in itertools.product(*KNOWN.values()):
        these = Choices(*values)
        if not these.fused:  # a CPU would need a compiler
            assert np.abs(spoken(load, these) - expected).max() < 1e-4, these


def test_what_is_remembered_is_used_here_and_nowhere_else(home, monkeypatch):
    assert choices() == usual()
    other = dataclasses.replace(usual(), padded=not usual().padded)
    file = remember(other)
    assert file.parent == home / "cache" and choices() == other
    assert [p.name for p in file.parent.glob("tuning*")] == ["tuning.json"]
    monkeypatch.setattr(chosen, "machine", lambda: "another")
    assert choices() == usual()


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"KEY": {}}', '{"KEY": []}', '{"KEY": {"form": 1}}', '{"KEY": {"convolution": "x"}}']
)
def test_a_damaged_file_is_named(home, damage):
    file = remember(usual())
    file.write_text(damage.replace("KEY", chosen.machine()))
    chosen._remembered.cache_clear()
    with pytest.raises(GPTSoVITSError, match=r"tuning\.json is damaged"):
        choices()


def test_what_was_not_known_when_it_was_remembered_is_usual(home):
    these = dataclasses.replace(usual(), padded=not usual().padded)
    file = remember(these)
    file.write_text(json.dumps({chosen.machine(): {k: v for k, v in vars(these).items() if k != "host"}}))
    chosen._remembered.cache_clear()
    assert choices() == these


@pytest.mark.parametrize("host", [False, True])
def test_the_fastest_is_kept(load, host, monkeypatch):
    """Times that depend on the choices alone: each field is decided by its own, from those of a CPU on."""
    monkeypatch.setattr(chosen, "backend", lambda: "cpu")
    clock = {"now": 0.0}
    sounds = spoken(load, usual())

    def model(these: Choices):
        class Model:
            quantizer, generator, latent_width = load().quantizer, load().generator, 192

            def latent_frames(self, count):
                return 2 * count

            def decode(self, *_, **__):
                if these.padded and these.fused:
                    raise RuntimeError("no compiler")
                clock["now"] += 1 + (these.convolution == "native") - 0.5 * these.padded + 0.01 * these.fused
                clock["now"] += 0.2 * (these.host != host)
                # the other would be faster, and wrong
                clock["now"] -= 0.4 * (these.transposed != usual().transposed)
                return mx.array(sounds * (1 if these.transposed == usual().transposed else 2))

        return cast(SoVITS, Model())

    monkeypatch.setattr("gpt_sovits_mlx.tune.time.perf_counter", lambda: clock["now"])
    best, trials = tune(lambda: model(choices()))
    assert best == dataclasses.replace(usual(), host=host, padded=True, fused=False, convolution="taps")
    wrong = [trial for trial in trials if trial.field == "transposed"]
    # in numpy there is but one form of these
    assert len(wrong) == (0 if host else 1) and ("fused" in {trial.field for trial in trials}) is not host
    assert not any(trial.kept or trial.seconds < math.inf for trial in wrong)


def test_the_command(model_dir, home, monkeypatch, capsys):
    found = dataclasses.replace(usual(), padded=True)
    monkeypatch.setattr("gpt_sovits_mlx.tune.tune", lambda load, report: (load() and found, []))
    assert cli.main(["tune", "--voice", "small", "--model-dir", str(model_dir)]) == 0
    assert "tuning.json" in capsys.readouterr().out
    assert json.loads((home / "cache" / "tuning.json").read_text()) == {chosen.machine(): dataclasses.asdict(found)}
    assert cli.main(["tune", "--voice", "nobody", "--model-dir", str(model_dir)]) == 1
