"""The decoding loop: one token a step for every row of a batch; rows that end make room for the next sentences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx
import numpy as np

from .models.t2s import T2SState, TextToSemantic
from .sampling import Sampling, sample

ROWS = 16
"""Sentences decoded together; more would hold memory for little speed."""


class Noise(Protocol):
    """Where a sentence's exponential variates come from."""

    @property
    def BLOCK(self) -> int: ...

    def block(self, number: int, width: int) -> mx.array:
        """The variates (BLOCK, width) of the steps from number · BLOCK on."""
        ...


@dataclass(frozen=True)
class Request:
    """One sentence to decode.

    Attributes:
        phones: ids of the prompt's phones, then the sentence's.
        prompt: semantic tokens of the reference.
        noise: the variates to sample with.
        bert: (len(phones), bert_width) features, or `None` for zeros.
    """

    phones: Sequence[int]
    prompt: Sequence[int]
    noise: Noise
    bert: mx.array | None = None


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
    rows: int = ROWS,
    done: Callable[[], None] | None = None,
) -> list[Generation]:
    """Decode requests to their ends, `rows` of them at a time. What one gets does not depend on the others.

    `done` is called as each of them is finished.
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
    model: TextToSemantic, requests: Sequence[Request], sampling: Sampling, rows: int = ROWS
) -> Iterator[list[tuple[int, int | None]]]:
    """Decode requests, yielding after each step (request, token) of those under way; `None` says that one ended.

    Continuous batching (Yu et al. 2022, "Orca"): when a quarter of the rows have ended, the next requests take their
    places. The next step is under way on the device while this one's tokens are read back.
    """
    waiting = deque(range(len(requests)))
    batch: _Batch | None = None
    while batch or waiting:
        free = rows - (len(batch.going) if batch else 0)
        if waiting and (batch is None or 4 * free >= rows):
            chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            fresh = _Batch.of(model, {i: requests[i] for i in chosen}, sampling)
            if batch is None:
                batch = fresh
            else:
                batch.shrink()
                batch.join(fresh)
        assert batch is not None
        yield batch.step()
        if not batch.going:
            batch = None
        elif not waiting and 2 * len(batch.going) <= len(batch.rows):
            batch.shrink()


class _Batch:
    """Requests that are decoded together: `rows` holds each row's request, `going` those that have not ended."""

    def __init__(
        self, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling, logits: mx.array, state: T2SState
    ):
        self.model, self.requests, self.sampling = model, requests, sampling
        self.logits, self.state = logits, state
        self.rows = list(requests)
        self.going = set(requests)
        self.steps = [0] * len(self.rows)
        self.vocab = logits.shape[-1]
        self.ids = mx.arange(self.vocab)
        self.seen = _seen(list(requests.values()), self.vocab)
        self.blocks: list[mx.array] = [mx.zeros(0)] * len(self.rows)
        self.noise = mx.zeros(0)

    @classmethod
    def of(cls, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling) -> _Batch:
        return cls(model, requests, sampling, *_prefill(model, list(requests.values())))

    def step(self) -> list[tuple[int, int | None]]:
        tokens, ended = sample(self.logits, self.seen, self._noise(), self.steps, self.sampling)
        self.seen = self.seen | (self.ids == tokens[:, None])
        self.logits = self.model.decode(tokens, self.state)
        self.steps = [step + 1 for step in self.steps]
        result = mx.where(ended, -1, tokens)
        mx.async_eval(result, self.seen, self.logits)
        # one small read-back for the whole batch
        read = zip(self.rows, np.array(result).tolist(), self.steps, strict=True)
        events: list[tuple[int, int | None]] = []
        for request, token, step in read:
            if request not in self.going:
                continue
            events.append((request, token if token >= 0 else None))
            if token < 0 or step == self.sampling.max_tokens:
                self.going.remove(request)
        return events

    def _noise(self) -> mx.array | None:
        """(B, vocab) variates of this step, by the step of each row."""
        if self.sampling.top_k == 1:
            return None
        size = self.requests[self.rows[0]].noise.BLOCK
        due = [row for row, step in enumerate(self.steps) if step % size == 0]
        for row in due:
            noise = self.requests[self.rows[row]].noise
            self.blocks[row] = noise.block(self.steps[row] // size, self.vocab)
        if due or not self.noise.size:
            self.noise = mx.stack(self.blocks)
        offsets = [step % size for step in self.steps]
        if len(set(offsets)) == 1:
            return self.noise[:, offsets[0]]
        return self.noise[mx.arange(len(offsets)), mx.array(offsets)]

    def shrink(self) -> None:
        """Drop the rows that have ended."""
        keep = [i for i, request in enumerate(self.rows) if request in self.going]
        index = mx.array(keep)
        self.logits, self.seen = self.logits[index], self.seen[index]
        self.rows, self.steps = [self.rows[i] for i in keep], [self.steps[i] for i in keep]
        self.blocks = [self.blocks[i] for i in keep]
        self.noise = mx.zeros(0)
        self.state.select(keep)

    def join(self, other: _Batch) -> None:
        """Take in the rows of another batch."""
        self.requests = self.requests | other.requests
        self.rows, self.steps = self.rows + other.rows, self.steps + other.steps
        self.blocks = self.blocks + other.blocks
        self.going |= other.going
        self.logits = mx.concatenate([self.logits, other.logits])
        self.seen = mx.concatenate([self.seen, other.seen])
        self.noise = mx.zeros(0)
        self.state.join(other.state)
        mx.eval(self.logits, self.seen, self.state.arrays())


def _prefill(model: TextToSemantic, requests: Sequence[Request]) -> tuple[mx.array, T2SState]:
    phones, lengths = _padded_ids([r.phones for r in requests])
    prompt, prompt_lengths = _padded_ids([r.prompt for r in requests])
    bert = None
    if any(r.bert is not None for r in requests):
        bert = mx.stack([_padded(r.bert, phones.shape[1], model.bert_width) for r in requests])
    logits, state = model.prefill(phones, bert, prompt, lengths, prompt_lengths)
    mx.eval(logits, state.arrays())
    return logits, state


def _padded_ids(rows: Sequence[Sequence[int]]) -> tuple[mx.array, list[int]]:
    """(B, longest) ids with zeros behind, and the rows' lengths."""
    lengths = [len(row) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), np.int32)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    return mx.array(ids), lengths


def _padded(features: mx.array | None, length: int, width: int) -> mx.array:
    if features is None:
        return mx.zeros((length, width))
    return mx.pad(features.astype(mx.float32), [(0, length - features.shape[0]), (0, 0)])


def _seen(requests: Sequence[Request], vocab: int) -> mx.array:
    seen = np.zeros((len(requests), vocab), bool)
    for row, request in enumerate(requests):
        seen[row, list(request.prompt)] = True
    return mx.array(seen)
