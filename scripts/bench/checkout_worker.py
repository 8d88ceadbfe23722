"""The process of a checkout of this project: it runs the cases of that checkout's own scripts/bench.

The checkout may be older than this file (from 96a9f6f on) or newer. All that is asked of it is

- `gpt_sovits_mlx`: `__version__`, `GPTSoVITSEngine` (asked for, not used), `GPTSoVITSError`, `DependencyError`,
- `scripts.bench.errors`: `BenchmarkError`, `Absent`,
- `scripts.bench.workbench.Workbench`: `of_voice(name or folder, model folder, precision, work folder)`,
  `of_random(precision, work folder)`, `label` and `folder.path`,
- `scripts.bench.stages.STAGES`: functions by name, called with a workbench and `None`, which yield cases; "end_to_end"
  loads the voice,
- of a case: `name`, `ours` (runs it and returns seconds), `tokens`, `audio` (`None`, or a function), `length`,

so a change of these needs a word here about both forms.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import Absent, BenchmarkError
from .memory import OwnMemory, release
from .worker import run_and_settle, serve

HOME = "GPT_SOVITS_MLX_HOME"


class CheckoutWorker:
    """The commands. A case is known by its number in its stage."""

    def __init__(self) -> None:
        self.cases: list[Any] = []
        self.memory = OwnMemory()

    def open(self, checkout: Path, home: Path) -> str:
        """The first command: load the checkout, and tell its version.

        Args:
            checkout: its root.
            home: folder for what the work leaves, enrolled references included; nothing is remembered there, so the
                forms of operations are those that are usual for the back end.
        """
        leave_own_checkout(checkout)
        try:
            self.package = importlib.import_module("gpt_sovits_mlx")
            self.package.GPTSoVITSEngine  # noqa: B018  asked for, the package settles where MLX computes
            self.errors, self.workbench, self.stages = (
                importlib.import_module(f"scripts.bench.{part}") for part in ("errors", "workbench", "stages")
            )
        except (ImportError, AttributeError) as error:
            raise BenchmarkError(f"its code cannot be loaded ({error}): is it complete, and from 96a9f6f on?") from None
        for module in (self.package, self.stages):
            if not Path(str(module.__file__)).resolve().is_relative_to(checkout):
                raise BenchmarkError(f"{module.__file__} was loaded in place of its own {module.__name__}")
        # not before: what the package prepares once for this machine stays where it is
        os.environ[HOME] = str(home)
        self.home = home
        return self.package.__version__

    def use(self, voice: str | None, model_dir: Path, precision: str) -> tuple[str, str]:
        """Measure this voice from now on (`None`: made-up weights).

        Returns:
            a label of what is computed in, and the voice's folder.
        """
        self.cases.clear()
        self.given = voice, model_dir, precision
        with self.reported():
            bench = self.bench()
            return bench.label, str(bench.folder.path)

    def make(self, stage: str) -> list[tuple[str, int, int, bool]]:
        """Load a stage, in place of the one before: name, tokens, length of its cases, and whether they make audio."""
        self.cases.clear()
        release()
        if stage not in self.stages.STAGES:
            raise Absent("it has no such stage")
        with self.reported():
            self.cases = list(self.stages.STAGES[stage](self.bench(), None))
        return [(case.name, case.tokens, case.length, case.audio is not None) for case in self.cases]

    def run(self, number: int) -> float:
        """Seconds that a case took; the answer comes when the process is idle."""
        with self.reported():
            return run_and_settle(self.cases[number].ours)

    def audio(self, number: int) -> float:
        """Seconds of audio that its last run made."""
        return self.cases[number].audio()

    def reset(self) -> None:
        """Of the meter."""
        self.memory.reset()

    def read(self) -> tuple[int, int | None]:
        """Of the meter: its `Memory`, as a plain pair."""
        peak, resident = self.memory.read()
        return peak, resident

    def bench(self) -> Any:
        """A new workbench, so that a stage's random input does not depend on the stages before."""
        voice, model_dir, precision = self.given
        kind = self.workbench.Workbench
        if voice is None:
            return kind.of_random(precision, self.home)
        return kind.of_voice(voice, model_dir, precision, self.home)

    @contextmanager
    def reported(self) -> Iterator[None]:
        """The checkout's errors, as the errors that this process may answer."""
        try:
            yield
        except (self.errors.Absent, self.package.DependencyError) as error:
            raise Absent(str(error)) from None
        except (self.errors.BenchmarkError, self.package.GPTSoVITSError) as error:
            raise BenchmarkError(str(error)) from None


def leave_own_checkout(checkout: Path) -> None:
    """Import `scripts.bench` and `gpt_sovits_mlx` from another checkout from now on, and write nothing in it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        del sys.modules[name]
    sys.path[:1] = [str(checkout), str(checkout / "python")]
    sys.dont_write_bytecode = True


def main() -> None:
    serve(CheckoutWorker())
