"""Timing: a case, how it is measured, and what was found."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

Clock = Callable[[], float]
"""Does a piece of work to its end and returns the seconds that it took."""
WARMING = 3
"""Runs before the first that counts: the reference's compiled graphs settle in the third. One where that is long."""
LONG = 20.0
"""Seconds after which a case gets no more runs than `FEWEST`."""
FEWEST = 3


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes:
        stage: one of `stages.STAGES`.
        name: what is done.
        ours: this package doing it.
        theirs: the reference doing the same; `None` where it is not measured.
        tokens: semantic tokens that it makes, for a rate.
        audio: tells, behind a run, the seconds of audio that it made, for a real-time factor.
        length: of a series of cases that differ in it, for the plot.
        profiled: whether `--profile` takes it for its stage.
    """

    stage: str
    name: str
    ours: Clock
    theirs: Clock | None = None
    tokens: int = 0
    audio: Callable[[], float] | None = None
    length: int = 0
    profiled: bool = False


@dataclass(frozen=True)
class Measurement:
    """What was measured of a case; times in seconds, in the order of the runs, memory in bytes.

    Attributes:
        peak_memory: MLX's peak during our runs, all loaded weights included.
        resident: of our whole process behind them; `None` where the system does not tell.
    """

    stage: str
    case: str
    precision: str
    seconds: list[float]
    reference_seconds: list[float]
    peak_memory: int
    resident: int | None
    tokens: int = 0
    audio: float = 0.0
    length: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def reference_median(self) -> float | None:
        return statistics.median(self.reference_seconds) if self.reference_seconds else None

    @property
    def ratio(self) -> float | None:
        """Our time by the reference's; below 1 we are faster."""
        return self.median / self.reference_median if self.reference_median else None

    def as_json(self) -> dict[str, Any]:
        found = {**vars(self), "median": self.median, "low": min(self.seconds), "high": max(self.seconds)}
        found |= {"reference_median": self.reference_median, "ratio": self.ratio}
        if self.tokens:
            found["tokens_per_second"] = self.tokens / self.median
        if self.audio:
            found["real_time_factor"] = self.median / self.audio
        return found


@dataclass(frozen=True)
class Skipped:
    """A stage that was not measured."""

    stage: str
    reason: str


@dataclass
class Findings:
    """All that a run of the benchmark found."""

    measurements: list[Measurement] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "measurements": [found.as_json() for found in self.measurements],
            "skipped": [vars(stage) for stage in self.skipped],
            "operations": self.operations,
        }


def timed(work: Callable[[], Any]) -> Clock:
    """A clock around work that returns arrays (or nothing): it runs until they are computed."""

    def clock() -> float:
        start = time.perf_counter()
        mx.eval(work())
        return time.perf_counter() - start

    return clock


def measure(cases: Iterable[Case], precision: str, repeats: int) -> Iterator[Measurement]:
    """Measure cases as they come: some runs to warm up, then `repeats`, the reference's between ours."""
    for case in cases:
        warming = 0.0
        for _ in range(WARMING):
            if warming < LONG:
                warming += case.ours() + (case.theirs() if case.theirs else 0.0)
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        ours, theirs = [], []
        while len(ours) < (min(repeats, FEWEST) if sum(ours) + sum(theirs) > LONG else repeats):
            ours.append(case.ours())
            if case.theirs:
                theirs.append(case.theirs())
        peak, audio = mx.get_peak_memory(), case.audio() if case.audio else 0.0
        resident = resident_size()
        yield Measurement(
            case.stage, case.name, precision, ours, theirs, peak, resident, case.tokens, audio, case.length
        )


def release() -> None:
    """Give back what the last stage held."""
    gc.collect()
    mx.clear_cache()


def resident_size() -> int | None:
    """Bytes of this process in memory; `None` where the system does not tell."""
    if sys.platform.startswith("linux"):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True)
    return 1024 * int(found.stdout) if found.stdout.strip().isdigit() else None
