"""What was found: the machine, a table, JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from rich.console import Console
from rich.table import Table

from gpt_sovits_mlx import __version__
from gpt_sovits_mlx.runtime import backend, blas_library

from .measure import Findings, Measurement, size_ratio
from .turns import FEWEST

SAME_AUDIO = 0.001
"""The difference of lengths, by our length, up to which both sides did the same work."""


def machine() -> dict[str, Any]:
    """Processor, cores, memory and device, and how busy it was before."""
    device = mx.device_info()
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "backend": backend(),
        "device": str(device.get("device_name") or device.get("architecture") or ""),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(others: dict[str, str]) -> dict[str, str]:
    """Of what computes, with the other side's."""
    found = {
        "gpt-sovits-mlx": __version__,
        "python": platform.python_version(),
        "mlx": importlib.metadata.version("mlx"),
    }
    found["numpy"] = importlib.metadata.version("numpy")
    if backend() == "cpu" and blas_library():
        found["blas"] = Path(blas_library()).name
    return found | others


def _processor() -> str:
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def print_heading(console: Console, voice: str, repeats: int, facts: dict[str, Any]) -> None:
    """What is measured on what."""
    for part in ("machine", "versions"):
        console.print(", ".join(f"{name} {value}" for name, value in facts[part].items() if value != ""))
    fewest = f" ({FEWEST} where they are long)" if repeats > FEWEST else ""
    console.print(f"voice {voice}; medians of {repeats} runs{fewest}, behind some to warm up", highlight=False)


def print_findings(console: Console, findings: Findings) -> None:
    """A table of the measurements, what was left out, and the slowest operations."""
    measured, other = findings.measurements, findings.other
    compared = any(m.their_seconds for m in measured)
    memory_compared = any(m.their_peak_memory is not None for m in measured)
    resident = any(m.resident for m in measured)
    of_both = f", {other}'s, ratio" if memory_compared else ""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "case", "type"):
        table.add_column(column)
    columns = ["median", "lowest to highest", "rate", f"peak memory{of_both}"]
    columns += [f"resident{of_both}"] * resident + [f"{other}", f"ours / {other}"] * compared
    for column in columns:
        table.add_column(column, justify="right")
    for found in measured:
        row = [found.stage, found.case, found.precision, time_text(found.median)]
        row += [f"{time_text(min(found.seconds))} to {time_text(max(found.seconds))}", _rate(found)]
        row.append(_sizes(found.peak_memory, found.their_peak_memory))
        row += [_sizes(found.resident, found.their_resident)] * resident
        row += [time_text(found.their_median), _ratio(found)] * compared
        table.add_row(*row)
    console.print(table)
    print_notes(console, findings)
    if findings.operations:
        print_operations(console, findings.operations)


def print_notes(console: Console, findings: Findings) -> None:
    """What was left out, and where both sides did other work."""
    for skipped in findings.skipped:
        console.print(f"{skipped.stage} was not measured: {skipped.reason}", highlight=False)
    for found in findings.measurements:
        if found.their_audio is not None and abs(found.their_audio - found.audio) > SAME_AUDIO * found.audio:
            console.print(
                f"{found.stage}, {found.case}: ours made {found.audio:.2f} s of audio and {findings.other}'s"
                f" {found.their_audio:.2f} s, so their times are not of the same work",
                highlight=False,
            )


def print_limit(console: Console, findings: Findings, limit: float) -> None:
    """What is above the limit, a line each."""
    above = findings.above(limit)
    if above:
        console.print(f"more than {limit:g} times {findings.other}'s:", highlight=False)
    for line in above or [f"nothing takes more than {limit:g} times {findings.other}'s time or memory"]:
        console.print(line, highlight=False)


def progress(found: Measurement) -> str:
    """A line about one measurement."""
    line = f"{found.stage}, {found.case}, {found.precision}: {time_text(found.median)}"
    return f"{line}, ratio {_ratio(found)}" if found.ratio else line


def print_operations(console: Console, operations: Sequence[dict[str, Any]]) -> None:
    """The slowest operations by stage."""
    table = Table(box=None, pad_edge=False, title="slowest operations, each evaluated by itself", title_justify="left")
    for column in ("stage", "case", "operation", "calls", "time", "share"):
        table.add_column(column, justify="right" if column in ("calls", "time", "share") else "left")
    for found in operations:
        table.add_row(
            found["stage"],
            found["case"],
            found["operation"],
            f"{found['calls']:,}",
            time_text(found["seconds"]),
            f"{found['share']:.0%}",
        )
    console.print(table)


def time_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def size_text(size: int | None) -> str:
    return "" if not size else f"{size / 1e6:,.1f} MB"


def _sizes(ours: int | None, theirs: int | None) -> str:
    """One size, or two and their ratio."""
    ratio = size_ratio(ours, theirs)
    return size_text(ours) if ratio is None else f"{size_text(ours)}, {size_text(theirs)}, {ratio:.3f}"


def _rate(found: Measurement) -> str:
    if found.tokens:
        return f"{found.tokens / found.median:,.0f} tokens/s"
    return f"real-time factor {found.median / found.audio:.3f}" if found.audio else ""


def _ratio(found: Measurement) -> str:
    """The median of the pairs' ratios, with the lowest and the highest."""
    ratios = found.pair_ratios
    return f"{found.ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})" if ratios else ""
