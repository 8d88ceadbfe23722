"""Our work in the benchmark's own process, alone or beside the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt_sovits_mlx.tuning import forms, trying

from .measure import Case, Skipped
from .memory import OwnMemory
from .reference import Reference
from .stages import STAGES
from .workbench import Workbench

HOME = "GPT_SOVITS_MLX_HOME"


class OwnProcess:
    """Makes the cases of this process.

    Args:
        reference: what takes turns with us; `None` where nothing does.
        voice: name or folder; `None` for made-up weights.
        model_dir: folder with `voices/` and `encoders/`.
        work: temporary folder.

    Attributes:
        other: "reference", or "" where we are alone.
        versions: of the reference.
        meters: of our memory.
    """

    def __init__(self, reference: Reference | None, voice: str | None, model_dir: Path, work: Path):
        self.other = "reference" if reference else ""
        self.versions = reference.versions if reference else {}
        self.meters = (OwnMemory(),)
        self._reference, self._voice, self._model_dir, self._work = reference, voice, model_dir, work

    @property
    def label(self) -> str:
        """What is computed in."""
        return self._bench.label

    def use(self, precision: str) -> None:
        """Compute in this type from now on."""
        if self._voice is None:
            self._bench = Workbench.of_random(precision, self._work)
        else:
            self._bench = Workbench.of_voice(self._voice, self._model_dir, precision, self._work)

    def cases(self, stage: str) -> tuple[Iterator[Case], list[Skipped]]:
        """The stage's, loaded as they are asked for, and those left out: none.

        Raises:
            Absent: the voice has nothing to measure; at the first case.
        """
        if self._reference:
            self._reference.use(self._bench.precision)  # drops what the stage before loaded there
        return STAGES[stage](self._bench, self._reference), []

    def profiled(self, stage: str) -> Case | None:
        """The case that `--profile` takes, without the reference; `None` where the stage has none."""
        return next((case for case in STAGES[stage](self._bench, None) if case.profiled), None)


@contextmanager
def own_process(reference: Reference | None, voice: str | None, model_dir: Path, work: Path) -> Iterator[OwnProcess]:
    """What is enrolled meanwhile leaves nothing in the user's cache; what the user's machine was tuned to holds."""
    before = os.environ.get(HOME)
    with trying(forms()):
        os.environ[HOME] = str(work)
        try:
            yield OwnProcess(reference, voice, model_dir, work)
        finally:
            if before is None:
                del os.environ[HOME]
            else:
                os.environ[HOME] = before
