"""A case, how it is measured, and what was found."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx

from .memory import Meter, OwnMemory
from .turns import Clock, take_turns, warm_up


@dataclass(frozen=True)
class Case:
    """One piece of work. `checkout_worker` reads `name`, `ours`, `tokens`, `audio` and `length` of other checkouts'.

    Attributes:
        stage: one of `stages.STAGES`.
        name: what is done.
        ours: this package doing it.
        theirs: the other side (the reference, another checkout) doing the same; `None` where it is not measured.
        tokens: semantic tokens that it makes, for a rate.
        audio: tells, behind a run, the seconds of audio that it made, for a real-time factor.
        length: of a series of cases that differ in it, for the plot.
        profiled: whether `--profile` takes it for its stage.
        their_audio: `audio` of the other side; `None` where it makes as much by all means.
    """

    stage: str
    name: str
    ours: Clock
    theirs: Clock | None = None
    tokens: int = 0
    audio: Callable[[], float] | None = None
    length: int = 0
    profiled: bool = False
    their_audio: Callable[[], float] | None = None


@dataclass(frozen=True)
class Measurement:
    """What was measured of a case; times in seconds, in the order of the turns, memory in bytes.

    Attributes:
        seconds: ours.
        their_seconds: the other side's in the same turns; empty where there is none.
        peak_memory: MLX's peak during our runs, all loaded weights included.
        resident: of our whole process behind them; `None` where the system does not tell.
        audio: seconds of audio that a run made.
        their_peak_memory, their_resident, their_audio: the other side's, where it tells.
    """

    stage: str
    case: str
    precision: str
    seconds: list[float]
    their_seconds: list[float]
    peak_memory: int
    resident: int | None
    tokens: int = 0
    audio: float = 0.0
    length: int = 0
    their_peak_memory: int | None = None
    their_resident: int | None = None
    their_audio: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def their_median(self) -> float | None:
        return statistics.median(self.their_seconds) if self.their_seconds else None

    @property
    def pair_ratios(self) -> list[float]:
        """Our time by theirs, turn by turn; below 1 we are faster."""
        return [ours / theirs for ours, theirs in zip(self.seconds, self.their_seconds, strict=False)]

    @property
    def ratio(self) -> float | None:
        """The median of the pairs' ratios."""
        return statistics.median(self.pair_ratios) if self.pair_ratios else None

    @property
    def peak_memory_ratio(self) -> float | None:
        return size_ratio(self.peak_memory, self.their_peak_memory)

    @property
    def resident_ratio(self) -> float | None:
        return size_ratio(self.resident, self.their_resident)

    def as_json(self) -> dict[str, Any]:
        found = {**vars(self), "median": self.median, "low": min(self.seconds), "high": max(self.seconds)}
        for derived in ("their_median", "pair_ratios", "ratio", "peak_memory_ratio", "resident_ratio"):
            found[derived] = getattr(self, derived)
        if self.tokens:
            found["tokens_per_second"] = self.tokens / self.median
        if self.audio:
            found["real_time_factor"] = self.median / self.audio
        return found


@dataclass(frozen=True)
class Skipped:
    """A stage, or a case of one, that was not measured."""

    stage: str
    reason: str


@dataclass
class Findings:
    """All that a run of the benchmark found.

    Attributes:
        other: the name of the other side, "" where we are alone.
    """

    other: str = ""
    measurements: list[Measurement] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "other": self.other,
            "measurements": [found.as_json() for found in self.measurements],
            "skipped": [vars(skipped) for skipped in self.skipped],
            "operations": self.operations,
        }

    def above(self, limit: float) -> list[str]:
        """What takes more than `limit` times what the other side takes, in words."""
        kinds = (("time", "ratio"), ("peak memory", "peak_memory_ratio"), ("resident", "resident_ratio"))
        return [
            f"{found.stage}, {found.case}, {found.precision}: {kind} {value:.3f}"
            for found in self.measurements
            for kind, name in kinds
            if (value := getattr(found, name)) is not None and value > limit
        ]


def size_ratio(ours: int | None, theirs: int | None) -> float | None:
    """Of two sizes; `None` where one is not known, or is nothing."""
    return ours / theirs if ours is not None and theirs else None


def timed(work: Callable[[], Any]) -> Clock:
    """A clock around work that returns arrays (or nothing): it runs until they are computed."""

    def clock() -> float:
        start = time.perf_counter()
        mx.eval(work())
        return time.perf_counter() - start

    return clock


def measure(
    cases: Iterable[Case], precision: str, repeats: int, meters: Sequence[Meter] = (OwnMemory(),)
) -> Iterator[Measurement]:
    """Measure cases as they come: some turns to warm up, then `repeats`, few where they are long.

    Args:
        cases: with or without another side.
        precision: what the measurements are labelled with.
        repeats: turns that count.
        meters: of our process and, where it has one, of the other side's.
    """
    for case in cases:
        sides = [case.ours, *([case.theirs] if case.theirs else [])]
        warm_up(sides)
        for meter in meters:
            meter.reset()
        seconds = take_turns(sides, repeats)
        memory, *others = [meter.read() for meter in meters]
        yield Measurement(
            case.stage,
            case.name,
            precision,
            seconds[0],
            seconds[1] if case.theirs else [],
            memory.peak,
            memory.resident,
            case.tokens,
            case.audio() if case.audio else 0.0,
            case.length,
            their_peak_memory=others[0].peak if others else None,
            their_resident=others[0].resident if others else None,
            their_audio=case.their_audio() if case.their_audio else None,
        )
