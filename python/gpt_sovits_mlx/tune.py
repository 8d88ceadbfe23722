"""Measure the formulations on this machine, and remember the fastest."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from .models.sovits import SoVITS
from .tuning import KNOWN, Forms, trying, usual

TOKENS = (100, 97, 103, 94, 106)
"""Lengths of the sentences that are vocoded: as in use, no two are the same."""
PHONES = 25
OF_MLX = ("transposed", "fused")
"""Fields of the generator in MLX's operations: where it runs in numpy they change nothing."""
GAIN = 0.97
"""A choice is changed for one that takes at most this share of the time: less is noise."""
HOPELESS = 4.0
"""A first sentence that takes so many times as long as the usual form's is the last."""
AGREE = 0.05
"""Root mean square of the audio's difference, as a share of its own; float16 rounds differently in each form."""
Load = Callable[[], SoVITS]


@dataclass(frozen=True)
class Trial:
    """What one change was measured to do.

    Attributes:
        field, value: the change.
        seconds: median for a sentence of 4 s; infinite where the form gave other audio or failed.
        beside: that of the best form before, in turns with it.
        kept: whether it stays.
    """

    field: str
    value: Any
    seconds: float
    beside: float
    kept: bool

    def __str__(self) -> str:
        if self.field == "usual":
            return f"usual: {1000 * self.seconds:.1f} ms"
        if not self.seconds < float("inf"):
            return f"{self.field} {self.value}: gives other audio, or none"
        took, before = 1000 * self.seconds, 1000 * self.beside
        return f"{self.field} {self.value}: {took:.1f} ms, before {before:.1f} ms{', kept' * self.kept}"


def tune(load: Load, report: Callable[[Trial], None] | None = None) -> tuple[Forms, list[Trial]]:
    """Try each form of the vocoder that `load` loads, one field at a time, from the usual ones on.

    A form and the best so far take turns, since other work on a machine comes and goes. `report` is called with each
    trial as it is done.
    """
    best, trials = usual(), []
    with trying(best):
        model = load()
    expected = _heard(model)
    _pass(model)
    trials.append(Trial("usual", "", statistics.median(_pass(model)), float("nan"), True))
    if report:
        report(trials[0])
    for field, values in KNOWN.items():
        for value in values:
            if value == getattr(best, field) or (best.numpy_generator and field in OF_MLX):
                continue
            with trying(replace(best, **{field: value})):
                other = load()
            took, beside = _beside(other, model, expected)
            kept = took < GAIN * beside
            trials.append(Trial(field, value, took, beside, kept))
            if report:
                report(trials[-1])
            if kept:
                best, model = replace(best, **{field: value}), other
    return best, trials


def _beside(other: SoVITS, best: SoVITS, expected: np.ndarray) -> tuple[float, float]:
    """Median times of both; infinite where the other gives other audio than expected, or none."""
    try:
        heard = _heard(other)
    except RuntimeError:  # a CPU compiles with the system's compiler, if there is one
        return float("inf"), float("nan")
    if not np.square(heard - expected).mean() <= AGREE**2 * np.square(expected).mean():
        return float("inf"), float("nan")
    pairs = [(_seconds(other, TOKENS[1]), _seconds(best, TOKENS[1]))]
    if pairs[0][0] > HOPELESS * pairs[0][1]:
        return pairs[0]
    _pass(other)  # compiles and plans
    pairs = [(_seconds(other, count), _seconds(best, count)) for count in TOKENS]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def _heard(model: SoVITS) -> np.ndarray:
    return np.array(_sentence(model, TOKENS[0]))


def _pass(model: SoVITS) -> list[float]:
    return [_seconds(model, count) for count in TOKENS]


def _seconds(model: SoVITS, count: int) -> float:
    start = time.perf_counter()
    mx.eval(_sentence(model, count))
    return time.perf_counter() - start


def _sentence(model: SoVITS, count: int) -> mx.array:
    style = mx.zeros((1, 1, model.config.gin_channels))
    tokens = mx.arange(count)[None] * 7 % model.config.codes
    noise = mx.random.normal((1, model.latent_frames(count), model.latent_width), key=mx.random.key(count))
    return model.decode(tokens, mx.arange(PHONES)[None] + 1, style, noise=noise)
