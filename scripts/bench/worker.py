"""What a process beside the benchmark's does: it serves the commands of `process.WorkerProcess`, and idles otherwise.

Only the standard library is imported here: what computes in the process is its own affair.
"""

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

SETTLING = 0.05
"""Seconds until the threads of OpenMP sleep: they spin for some 10 ms behind their work, which would slow the other
side. With OMP_WAIT_POLICY=PASSIVE they would not, and the reference would take a quarter longer for a decode."""


def serve(worker: object) -> None:
    """Call the worker's methods as they are asked for over the pipe whose number is the first argument.

    An answer is a pair: `None` and what the method returned, or the name of a class of `errors` and its message. Any
    other exception ends the process.
    """
    pipe, requests = Connection(int(sys.argv[1])), SimpleQueue[Any]()
    threading.Thread(target=_listen, args=(pipe, requests), daemon=True).start()
    while True:
        command, given = requests.get()
        try:
            answer = None, getattr(worker, command)(*given)
        except BenchmarkError as error:
            answer = type(error).__name__, str(error)
        pipe.send(answer)


def run_and_settle(clock: Callable[[], float]) -> float:
    """Seconds that a clock's work took. This returns when the process is idle."""
    seconds = clock()
    time.sleep(SETTLING)
    return seconds


def _listen(pipe: Connection, requests: SimpleQueue[Any]) -> None:
    """Hand on what is asked for, and end the process, whatever it is doing, when the other one is gone."""
    try:
        while True:
            requests.put(pipe.recv())
    finally:
        os._exit(0)
