"""Loading on first use, once, whichever thread asks first."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import TypeVar

T = TypeVar("T")


def loaded_once(load: Callable[[], T]) -> Callable[[], T]:
    """`load` called a single time: threads that ask meanwhile wait for its value instead of loading it too."""
    lock = RLock()
    loaded: list[T] = []

    @wraps(load)
    def value() -> T:
        if not loaded:
            with lock:
                if not loaded:
                    loaded.append(load())
        return loaded[0]

    return value
