"""The process of the reference: it does what `reference.Reference` asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .torch_reference import TorchReference
from .worker import run_and_settle, serve


class ReferenceWorker:
    """The commands. A clock is made once and known by its number."""

    reference: TorchReference

    def __init__(self) -> None:
        self.clocks: list[Callable[[], float]] = []

    def open(self, *given: Any) -> dict[str, str]:
        """The first command: load the reference, and tell its versions."""
        self.reference = TorchReference(*given)
        return self.reference.versions

    def use(self, precision: str) -> None:
        """Compute in this type from now on. The models and clocks so far are dropped."""
        self.clocks.clear()
        self.reference.use(precision)

    def make(self, work: str, *given: Any) -> int:
        """The number of a new clock."""
        self.clocks.append(getattr(self.reference, work)(*given))
        return len(self.clocks) - 1

    def run(self, number: int) -> float:
        """Seconds that a clock's work took; the answer comes when the process is idle."""
        return run_and_settle(self.clocks[number])


def main() -> None:
    serve(ReferenceWorker())
