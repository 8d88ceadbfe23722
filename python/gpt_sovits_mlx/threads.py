"""Work in numpy on every core of a CPU, shared out among threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import pairwise

from threadpoolctl import ThreadpoolController

MOST = 8
"""Threads, at most: each call of numpy ends with a wait for Python's lock. On 16 cores 16 took twice as long as 8."""
_lock = threading.Lock()


class Threads:
    """The caller's thread and others, `count` in all, which share work out, each with a BLAS of one thread.

    threadpoolctl knows OpenBLAS, MKL and BLIS; Apple's Accelerate looks after its own threads.
    """

    def __init__(self, pool: ThreadPoolExecutor, count: int):
        self._pool, self.count = pool, count

    def share(self, work: Callable[[int, int], None], length: int, parts: int) -> None:
        """Call `work(first, last)` for so many parts of the numbers below `length`, and wait for all."""
        ends = [length * part // parts for part in range(parts + 1)]
        self._run(work, list(pairwise(ends)))

    # of its own, so that a profile can run it in one thread
    def _run(self, work: Callable[[int, int], None], parts: Sequence[tuple[int, int]]) -> None:
        left = deque(parts)

        def some() -> None:
            while True:
                try:
                    part = left.popleft()
                except IndexError:
                    return
                work(*part)

        others = [self._pool.submit(some) for _ in range(min(self.count, len(parts)) - 1)]
        try:
            some()
        finally:
            left.clear()  # where one failed
            wait(others)
        for other in others:
            other.result()


@contextmanager
def all_threads() -> Iterator[Threads]:
    """As many threads as BLAS would take (`OPENBLAS_NUM_THREADS` says how many), up to `MOST`, for one caller at a
    time."""
    with _lock:
        blas = _libraries().select(user_api="blas")
        count = min(max((library["num_threads"] for library in blas.info()), default=os.cpu_count() or 1), MOST)
        with blas.limit(limits=1):
            yield Threads(_others(count - 1), count)


@lru_cache(maxsize=1)
def _others(count: int) -> ThreadPoolExecutor:
    """Threads that stay. Where new ones come each time, those of BLAS end up together on a core: on two cores a
    prefill behind the vocoder took twice as long."""
    return ThreadPoolExecutor(max(1, count), thread_name_prefix="gpt-sovits-mlx")


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _forked() -> None:
    """A child has none of its parent's threads, and whoever held the lock is not among its own."""
    global _lock
    _lock = threading.Lock()
    _others.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
