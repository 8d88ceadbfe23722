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

from gpt_sovits_mlx import cli, tuning
from gpt_sovits_mlx.errors import GPTSoVITSError
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.tune import tune
from gpt_sovits_mlx.tuning import KNOWN, Forms, forms, remember, trying, usual
from gpt_sovits_mlx.weights import load_model
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
    return lambda: load_model(SoVITS, model_dir / "voices" / "small" / "sovits.safetensors")


def spoken(load, these: Forms) -> np.ndarray:
    with trying(these):
        model = load()
    style = mx.random.normal((1, 1, model.config.gin_channels), key=mx.random.key(1))
    noise = mx.random.normal((1, 50, model.latent_width), key=mx.random.key(2))
    return np.array(model.decode(mx.arange(25)[None], mx.arange(9)[None], style, noise=noise))


def test_all_forms_sound_the_same(load):
    expected = spoken(load, usual())
    for values in itertools.product(*KNOWN.values()):
        these = Forms(*values)
        if not these.fused:  # a CPU would need a compiler
            assert np.abs(spoken(load, these) - expected).max() < 1e-4, these


def test_what_is_remembered_is_used_here_and_nowhere_else(home, monkeypatch):
    assert forms() == usual()
    other = dataclasses.replace(usual(), padded=not usual().padded)
    file = remember(other)
    assert file.parent == home / "cache" and forms() == other
    assert [p.name for p in file.parent.glob("tuning*")] == ["tuning.json"]
    monkeypatch.setattr(tuning, "machine", lambda: "another")
    assert forms() == usual()


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"KEY": {}}', '{"KEY": []}', '{"KEY": {"form": 1}}', '{"KEY": {"convolution": "x"}}']
)
def test_a_damaged_file_is_named(home, damage):
    file = remember(usual())
    file.write_text(damage.replace("KEY", tuning.machine()))
    tuning._remembered.cache_clear()
    with pytest.raises(GPTSoVITSError, match=r"tuning\.json is damaged"):
        forms()


@pytest.mark.parametrize("before", [{}, {"host": False}], ids=["before it was known", "under its first name"])
def test_what_earlier_versions_remembered_is_read(home, before):
    these = dataclasses.replace(usual(), padded=not usual().padded)
    stated = {name: value for name, value in vars(these).items() if name != "numpy_generator"}
    file = remember(these)
    file.write_text(json.dumps({tuning.machine(): stated | before}))
    tuning._remembered.cache_clear()
    assert forms() == dataclasses.replace(these, numpy_generator=before.get("host", usual().numpy_generator))


@pytest.mark.parametrize("in_numpy", [False, True])
def test_the_fastest_is_kept(load, in_numpy, monkeypatch):
    """Times that depend on the choices alone: each field is decided by its own, from those of a CPU on."""
    monkeypatch.setattr(tuning, "backend", lambda: "cpu")
    clock = {"now": 0.0}
    sounds = spoken(load, usual())

    def model(these: Forms):
        class Model:
            config, latent_width = load().config, 192

            def latent_frames(self, count):
                return 2 * count

            def decode(self, *_, **__):
                if these.padded and these.fused:
                    raise RuntimeError("no compiler")
                clock["now"] += 1 + (these.convolution == "native") - 0.5 * these.padded + 0.01 * these.fused
                clock["now"] += 0.2 * (these.numpy_generator != in_numpy)
                # the other would be faster, and wrong
                clock["now"] -= 0.4 * (these.transposed != usual().transposed)
                return mx.array(sounds * (1 if these.transposed == usual().transposed else 2))

        return cast(SoVITS, Model())

    monkeypatch.setattr("gpt_sovits_mlx.tune.time.perf_counter", lambda: clock["now"])
    best, trials = tune(lambda: model(forms()))
    assert best == dataclasses.replace(usual(), numpy_generator=in_numpy, padded=True, fused=False, convolution="taps")
    wrong = [trial for trial in trials if trial.field == "transposed"]
    # in numpy there is but one form of these
    assert len(wrong) == (0 if in_numpy else 1) and ("fused" in {trial.field for trial in trials}) is not in_numpy
    assert not any(trial.kept or trial.seconds < math.inf for trial in wrong)


def test_the_command(model_dir, home, monkeypatch, capsys):
    found = dataclasses.replace(usual(), padded=True)
    monkeypatch.setattr("gpt_sovits_mlx.tune.tune", lambda load, report: (load() and found, []))
    assert cli.main(["tune", "--voice", "small", "--model-dir", str(model_dir)]) == 0
    assert "tuning.json" in capsys.readouterr().out
    assert json.loads((home / "cache" / "tuning.json").read_text()) == {tuning.machine(): dataclasses.asdict(found)}
    assert cli.main(["tune", "--voice", "nobody", "--model-dir", str(model_dir)]) == 1
