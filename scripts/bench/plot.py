"""A picture of time by stage and by length."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import BenchmarkError
from .measure import Measurement

SERIES = ("decode", "sovits")
"""Stages whose cases differ in their number of tokens."""


def pyplot() -> Any:
    """Raises `BenchmarkError` where matplotlib is not installed."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ModuleNotFoundError:
        raise BenchmarkError("--plot needs matplotlib: pip install 'gpt-sovits-mlx[benchmark]'") from None


def draw(measured: Sequence[Measurement], title: str, path: Path, other: str = "reference") -> None:
    """Write a picture; its format is that of the name's ending. `other` names the other side.

    Raises:
        BenchmarkError: it cannot be written.
    """
    plt = pyplot()
    shown = [found for found in measured if found.stage != "parts"]
    figure, (stages, lengths) = plt.subplots(1, 2, figsize=(14, 2 + 0.28 * len(shown)), width_ratios=(2, 1))
    _by_stage(stages, shown, other)
    _by_length(lengths, measured, other)
    figure.suptitle(title)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=150, bbox_inches="tight")
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"cannot write {path}: {' '.join(str(error).split())}") from None
    finally:
        plt.close(figure)


def _by_stage(axes: Any, measured: Sequence[Measurement], other: str) -> None:
    names = [f"{found.stage}: {found.case} ({found.precision})" for found in measured]
    places = range(len(names))
    height = 0.4
    medians = [found.median for found in measured]
    spread = [[m - min(f.seconds) for f, m in zip(measured, medians, strict=True)]]
    spread.append([max(f.seconds) - m for f, m in zip(measured, medians, strict=True)])
    axes.barh(places, medians, height, xerr=spread, label="gpt-sovits-mlx")
    compared = [(place, f.their_median) for place, f in zip(places, measured, strict=True) if f.their_seconds]
    if compared:
        axes.barh([place + height for place, _ in compared], [m for _, m in compared], height, label=other)
        axes.legend()
    axes.set_yticks(list(places), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("seconds, median with lowest and highest")


def _by_length(axes: Any, measured: Sequence[Measurement], other: str) -> None:
    lines = {(f.stage, f.precision): [] for f in measured if f.stage in SERIES and f.length}
    for found in measured:
        if (found.stage, found.precision) in lines and found.length:
            lines[found.stage, found.precision].append(found)
    for (stage, precision), points in lines.items():
        tokens = [f.length for f in points]
        (line,) = axes.plot(tokens, [f.median for f in points], "o-", label=f"{stage} ({precision})")
        if all(f.their_seconds for f in points):
            theirs = [f.their_median for f in points]
            axes.plot(tokens, theirs, "o--", color=line.get_color(), label=f"{stage}, {other} ({precision})")
    if lines:
        axes.legend(fontsize=7)
    axes.set_xlabel("semantic tokens (25 a second)")
    axes.set_ylabel("seconds")
