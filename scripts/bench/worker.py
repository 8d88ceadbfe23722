"""The process of the reference: it does what `reference.Reference` asks for over a pipe, and idles otherwise."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from .errors import BenchmarkError
from .torch_reference import TorchReference

SETTLING = 0.05
"""Seconds until the threads of OpenMP sleep: they spin for some 10 ms behind their work, which would slow ours. With
OMP_WAIT_POLICY=PASSIVE they would not, and the reference would take a quarter longer for a decode."""


class Worker:
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
        """Seconds that a clock's work took. The answer waits until this process is idle."""
        seconds = self.clocks[number]()
        time.sleep(SETTLING)
        return seconds


def main() -> None:
    """Serve the pipe whose number is the argument."""
    pipe, requests = Connection(int(sys.argv[1])), SimpleQueue[Any]()
    threading.Thread(target=listen, args=(pipe, requests), daemon=True).start()
    worker = Worker()
    while True:
        command, given = requests.get()
        try:
            answer = getattr(worker, command)(*given)
        except BenchmarkError as error:
            answer = error
        pipe.send(answer)


def listen(pipe: Connection, requests: SimpleQueue[Any]) -> None:
    """Hand on what is asked for, and end the process, whatever it is doing, when the other one is gone."""
    try:
        while True:
            requests.put(pipe.recv())
    finally:
        os._exit(0)
