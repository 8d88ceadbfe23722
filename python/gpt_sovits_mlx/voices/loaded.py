"""What is loaded: each thing once, whichever thread asks first, and no more than a number of bytes in all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import mlx.core as mx
import numpy as np

T = TypeVar("T")


class Loaded:
    """Things by key, loaded when they are first asked for. Threads may share it.

    Each key has a lock of its own: loading one thing does not hold up another, and a thing that two threads ask for is
    loaded once. Where what is kept exceeds `keep` bytes, what has not been asked for longest is let go. What a caller
    still holds of that lives on with the caller, and is given again to whoever asks meanwhile; nothing is loaded twice.

    Args:
        keep: bytes, at most, that are kept for those who ask again.
    """

    def __init__(self, keep: int):
        self.keep = keep
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._loading: dict[Hashable, _Loading] = {}
        self._alive: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    @property
    def bytes(self) -> int:
        """Of what is kept."""
        with self._lock:
            return sum(kept.bytes for kept in self._kept.values())

    def get(self, key: Hashable, load: Callable[[], T], size: Callable[[T], int] | None = None) -> T:
        """What is kept for `key`, else what `load` returns.

        What it raises is raised here and not remembered: whoever waited for it meanwhile tries himself.

        Args:
            key: of the thing.
            load: makes it; it may ask for other keys, but not in a circle.
            size: of the thing in bytes; by default that of its arrays.
        """
        while True:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key].value
                loading = self._loading.get(key)
                if loading is None:
                    loading = self._loading[key] = _Loading()
                    break
            loading.done.wait()
            if loading.loaded:
                return loading.value
        try:
            value = self._alive.get(key)
            value = load() if value is None else value
            self._keep(key, _Kept(value, (size or bytes_of)(value)))
            loading.value, loading.loaded = value, True
            return value
        finally:
            with self._lock:
                del self._loading[key]
            loading.done.set()

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        with self._lock:
            self._kept[key] = kept
            with suppress(TypeError):  # a string, say
                self._alive[key] = kept.value
            total = sum(other.bytes for other in self._kept.values())
            while total > self.keep:
                total -= self._kept.popitem(last=False)[1].bytes


@dataclass
class _Kept:
    value: Any
    bytes: int


@dataclass
class _Loading:
    """A load that is under way."""

    done: threading.Event = field(default_factory=threading.Event)
    loaded: bool = False
    value: Any = None


def bytes_of(thing: Any) -> int:
    """Bytes of the arrays that an object of this package holds, each counted once: MLX's, and numpy's that are no views
    of them."""
    total, seen, left = 0, set[int](), [thing]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, mx.array):
            total += part.nbytes
        elif isinstance(part, np.ndarray):
            if part.base is None:
                total += part.nbytes
            else:
                left.append(part.base)
        elif isinstance(part, dict):
            left += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            left += part
        if type(part).__module__.partition(".")[0] in ("gpt_sovits_mlx", "mlx"):
            left += getattr(part, "__dict__", {}).values()
    return total
