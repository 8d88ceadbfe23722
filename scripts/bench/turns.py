"""Two sides that take turns at the same work, so that what drifts on a machine meets both alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Clock = Callable[[], float]
"""Does a piece of work to its end and returns the seconds that it took."""
WARMING = 3
"""Turns before the first that counts: the reference's compiled graphs settle in the third. One where that is long."""
LONG = 20.0
"""Seconds after which a case gets no more turns than `FEWEST`."""
FEWEST = 3


def warm_up(sides: Sequence[Clock]) -> None:
    """Some turns that do not count."""
    spent = 0.0
    for number in range(WARMING):
        if spent < LONG:
            spent += sum(_turn(sides, number))


def take_turns(sides: Sequence[Clock], repeats: int) -> list[list[float]]:
    """Seconds of each side, in the order of the turns; what stands at one place of all of them was one turn."""
    turns: list[list[float]] = []
    while len(turns) < (min(repeats, FEWEST) if sum(map(sum, turns)) > LONG else repeats):
        turns.append(_turn(sides, len(turns)))
    return [list(seconds) for seconds in zip(*turns, strict=True)]


def _turn(sides: Sequence[Clock], number: int) -> list[float]:
    """Each side once, in every second turn the other way round: A B, B A, A B, …; seconds in the order of the sides."""
    order = range(len(sides))
    seconds = {side: sides[side]() for side in (reversed(order) if number % 2 else order)}
    return [seconds[side] for side in order]
