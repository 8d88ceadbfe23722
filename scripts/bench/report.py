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

from .measure import FEWEST, Findings, Measurement
from .reference import Reference


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


def versions(reference: Reference | None) -> dict[str, str]:
    """Of what computes."""
    found = {
        "gpt-sovits-mlx": __version__,
        "python": platform.python_version(),
        "mlx": importlib.metadata.version("mlx"),
    }
    found["numpy"] = importlib.metadata.version("numpy")
    if backend() == "cpu" and blas_library():
        found["blas"] = Path(blas_library()).name
    return found | (reference.versions if reference else {})


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
    measured, compared = findings.measurements, any(m.reference_seconds for m in findings.measurements)
    table = Table(box=None, pad_edge=False)
    resident = any(m.resident for m in measured)
    for column in ("stage", "case", "type", "median", "lowest to highest", "rate", "peak memory"):
        table.add_column(column, justify="left" if column in ("stage", "case", "type") else "right")
    for column in ["resident"] * resident + ["reference", "ours / reference"] * compared:
        table.add_column(column, justify="right")
    for found in measured:
        row = [found.stage, found.case, found.precision, time_text(found.median)]
        row += [f"{time_text(min(found.seconds))} to {time_text(max(found.seconds))}", _rate(found)]
        row.append(size_text(found.peak_memory))
        row += [size_text(found.resident)] * resident
        row += [time_text(found.reference_median), _ratio(found)] * compared
        table.add_row(*row)
    console.print(table)
    for stage in findings.skipped:
        console.print(f"{stage.stage} was not measured: {stage.reason}", highlight=False)
    if findings.operations:
        print_operations(console, findings.operations)


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


def _rate(found: Measurement) -> str:
    if found.tokens:
        return f"{found.tokens / found.median:,.0f} tokens/s"
    return f"real-time factor {found.median / found.audio:.3f}" if found.audio else ""


def _ratio(found: Measurement) -> str:
    return f"{found.ratio:.2f} ({1 / found.ratio:.2g} × as fast)" if found.ratio else ""
