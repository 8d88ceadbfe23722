"""Arrays that layers make of their parameters, in the layouts that a device wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

T = TypeVar("T")
Source = tuple[nn.Module, str]
"""A parameter: the module that holds it, and its name there."""


@dataclass(frozen=True)
class _Made(Generic[T]):
    """What was made, and of which arrays."""

    sources: Sequence[mx.array | None]
    value: T


class Derived(nn.Module, Generic[T]):
    """A layer that computes with something made of its parameters, and no parameter itself.

    It is made when it is first needed, and made again when one of `sources` has been replaced (by `update`, an
    optimiser, a merged adapter), so that it is never stale.

    Attributes:
        SHARES_SOURCES: whether something else uses the sources, too, so that `derive_all` must not let them go.
    """

    SHARES_SOURCES: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._made: _Made[T] | None = None

    def sources(self) -> Sequence[Source]:
        """The parameters that `derive` reads; none where the layer computes with its parameters as they are."""
        raise NotImplementedError

    def derive(self) -> T:
        """Make it, of the parameters as they are now."""
        raise NotImplementedError

    def derived(self) -> T:
        """What `derive` makes of the present parameters."""
        present, made = [module.get(name) for module, name in self.sources()], self._made
        if made is None or replaced(made.sources, present):
            made = self._made = _Made(present, self.derive())
        return made.value

    def release(self) -> None:
        """Let go of the sources; afterwards the layer computes, and cannot be saved."""
        value, sources = self.derived(), self.sources()
        mx.eval(list(arrays_in(value)))
        for module, name in sources:
            module.pop(name, None)
        self._made = _Made([None] * len(sources), value)


def replaced(before: Sequence[mx.array | None], now: Sequence[mx.array | None]) -> bool:
    """Whether arrays are others than they were, whatever numbers they hold."""
    return len(before) != len(now) or any(a is not b for a, b in zip(before, now, strict=True))


def derive_all(model: nn.Module, keep_sources: bool = True) -> None:
    """Make at once what all layers of a model compute with, and evaluate it: no lazy array may cross threads.

    Without `keep_sources`, parameters that serve for nothing else are let go, so that each number is held once.
    """
    layers = [module for module in model.modules() if isinstance(module, Derived) and module.sources()]
    if not keep_sources:
        for layer in layers:
            if not layer.SHARES_SOURCES:
                layer.release()
    for layer in layers:
        layer.derived()
    mx.eval(list(arrays_of(model)))


def parts_of(array: mx.array) -> list[mx.array]:
    """(n, …) → n arrays in its memory; an index, or a loop over it, would copy each."""
    return [part.squeeze(0) for part in mx.split(array, len(array))]


def arrays_of(model: nn.Module) -> Iterator[mx.array]:
    """All that a model holds: parameters, and what was made of them."""
    yield from arrays_in(model)
    for module in model.modules():
        if isinstance(module, Derived) and module._made is not None:
            yield from arrays_in(module._made.value)


def arrays_in(tree: Any) -> Iterator[mx.array]:
    """The arrays in dictionaries, lists, tuples and modules."""
    leaves: Any = tree_flatten(tree)
    yield from (leaf for _, leaf in leaves if isinstance(leaf, mx.array))
