"""The decoding loop: one token a step for every row of a batch; rows that end make room for the next sentences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .batch import Batch, Event, Noise, Request, batch_of, rows_for
from .models.t2s import TextToSemantic
from .sampling import Sampling

__all__ = ["Generation", "Noise", "Request", "decode_steps", "generate"]


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
    requests: Sequence[Request],
    sampling: Sampling,
    rows: int | None = None,
    done: Callable[[], None] | None = None,
) -> list[Generation]:
    """Decode requests to their ends, `rows` of them at a time, by default as many as suit the back end.

    What one gets does not depend on the others. `done` is called as each of them is finished.
    """
    results = [Generation() for _ in requests]
    for step in decode_steps(model, requests, sampling, rows):
        for request, token in step:
            result = results[request]
            result.take(token)
            if done and (result.ended or len(result.tokens) == sampling.max_tokens):
                done()
    return results


def decode_steps(
    model: TextToSemantic, requests: Sequence[Request], sampling: Sampling, rows: int | None = None
) -> Iterator[list[Event]]:
    """Decode requests, yielding after each step (request, token) of those under way; `None` says that one ended.

    Continuous batching (Yu et al. 2022, "Orca"): when a quarter of the rows have ended, the next requests take their
    places.
    """
    rows = rows_for(model, rows)
    waiting = deque(range(len(requests)))
    batch: Batch | None = None
    while batch or waiting:
        free = rows - (len(batch.going) if batch else 0)
        if waiting and (batch is None or 4 * free >= rows):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            fresh = batch_of(model, {i: requests[i] for i in chosen}, sampling)
            if batch is None:
                batch = fresh
            else:
                batch.shrink()
                batch.join(fresh)
            del fresh
        assert batch is not None
        yield from batch.advance()
        if not batch.going:
            batch = None
        elif not waiting and 2 * len(batch.going) <= len(batch.rows):
            batch.shrink()
