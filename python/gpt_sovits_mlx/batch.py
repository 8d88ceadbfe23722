"""Batches of sentences that are decoded together, each row at a place of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
import numpy as np

from .kernels.decode_steps import DecodeRow, Draw
from .models.cache import KVCache
from .models.t2s import T2SState, TextToSemantic
from .sampling import MIN_TOKENS, Sampling, sample

ROWS = 16
"""Sentences decoded together in MLX's operations; more would hold memory for little speed."""
STEPS, LONG_STEPS = 16, 64
"""Steps of a launch of the decode kernel: at first and in company, and later alone."""
Event = tuple[int, int | None]
"""A request and its next token; `None` says that it ended."""


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


class Batch(Protocol):
    """Requests that are decoded together.

    Attributes:
        rows: the request of each row.
        going: requests that have not ended.
    """

    rows: list[int]
    going: set[int]

    def advance(self) -> list[list[Event]]:
        """One step or more, and what each of them gave."""
        ...

    def shrink(self) -> None:
        """Drop the rows that have ended."""
        ...

    def join(self, other: Batch) -> None:
        """Take in the rows of another batch of the same kind."""
        ...


class PlainBatch:
    """A step at a time, in MLX's operations."""

    def __init__(self, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling):
        self.model, self.requests, self.sampling = model, requests, sampling
        self.logits, self.state = _prefill(model, list(requests.values()))
        self.rows = list(requests)
        self.going = set(requests)
        self.steps = [0] * len(self.rows)
        self.vocab = self.logits.shape[-1]
        self.ids = mx.arange(self.vocab)
        self.seen = mx.array(_seen(list(requests.values()), self.vocab))
        self.blocks: list[mx.array] = [mx.zeros(0)] * len(self.rows)
        self.noise = mx.zeros(0)

    def advance(self) -> list[list[Event]]:
        tokens, ended = sample(self.logits, self.seen, self._noise(), self.steps, self.sampling)
        self.seen = self.seen | (self.ids == tokens[:, None])
        self.logits = self.model.decode(tokens, self.state)
        self.steps = [step + 1 for step in self.steps]
        result = mx.where(ended, -1, tokens)
        mx.async_eval(result, self.seen, self.logits)
        # one small read-back for the whole batch
        read = zip(self.rows, np.array(result).tolist(), self.steps, strict=True)
        events: list[Event] = []
        for request, token, step in read:
            if request not in self.going:
                continue
            events.append((request, token if token >= 0 else None))
            if token < 0 or step == self.sampling.max_tokens:
                self.going.remove(request)
        return [events]

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
        keep = [i for i, request in enumerate(self.rows) if request in self.going]
        index = mx.array(keep)
        self.logits, self.seen = self.logits[index], self.seen[index]
        self.rows, self.steps = [self.rows[i] for i in keep], [self.steps[i] for i in keep]
        self.blocks = [self.blocks[i] for i in keep]
        self.noise = mx.zeros(0)
        self.state.select(keep)

    def join(self, other: Batch) -> None:
        assert isinstance(other, PlainBatch)
        self.requests = self.requests | other.requests
        self.rows, self.steps = self.rows + other.rows, self.steps + other.steps
        self.blocks = self.blocks + other.blocks
        self.going |= other.going
        self.logits = mx.concatenate([self.logits, other.logits])
        self.seen = mx.concatenate([self.seen, other.seen])
        self.noise = mx.zeros(0)
        self.state.join(other.state)
        mx.eval(self.logits, self.seen, self.state.arrays())


