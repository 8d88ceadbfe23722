"""Which operations a stage's time goes to."""

from __future__ import annotations

import inspect
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from gpt_sovits_mlx.threads import Threads

from .measure import Case

PACKAGES = ("gpt_sovits_mlx.decoding.", "gpt_sovits_mlx.layers.", "gpt_sovits_mlx.models.", "mlx.nn.layers.")


class Profile:
    """Seconds by operation.

    Every layer is made to evaluate what it is given and what it returns, so an operation's time is its own: not that
    of the layers inside it, nor of lazy work before it. This costs what lazy evaluation, compilation and several cores
    gain: take the shares, not the sum.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner: list[float] = []

    def operations(self, case: Case, most: int) -> list[dict[str, Any]]:
        """The slowest of a case, run once to warm up and once to be measured."""
        case.ours()
        with self._wrapped():
            start = time.perf_counter()
            case.ours()
            total = time.perf_counter() - start
        outside = total - sum(self.seconds.values())
        found = {**self.seconds, "outside of layers": outside}
        slowest = sorted(found, key=lambda name: -found[name])[:most]
        return [
            {
                "stage": case.stage,
                "case": case.name,
                "operation": name,
                "calls": self.calls.get(name, 1),
                "seconds": found[name],
                "share": found[name] / total,
            }
            for name in slowest
        ]

    @contextmanager
    def _wrapped(self) -> Iterator[None]:
        """All layers of the package and MLX's attention, under this profile."""
        layers = {kind: kind.__call__ for kind in _layers()}
        attention, run = mx.fast.scaled_dot_product_attention, Threads._run
        # nothing can be evaluated inside a compiled function
        mx.disable_compile()
        try:
            for kind, call in layers.items():
                kind.__call__ = self._timed(call, lambda self, *given: _label(self, given))
            mx.fast.scaled_dot_product_attention = self._timed(attention, lambda *_: "attention")
            Threads._run = _in_this_thread
            yield
        finally:
            for kind, call in layers.items():
                kind.__call__ = call
            mx.fast.scaled_dot_product_attention, Threads._run = attention, run
            mx.enable_compile()

    def _timed(self, call: Callable[..., Any], label: Callable[..., str]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            mx.eval([value for value in (*given, *named.values()) if isinstance(value, mx.array)])
            start = time.perf_counter()
            self._inner.append(0.0)
            result = call(*given, **named)
            mx.eval(result)
            seconds = time.perf_counter() - start
            name = label(*given)
            self.seconds[name] += seconds - self._inner.pop()
            self.calls[name] += 1
            if self._inner:
                self._inner[-1] += seconds
            return result

        return timed


def _in_this_thread(self: Threads, work: Callable[[int, int], None], parts: Sequence[tuple[int, int]]) -> None:
    """What the vocoder's threads share, where it is measured."""
    for part in parts:
        work(*part)


def _layers() -> list[Any]:
    """Every class of layers and models that is called."""
    return [
        kind
        for name, module in list(sys.modules.items())
        if name.startswith(PACKAGES)
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == name and "__call__" in vars(kind)
    ]


def _label(layer: Any, given: tuple[Any, ...]) -> str:
    """Its class and, of a leaf, its sizes."""
    name, weight = type(layer).__name__, getattr(layer, "weight", None)
    parts = [*vars(layer).values(), *(layer.values() if isinstance(layer, nn.Module) else [])]
    if any(isinstance(part, list) or type(part).__module__.startswith(PACKAGES) for part in parts):
        return f"{name}, beside its layers"
    if not isinstance(weight, (mx.array, np.ndarray)):
        return name
    sizes = "×".join(map(str, weight.shape))
    stride, dilation = getattr(layer, "stride", 1), getattr(layer, "dilation", 1)
    details = [f"stride {stride}"] * (stride > 1) + [f"dilation {dilation}"] * (dilation > 1)
    return " ".join([name, sizes, *details])
