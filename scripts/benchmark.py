"""Measure how fast every stage is on this machine, and how fast the PyTorch reference or another version is beside it.

    python scripts/benchmark.py                                  # the demo voice
    python scripts/benchmark.py --random v2                      # weights of official size, made up: nothing to load
    python scripts/benchmark.py --random v2 --stages decode sovits --reference GPT-SoVITS
    python scripts/benchmark.py --against ../last-release --limit 1.03
    python scripts/benchmark.py --voice me --json out.json --plot out.png --profile

Times are medians; what is printed beside them is the lowest and the highest. Nothing else should run meanwhile.

With --reference or --against two sides take turns, each in a process of its own, with the same input, number of tokens
and type: ours first, theirs first, ours first, … Every turn gives a ratio of our time to theirs, and their median is
printed with the lowest and the highest. --reference takes the same weights and needs PyTorch, and what the checkout
imports, in the same environment. --against takes a checkout of this project, 96a9f6f or later, and runs its own
scripts/bench on the same voice (with --random, on weights that it makes up itself), in the forms of operations that are
usual for the back end. One of the two can be given.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import gpt_sovits_mlx  # noqa: F401  before anything imports mlx.core, so that OpenBLAS is in place

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from scripts.bench.checkout import TwoCheckouts
from scripts.bench.errors import Absent, BenchmarkError
from scripts.bench.measure import Findings, Skipped, measure
from scripts.bench.memory import release
from scripts.bench.own_process import OwnProcess, own_process
from scripts.bench.plot import draw, pyplot
from scripts.bench.profile import Profile
from scripts.bench.reference import Reference
from scripts.bench.report import machine, print_findings, print_heading, print_limit, progress, versions
from scripts.bench.stages import STAGES
from scripts.bench.workbench import RANDOM

from gpt_sovits_mlx.errors import DependencyError, GPTSoVITSError
from gpt_sovits_mlx.runtime import backend, require_mlx
from gpt_sovits_mlx.tuning import forms, usual
from gpt_sovits_mlx.voices.library import model_home

REPEATS, QUICK = 7, 2
SLOWEST = 8
"""Operations that `--profile` names of a stage."""
ABOVE_LIMIT = 3
"""Exit status."""
WIDTH = 200
PRECISIONS = ("float32", "float16", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; errors that a user can mend are printed as one line.

    Returns:
        0, 1 after an error, 2 after a wrong usage (raised by argparse as SystemExit), 3 where something is above the
        limit.
    """
    options = parser().parse_args(arguments)
    try:
        require_mlx()
        check_options(options)
        findings = run(options)
    except (GPTSoVITSError, BenchmarkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return ABOVE_LIMIT if options.limit and findings.above(options.limit) else 0


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
    other = made.add_mutually_exclusive_group()
    other.add_argument("--reference", type=Path, metavar="CHECKOUT", help="measure RVC-Boss/GPT-SoVITS beside it")
    other.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="measure another checkout of this project beside it, instead"
    )
    made.add_argument(
        "--limit",
        type=ratio,
        metavar="RATIO",
        help="with --against: name at last what takes more than RATIO times the other's time or memory, and exit with"
        f" {ABOVE_LIMIT} where something does",
    )
    made.add_argument("--profile", action="store_true", help="name the slowest operations of each stage, too")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything there, every single run included")
    made.add_argument("--plot", type=Path, metavar="FILE", help="draw time by stage and by length (with matplotlib)")
    return made


def positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def ratio(value: str) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def check_options(options: argparse.Namespace) -> None:
    """Raises `BenchmarkError` where this machine cannot do what they ask for, or they do not go together."""
    if backend() == "cpu" and options.dtype not in (None, ["float32"]):
        raise BenchmarkError("a CPU computes everything in float32: leave --dtype away")
    if options.against and options.profile:
        raise BenchmarkError("--profile looks into this process, where --against does no work: leave one of them away")
    if options.limit and not options.against:
        raise BenchmarkError("--limit is for ratios to another checkout: give --against, too, or leave it away")
    for path in (options.json, options.plot):
        if path and not path.resolve().parent.is_dir():
            raise BenchmarkError(f"there is no folder {path.parent} to write {path.name} in")
    if options.plot:
        pyplot()


def run(options: argparse.Namespace) -> Findings:
    """Measure what the options ask for and report it."""
    # a file is no narrow window
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    name = RANDOM if options.random else options.voice
    facts: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as work, opened_sides(options, Path(work)) as sides:
        facts["versions"] = versions(sides.versions)
        # another checkout knows nothing of what was tuned here, so neither side uses it
        facts["versions"]["forms"] = "usual" if options.against or forms() == usual() else "tuned"
        print_heading(console, name, options.repeats, facts)
        findings = measured(sides, options)
    print_findings(console, findings)
    if options.limit:
        print_limit(console, findings, options.limit)
    if options.json:
        write_json(options.json, {**facts, "voice": name, "repeats": options.repeats, **findings.as_json()})
    if options.plot:
        title = f"{name}: {facts['machine']['device'] or facts['machine']['processor']}"
        draw(findings.measurements, title, options.plot, findings.other)
    return findings


@contextmanager
def opened_sides(options: argparse.Namespace, work: Path) -> Iterator[OwnProcess | TwoCheckouts]:
    """What works: this process alone or beside the reference, or two checkouts."""
    voice = None if options.random else options.voice
    model_dir = options.model_dir or model_home()
    if options.against:
        with closing(TwoCheckouts(options.against, voice, model_dir, work)) as checkouts:
            yield checkouts
    else:
        with (
            closing(Reference(options.reference)) if options.reference else nullcontext() as reference,
            own_process(reference, voice, model_dir, work) as alone,
        ):
            yield alone


def measured(sides: OwnProcess | TwoCheckouts, options: argparse.Namespace) -> Findings:
    """What was found of all stages, in every type."""
    findings = Findings(sides.other)
    for precision in options.dtype or (["float32"] if backend() == "cpu" else ["float32", "float16"]):
        sides.use(precision)
        for stage in options.stages:
            run_stage(stage, sides, options, findings)
            release()
    return findings


def run_stage(stage: str, sides: OwnProcess | TwoCheckouts, options: argparse.Namespace, findings: Findings) -> None:
    """Measure a stage, or note why it cannot be."""
    try:
        cases, skipped = sides.cases(stage)
        findings.skipped += skipped
        for found in measure(cases, sides.label, options.repeats, sides.meters):
            print(progress(found), file=sys.stderr, flush=True)
            findings.measurements.append(found)
        if options.profile and isinstance(sides, OwnProcess) and (case := sides.profiled(stage)):
            findings.operations += Profile().operations(case, SLOWEST)
    except (Absent, DependencyError) as reason:
        findings.skipped.append(Skipped(stage, str(reason)))


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Raises `BenchmarkError` where it cannot be written."""
    try:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"cannot write {path}: {error.strerror or error}") from None


if __name__ == "__main__":
    sys.exit(main())