class KernelBatch:
    """Several steps at a time, in the CUDA kernel. A row's keys and values are an array of their own, so that rows come
    and go without copies of the others'."""

    def __init__(self, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling):
        self.model, self.requests, self.sampling = model, requests, sampling
        given = list(requests.values())
        self.logits, state = _prefill(model, given)
        vocabulary = model.config.vocab_size
        seen = np.pad(_seen(given, vocabulary), [(0, 0), (0, -vocabulary % 32)])
        self.seen = mx.array(np.packbits(seen, axis=1, bitorder="little").view(np.uint32))
        self.rows, self.going = list(requests), set(requests)
        self.state = kernel_rows(state, given)
        self.blocks: list[mx.array | None] = [None] * len(given)

    def advance(self) -> list[list[Event]]:
        kernel, model = self.model.kernel, self.model
        assert kernel is not None
        offsets = [state.step % self._noise(i).BLOCK for i, state in enumerate(self.state)]
        # a stream waits for the first steps; later a row that ends in company loses what is left of a launch
        count = STEPS if len(self.rows) > 1 or not self.state[0].step else LONG_STEPS
        count = min(count, *(self._noise(i).BLOCK - offset for i, offset in enumerate(offsets)))
        going = [s.step for row, s in zip(self.rows, self.state, strict=True) if row in self.going]
        count = min(count, self.sampling.max_tokens - min(going))
        for row, state in zip(self.rows, self.state, strict=True):
            if row in self.going:
                state.make_room(count, KVCache.STEP)
        size = next(n for n in kernel.layouts if n >= len(self.rows))
        spare = size - len(self.rows)
        live = [s if r in self.going else None for r, s in zip(self.rows, self.state, strict=True)]
        self._draw_noise(offsets)
        furthest = max(state.position for state in self.state) + count
        drawn, logits, seen = kernel.steps(
            live + [None] * spare,
            mx.pad(self.logits, [(0, spare), (0, 0)]) if spare else self.logits,
            mx.pad(self.seen, [(0, spare), (0, 0)]) if spare else self.seen,
            self.blocks + [None] * spare,
            offsets + [0] * spare,
            model.audio_positions.first(furthest),
            Draw(
                self.sampling.top_k,
                self.sampling.top_p,
                self.sampling.temperature,
                self.sampling.repetition_penalty,
                MIN_TOKENS,
            ),
            count,
        )
        self.logits, self.seen = logits[: len(self.rows)], seen[: len(self.rows)]
        made = [self._events(drawn[:, step], step - count) for step in range(count)]
        return [events for events in made if events]

    def _events(self, drawn: np.ndarray, back: int) -> list[Event]:
        """What a step gave; it lies `back` (negative) steps before the rows' present state."""
        events: list[Event] = []
        for row, state, token in zip(self.rows, self.state, drawn.tolist(), strict=False):
            if row not in self.going:
                continue
            events.append((row, token if token >= 0 else None))
            if token < 0 or state.step + back + 1 >= self.sampling.max_tokens:
                self.going.remove(row)
        return events

    def _draw_noise(self, offsets: Sequence[int]) -> None:
        if self.sampling.top_k == 1:
            return
        for row, (offset, state) in enumerate(zip(offsets, self.state, strict=True)):
            if offset == 0 and self.rows[row] in self.going:
                noise = self._noise(row)
                self.blocks[row] = noise.block(state.step // noise.BLOCK, self.model.config.vocab_size)

    def _noise(self, row: int) -> Noise:
        return self.requests[self.rows[row]].noise

    def shrink(self) -> None:
        keep = [i for i, request in enumerate(self.rows) if request in self.going]
        index = mx.array(keep)
        self.logits, self.seen = self.logits[index], self.seen[index]
        self.rows, self.state = [self.rows[i] for i in keep], [self.state[i] for i in keep]
        self.blocks = [self.blocks[i] for i in keep]

    def join(self, other: Batch) -> None:
        assert isinstance(other, KernelBatch)
        self.requests = self.requests | other.requests
        self.rows, self.state = self.rows + other.rows, self.state + other.state
        self.blocks = self.blocks + other.blocks
        self.going |= other.going
        self.logits = mx.concatenate([self.logits, other.logits])
        self.seen = mx.concatenate([self.seen, other.seen])


def _prefill(model: TextToSemantic, requests: Sequence[Request]) -> tuple[mx.array, T2SState]:
    phones, lengths = padded_ids([r.phones for r in requests])
    prompt, prompt_lengths = padded_ids([r.prompt for r in requests])
    bert = None
    if any(r.bert is not None for r in requests):
        bert = mx.stack([_padded(r.bert, phones.shape[1], model.bert_width) for r in requests])
    logits, state = model.prefill(phones, bert, prompt, lengths, prompt_lengths)
    mx.eval(logits, state.arrays())
    return logits, state


def padded_ids(rows: Sequence[Sequence[int]]) -> tuple[mx.array, list[int]]:
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


def _seen(requests: Sequence[Request], vocab: int) -> np.ndarray:
    """(B, vocab) bool: the tokens of the prompts."""
    seen = np.zeros((len(requests), vocab), bool)
    for row, request in enumerate(requests):
        seen[row, list(request.prompt)] = True
    return seen


def kernel_rows(state: T2SState, requests: Sequence[Request]) -> list[DecodeRow]:
    """The rows of a batch that has been read, with room for the first steps.

    In the batch the texts are padded to the longest, the prompts behind them likewise: a row leaves a gap behind its
    text, and writes over what pads its prompt.
    """
    width = max(len(r.phones) for r in requests)
    arrays = [a for c in state.caches for a in (c.keys, c.values) if a is not None]
    stacked = mx.stack(arrays).reshape(len(state.caches), 2, *arrays[0].shape)
    rows = []
    for at, request in enumerate(requests):
        text, prompt = len(request.phones), len(request.prompt)
        own = mx.contiguous(stacked[:, :, at])
        rows.append(DecodeRow(own, text + prompt, text, width - text, prompt))
    mx.eval([row.cache for row in rows])
    return rows
