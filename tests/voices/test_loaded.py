"""What is loaded: once each, nothing held up by anything else, the oldest let go first."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.voices.loaded import Loaded, bytes_of

PATIENCE = 30
"""Seconds after which a test that hangs fails."""


class Thing:
    """Something of a size, which can be referred to weakly."""

    def __init__(self, bytes: int):
        self.bytes = bytes


def size(thing: Thing) -> int:
    return thing.bytes


def get(loaded: Loaded, key: str, bytes: int = 10) -> Thing:
    return loaded.get(key, lambda: Thing(bytes), size)


def test_a_thing_is_loaded_once_for_all_threads():
    loaded, loads, together = Loaded(100), [], threading.Barrier(8)

    def load() -> Thing:
        loads.append(threading.get_ident())
        threading.Event().wait(0.1)  # the others ask meanwhile
        return Thing(1)

    def ask() -> Thing:
        together.wait(PATIENCE)
        return loaded.get("a", load, size)

    with ThreadPoolExecutor(8) as pool:
        things = [future.result(PATIENCE) for future in [pool.submit(ask) for _ in range(8)]]
    assert len(loads) == 1 and len({id(thing) for thing in things}) == 1


def test_a_slow_load_holds_up_no_other():
    loaded, begun, go = Loaded(100), threading.Event(), threading.Event()

    def slow() -> Thing:
        begun.set()
        assert go.wait(PATIENCE)
        return Thing(1)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(loaded.get, "slow", slow, size)
        assert begun.wait(PATIENCE)
        second = pool.submit(loaded.get, "slow", slow, size)
        assert pool.submit(get, loaded, "quick").result(PATIENCE).bytes == 10
        assert not first.done() and not second.done()
        go.set()
        assert first.result(PATIENCE) is second.result(PATIENCE)


def test_a_load_that_fails_can_be_tried_again_and_hangs_nobody():
    loaded, together, fails = Loaded(100), threading.Barrier(8), [True]

    def load() -> Thing:
        if fails[0]:
            raise OSError("no such thing")
        return Thing(1)

    def ask() -> Thing:
        together.wait(PATIENCE)
        return loaded.get("a", load, size)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(ask) for _ in range(8)]:
            with pytest.raises(OSError, match="no such thing"):
                future.result(PATIENCE)
    assert loaded.bytes == 0
    fails[0] = False
    assert loaded.get("a", load, size).bytes == 1


def test_what_was_not_used_for_longest_goes_first():
    loaded, loads = Loaded(30), []

    def ask(key: str) -> None:
        loaded.get(key, lambda: (loads.append(key), Thing(10))[1], size)

    for key in "abcad":  # b is the oldest when d comes
        ask(key)
    assert loads == [*"abcd"] and loaded.bytes == 30
    for key in "acd":
        ask(key)
    assert loads == [*"abcd"]
    ask("b")
    assert loads == [*"abcdb"]
    ask("a")  # it was the oldest of a, c, d
    assert loads == [*"abcdba"]


def test_something_large_lets_go_as_much_as_it_takes():
    loaded = Loaded(30)
    for key in "abc":
        get(loaded, key)
    get(loaded, "large", 25)
    assert loaded.bytes == 25
    # larger than all that may be kept: its caller has it, and nobody else
    assert get(loaded, "larger", 31).bytes == 31 and loaded.bytes == 0


def test_what_a_caller_holds_is_not_loaded_again():
    loaded = Loaded(10)
    held = get(loaded, "a")
    get(loaded, "b")
    assert loaded.bytes == 10
    assert get(loaded, "a") is held and loaded.bytes == 10
    alive = weakref.ref(held)
    del held
    get(loaded, "b")
    gc.collect()
    assert alive() is None  # nobody held it any more
    assert get(loaded, "a").bytes == 10


def test_a_load_may_ask_for_another_thing():
    loaded = Loaded(100)
    assert loaded.get("a", lambda: Thing(get(loaded, "b", 7).bytes), size).bytes == 7
    assert loaded.bytes == 14


def test_what_cannot_be_referred_to_weakly_is_kept_all_the_same():
    loaded = Loaded(100)
    assert loaded.get("hash", lambda: "abc") == "abc" and loaded.get("hash", fail) == "abc"


def fail() -> Any:
    raise AssertionError


def test_bytes_are_those_of_all_arrays_once():
    first = mx.zeros(10)
    mx.eval(first)
    view = np.array(first, copy=False)
    own = np.zeros((4, 4), np.float32)
    assert bytes_of([first, {"again": first, "view": view}, (own, own[:2], own.T)]) == 40 + 64
    assert bytes_of("text") == 0 and bytes_of(Thing(5)) == 0
