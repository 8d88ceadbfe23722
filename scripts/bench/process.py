"""A process beside this one, which does what it is asked for while this one waits, and sleeps otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from . import errors
from .errors import BenchmarkError

ROOT = Path(__file__).resolve().parents[2]
"""Of this checkout."""
START = f"import sys; sys.path[0] = {str(ROOT)!r}; from scripts.bench.%s import main; main()"
"""`multiprocessing` would import the main script instead, and MLX with it."""
SETTLED_BY_PACKAGE = ("OPENBLAS_THREAD_TIMEOUT", "MLX_ENABLE_TF32", "MLX_CUDA_CONV_CACHE_SIZE")
"""What importing gpt_sovits_mlx sets in this process: the reference is to have none of it, and another checkout of
gpt_sovits_mlx its own (and so not the user's either, which cannot be told from them here)."""


class WorkerProcess:
    """A module of this package that has a `main` with `worker.serve`, running in a process of its own.

    Args:
        module: its name.
        whose: whom errors name, as in "the reference".
        given: what its command `open` is given, which it gets first.

    Attributes:
        opened: what `open` answered.

    Raises:
        BenchmarkError: `open` failed.
    """

    def __init__(self, module: str, whose: str, *given: Any):
        self._whose = whose
        self._pipe, its = Pipe()
        # a session of its own: an interrupt is for this process, and that one ends with it
        self._process = subprocess.Popen(
            [sys.executable, "-c", START % module, str(its.fileno())],
            pass_fds=[its.fileno()],
            env={name: value for name, value in os.environ.items() if name not in SETTLED_BY_PACKAGE},
            start_new_session=True,
        )
        its.close()
        try:
            self.opened: Any = self.ask("open", *given)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()

    def ask(self, command: str, *given: Any) -> Any:
        """What the worker's method of that name returns.

        Raises:
            BenchmarkError: it raised that, or the process has ended.
        """
        try:
            self._pipe.send((command, given))
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            raise BenchmarkError(
                f"{self._whose}'s process ended (status {status}): what it printed may say why"
            ) from None
        if kind is not None:
            raise getattr(errors, kind)(answer)
        return answer
