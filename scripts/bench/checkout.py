"""Another checkout of this project beside this one, each in a process of its own.

This one's work is done in such a process, too: what is around the work is then the same on both sides, and so is what
it takes of a process's memory.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .errors import Absent, BenchmarkError
from .measure import Case, Skipped
from .memory import Memory
from .process import ROOT, WorkerProcess
from .turns import Clock

PREPARED_IN = "float32"
"""What is remembered of a reference holds for every precision."""


@dataclass(frozen=True)
class CheckoutCase:
    """A case of a checkout; `run` and `audio` are as in `measure.Case`."""

    run: Clock
    tokens: int
    length: int
    audio: Callable[[], float] | None


class Checkout:
    """A checkout at work in its process, and the meter of its memory.

    Args:
        root: its folder.
        home: folder for what the work leaves.

    Raises:
        BenchmarkError: it is none, or its code cannot be loaded. The methods raise it where the process has ended and
            where the work fails, and `Absent` where the checkout or the voice has nothing to measure.
    """

    def __init__(self, root: Path, home: Path):
        self.root = check_checkout(root)
        home.mkdir(parents=True, exist_ok=True)
        with self._named():
            self._worker = WorkerProcess("checkout_worker", "the checkout", self.root, home)
        self.version = f"{self._worker.opened} ({commit(self.root)})"

    @property
    def pid(self) -> int:
        return self._worker.pid

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def use(self, voice: str | None, model_dir: Path, precision: str) -> tuple[str, str]:
        """Measure this voice (name or folder; `None`: made-up weights) from now on: a label, and the voice's folder."""
        return self._ask("use", voice, model_dir, precision)

    def cases(self, stage: str) -> dict[str, CheckoutCase]:
        """Load a stage in place of the one before; its cases by name."""
        return {
            name: CheckoutCase(
                partial(self._ask, "run", number),
                tokens,
                length,
                partial(self._ask, "audio", number) if audible else None,
            )
            for number, (name, tokens, length, audible) in enumerate(self._ask("make", stage))
        }

    def prepare(self) -> None:
        """Load the voice once, which leaves what is remembered of it on disk."""
        with suppress(Absent):
            self._ask("make", "end_to_end")

    def reset(self) -> None:
        self._ask("reset")

    def read(self) -> Memory:
        return Memory(*self._ask("read"))

    def _ask(self, command: str, *given: object) -> Any:
        with self._named():
            return self._worker.ask(command, *given)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors say which checkout they come from."""
        try:
            yield
        except BenchmarkError as error:
            raise type(error)(f"{self.root}: {error}") from None


class TwoCheckouts:
    """This checkout and another, on the same voice and the same random input.

    Each side has a copy of the voice, since what a version remembers of a reference lies there and another may not know
    it. It is made in a process before those that are measured, which would keep the memory that this took; and each
    stage has new processes, since they keep what the largest work before took.

    Args:
        other: folder of the other one.
        voice: name or folder; `None` for made-up weights, which each side makes by its own rule.
        model_dir: folder with `voices/` and `encoders/`.
        work: temporary folder.

    Attributes:
        other: name of the other one's folder.
        versions: of both.
        label: what the last stage is computed in.
        meters: of the memory of both processes of the last stage.

    Raises:
        BenchmarkError: as `Checkout`.
    """

    def __init__(self, other: Path, voice: str | None, model_dir: Path, work: Path):
        self.other = check_checkout(other).name
        self._roots, self._homes, self._model_dir = (ROOT, other), (work / "ours", work / "theirs"), model_dir
        self.label, self._precision = "", PREPARED_IN
        self.meters: tuple[Checkout, ...] = ()
        self._voices, versions = self._prepared(voice)
        self.versions = dict(zip(("this checkout", self.other), versions, strict=True))

    def close(self) -> None:
        """End both processes."""
        for side in self.meters:
            side.close()
        self.meters = ()

    def use(self, precision: str) -> None:
        """Compute in this type from now on."""
        self._precision = precision

    def cases(self, stage: str) -> tuple[list[Case], list[Skipped]]:
        """The cases that both sides have, loaded in new processes, and those that only one has.

        Raises:
            Absent: a side has nothing to measure.
        """
        self.close()
        labels = []
        for root, home, voice in zip(self._roots, self._homes, self._voices, strict=True):
            side = Checkout(root, home)
            self.meters += (side,)
            labels.append(side.use(voice, self._model_dir, self._precision)[0])
        self.label = labels[0]
        return self._matched(stage, *self.meters)

    def _matched(self, stage: str, our_side: Checkout, their_side: Checkout) -> tuple[list[Case], list[Skipped]]:
        ours, theirs = our_side.cases(stage), their_side.cases(stage)
        lone = dict.fromkeys(ours.keys() - theirs.keys(), their_side)
        lone |= dict.fromkeys(theirs.keys() - ours.keys(), our_side)
        shared = [
            Case(
                stage,
                name,
                case.run,
                theirs[name].run,
                case.tokens,
                case.audio,
                case.length,
                their_audio=theirs[name].audio,
            )
            for name, case in ours.items()
            if name in theirs
        ]
        return shared, [Skipped(f"{stage}, {name}", f"{lone[name].root} has no such case") for name in sorted(lone)]

    def _prepared(self, voice: str | None) -> tuple[list[str | None], list[str]]:
        """Enrol the voice's reference on both sides: the voices that they are to use, and their versions."""
        voices: list[str | None] = [voice, voice]
        versions = []
        for place, (root, home) in enumerate(zip(self._roots, self._homes, strict=True)):
            with closing(Checkout(root, home)) as side:
                if place == 0 and voice is not None:
                    _, folder = side.use(voice, self._model_dir, PREPARED_IN)
                    # of both: a shipped voice may be another one there
                    voices = [str(copied_voice(Path(folder), home / "voices")) for home in self._homes]
                side.use(voices[place], self._model_dir, PREPARED_IN)
                side.prepare()
                versions.append(side.version)
        return voices, versions


def check_checkout(root: Path) -> Path:
    """Its whole path. Raises `BenchmarkError` where a folder is no checkout of this project."""
    for part in ("scripts/bench/stages.py", "python/gpt_sovits_mlx/__init__.py"):
        if not (root.expanduser() / part).is_file():
            raise BenchmarkError(f"{root} is no checkout of gpt-sovits-mlx: it has no {part}")
    return root.expanduser().resolve()


def copied_voice(folder: Path, into: Path) -> Path:
    """A copy of a voice in another folder, with the voices beside it whose names it mentions, and those that they do.

    Raises:
        BenchmarkError: it cannot be copied.
    """
    try:
        shutil.copytree(folder, into / folder.name)
        described = (folder / "voice.json").read_text(encoding="utf-8")
        for sister in folder.parent.iterdir():
            named = f'"{sister.name}"' in described and (sister / "voice.json").is_file()
            if named and not (into / sister.name).exists():
                copied_voice(sister, into)
    except OSError as error:
        raise BenchmarkError(f"cannot copy the voice {folder}: {error.strerror or error}") from None
    return into / folder.name


def commit(root: Path) -> str:
    """Of a checkout, with "-dirty" where it was changed since; "no commit" where git does not tell."""
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=7",
        "--exclude=*",
    ]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "no commit"
    return found.stdout.strip() or "no commit"
