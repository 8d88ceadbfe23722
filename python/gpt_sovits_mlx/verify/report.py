"""What a verification found, and the table that shows it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PASSED, FAILED, NOT_RUN = "passed", "FAILED", "not run"


@dataclass(frozen=True)
class Row:
    """One check.

    Attributes:
        stage: what was checked.
        device: where it ran.
        difference: from the golden numbers, `None` where it did not run.
        limit: the largest difference that passes.
        measure: what the difference is.
        seconds: of the computation alone.
        reason: why it did not run.
        note: details.
    """

    stage: str
    device: str
    difference: float | None
    limit: float
    measure: str
    seconds: float = 0.0
    reason: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.difference is not None:
            # a difference that is no number fails, too
            return PASSED if self.difference <= self.limit else FAILED
        return NOT_RUN if self.reason else FAILED


def broken(stage: str, error: Exception) -> Row:
    """A check that ended in an error: it fails."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return Row(stage, "", float("nan"), 0.0, "", note=line)


def not_run(stage: str, device: str, reason: str) -> Row:
    """A check that this machine cannot make."""
    return Row(stage, device, None, 0.0, "", reason=reason)


class Clock:
    """Seconds of a `with` block."""

    seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start


def print_table(rows: Sequence[Row], console: Console) -> None:
    """One line for each row, and how many passed, failed and did not run."""
    from rich.table import Table

    table = Table(box=None)
    for column in ("stage", "device", "difference", "limit", "verdict", "time"):
        table.add_column(column, no_wrap=column in ("stage", "limit", "time"), overflow="fold")
    for row in rows:
        numbers = ("", "") if row.difference is None else (_number(row.difference), _number(row.limit))
        difference = f"{numbers[0]} {row.measure}{f' ({row.note})' if row.note else ''}".strip()
        seconds = f"{row.seconds:.2f} s" if row.difference is not None else ""
        verdict = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
        table.add_row(row.stage, row.device, difference, numbers[1], verdict, seconds)
    console.print(table)
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in (PASSED, FAILED, NOT_RUN)}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), highlight=False)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "no number"
    return f"{value:.0f}" if value == int(value) else f"{value:.1e}"
