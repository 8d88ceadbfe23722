"""From requests to tokens: sentences that end make room for the next ones."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..models.t2s import TextToSemantic
from .decoder import DecodeRequest, Event
from .forms import decoder_for


@dataclass
class Generation:
    """The new semantic tokens of a request; `ended` is false where `max_tokens` cut it off."""

    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    def take(self, token: int | None) -> None:
        """Add the next token; `None` is the end."""
        if token is None:
            self.ended = True
        else:
            self.tokens.append(token)


def generate(
    model: TextToSemantic,
    requests: Sequence[DecodeRequest],
    rows: int | None = None,
    done: Callable[[], None] | None = None,
) -> list[Generation]:
    """Decode requests to their ends, `rows` of them at a time, by default as many as suit the back end.

    What one gets does not depend on the others. `done` is called as each of them is finished.
    """
    results = [Generation() for _ in requests]
    for step in decode_steps(model, requests, rows):
        for number, token in step:
            results[number].take(token)
            if done and (token is None or len(results[number].tokens) == requests[number].sampling.max_tokens):
                done()
    return results


def decode_steps(
    model: TextToSemantic, requests: Sequence[DecodeRequest], rows: int | None = None
) -> Iterator[list[Event]]:
    """Decode requests, yielding after each step (number, token) of those under way; `None` says that one ended.

    Continuous batching (Yu et al. 2022, "Orca"): when a quarter of the rows have ended, the next requests take their
    places.
    """
    decoder = decoder_for(model)
    rows = min(rows or decoder.usual_rows, decoder.most_rows or sys.maxsize)
    waiting = deque(range(len(requests)))
    while len(decoder) or waiting:
        free = rows - len(decoder)
        if waiting and 4 * free >= rows:
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            decoder.join({number: requests[number] for number in chosen})
        yield from decoder.advance()
