"""Measure how fast every stage is on this machine, and how fast the PyTorch reference is beside it.

    python scripts/benchmark.py                                  # the demo voice
    python scripts/benchmark.py --random v2                      # weights of official size, made up: nothing to load
    python scripts/benchmark.py --random v2 --stages decode sovits --reference GPT-SoVITS
    python scripts/benchmark.py --voice me --json out.json --plot out.png --profile

Times are medians; what is printed beside them is the lowest and the highest. Nothing else should run meanwhile. With
--reference the two sides take turns, each in a process of its own, with the same weights, input, number of tokens and
type; that needs PyTorch, and what the checkout imports, in the same environment.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gpt_sovits_mlx  # noqa: F401  before anything imports mlx.core, so that OpenBLAS is in place

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from scripts.bench.errors import Absent, BenchmarkError
from scripts.bench.measure import Findings, Skipped, measure, release
from scripts.bench.plot import draw, pyplot
from scripts.bench.profile import Profile
from scripts.bench.reference import Reference
from scripts.bench.report import machine, print_findings, print_heading, time_text, versions
from scripts.bench.stages import STAGES
from scripts.bench.workbench import RANDOM, Workbench

from gpt_sovits_mlx.choices import choices, trying, usual
from gpt_sovits_mlx.errors import DependencyError, GPTSoVITSError
from gpt_sovits_mlx.runtime import backend, require_mlx
from gpt_sovits_mlx.voices.library import model_home

REPEATS, QUICK = 7, 2
SLOWEST = 8
"""Operations that `--profile` names of a stage."""
HOME = "GPT_SOVITS_MLX_HOME"
WIDTH = 200
PRECISIONS = ("float32", "float16", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; errors that a user can mend are printed as one line.

    Returns:
        0, 1 after an error, 2 after a wrong usage (raised by argparse as SystemExit).
    """
    options = parser().parse_args(arguments)
    try:
        require_mlx()
        check(options)
        with closing(Reference(options.reference)) if options.reference else nullcontext() as reference:
            run(options, reference)
    except (GPTSoVITSError, BenchmarkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    voice = made.add_mutually_exclusive_group()
    voice.add_argument("--voice", default="demo", help="name or folder of a voice (demo)")
    voice.add_argument("--random", choices=["v2"], help="made-up weights of official size instead of a voice")
    made.add_argument("--model-dir", type=Path, help="folder with voices/ and encoders/ (the user's)")
    made.add_argument(
        "--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help=", ".join(STAGES)
    )
    made.add_argument("--dtype", nargs="+", choices=PRECISIONS, help="float32, and on a GPU float16 too")
    repeats = made.add_mutually_exclusive_group()
    repeats.add_argument("--repeats", type=positive, default=REPEATS, help=f"runs of each case ({REPEATS})")
    repeats.add_argument(
        "--quick", action="store_const", const=QUICK, dest="repeats", help=f"only {QUICK} runs of each"
    )
    made.add_argument("--reference", type=Path, metavar="CHECKOUT", help="measure RVC-Boss/GPT-SoVITS beside it")
    made.add_argument("--profile", action="store_true", help="name the slowest operations of each stage, too")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything there, every single run included")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw time by stage and by length (with matplotlib)")
    return made


def positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def check(options: argparse.Namespace) -> None:
    """Raises `BenchmarkError` where this machine cannot do what they ask for."""
    if backend() == "cpu" and options.dtype not in (None, ["float32"]):
        raise BenchmarkError("a CPU computes everything in float32: leave --dtype away")
    for path in (options.json, options.plot):
        if path and not path.resolve().parent.is_dir():
            raise BenchmarkError(f"there is no folder {path.parent} to write {path.name} in")
    if options.plot:
        pyplot()


def run(options: argparse.Namespace, reference: Reference | None) -> None:
    """Measure what the options ask for and report it."""
    precisions = options.dtype or (["float32"] if backend() == "cpu" else ["float32", "float16"])
    model_dir = model_home(options.model_dir)
    facts: dict[str, Any] = {"machine": machine(), "versions": versions(reference)}
    facts["versions"]["forms"] = "usual" if choices() == usual() else "tuned"
    # a file is no narrow window
    console, findings = Console(width=None if sys.stdout.isatty() else WIDTH), Findings()
    name = RANDOM if options.random else options.voice
    print_heading(console, name, options.repeats, facts)
    with tempfile.TemporaryDirectory() as work, trying(choices()), home_at(work):
        for precision in precisions:
            if options.random:
                bench = Workbench.of_random(precision, Path(work))
            else:
                bench = Workbench.of_voice(options.voice, model_dir, precision, Path(work))
            for stage in options.stages:
                run_stage(stage, bench, reference and reference.use(precision), options, findings)
                release()
    print_findings(console, findings)
    if options.json:
        write_json(options.json, {**facts, "voice": name, "repeats": options.repeats, **findings.as_json()})
    if options.plot:
        draw(
            findings.measurements,
            f"{name}: {facts['machine']['device'] or facts['machine']['processor']}",
            options.plot,
        )


def run_stage(
    stage: str, bench: Workbench, reference: Reference | None, options: argparse.Namespace, findings: Findings
) -> None:
    """Measure a stage, or note why the voice has none."""
    try:
        cases = STAGES[stage](bench, reference)
        for found in measure(cases, bench.label, options.repeats):
            print(f"{stage}, {found.case}, {bench.label}: {time_text(found.median)}", file=sys.stderr, flush=True)
            findings.measurements.append(found)
        if options.profile:
            for case in STAGES[stage](bench, None):
                if case.profiled:
                    findings.operations += Profile().operations(case, SLOWEST)
                    break
    except (Absent, DependencyError) as reason:
        findings.skipped.append(Skipped(stage, str(reason)))


@contextmanager
def home_at(folder: str) -> Iterator[None]:
    """The references that are enrolled meanwhile leave nothing in the user's cache."""
    before = os.environ.get(HOME)
    os.environ[HOME] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[HOME]
        else:
            os.environ[HOME] = before


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Raises `BenchmarkError` where it cannot be written."""
    try:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"cannot write {path}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
