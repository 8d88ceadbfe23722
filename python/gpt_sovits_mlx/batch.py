"""Batches of sentences that are decoded together, each row at a place of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from .kernels.decode_steps import DecodeRow, Draw
from .models.cache import KVCache
from .models.decode_host import host_rows
from .models.rows import Rows
from .models.t2s import T2SState, TextToSemantic
from .sampling import MIN_TOKENS, Sampling, sample

ROWS = 16
"""Sentences decoded together without the kernel; more would hold memory for little speed."""
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


class State(Protocol):
    """What decoding remembers of the rows of a batch."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        ...

    def join(self, other: Any) -> None:
        """Take in the rows of another state of the same kind."""
        ...

    def arrays(self) -> list[mx.array]:
        """What MLX may still have to evaluate."""
        ...


class Batch(ABC):
    """Requests that are decoded together.

    Attributes:
        rows: the request of each row.
        going: requests that have not ended.
        logits: (B, vocab) of the next tokens.
        seen: the tokens that have occurred in each row.
        blocks: each row's present variates.
    """

    state: State
    logits: mx.array
    seen: mx.array

    def __init__(self, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling):
        self.model, self.requests, self.sampling = model, requests, sampling
        self.rows, self.going = list(requests), set(requests)
        self.blocks: list[mx.array | None] = [None] * len(self.rows)

    @abstractmethod
    def advance(self) -> list[list[Event]]:
        """One step or more, and what each of them gave."""

    def shrink(self) -> None:
        """Drop the rows that have ended."""
        self.select([i for i, request in enumerate(self.rows) if request in self.going])

    def select(self, keep: Sequence[int]) -> None:
        """Keep only these rows."""
        index = mx.array(list(keep))
        self.logits, self.seen = self.logits[index], self.seen[index]
        self.rows, self.blocks = [self.rows[i] for i in keep], [self.blocks[i] for i in keep]
        self.state.select(keep)

    def join(self, other: Batch) -> None:
        """Take in the rows of another batch of the same kind."""
        self.requests = self.requests | other.requests
        self.rows, self.blocks = self.rows + other.rows, self.blocks + other.blocks
        self.going |= other.going
        self.logits = mx.concatenate([self.logits, other.logits])
        self.seen = mx.concatenate([self.seen, other.seen])
        self.state.join(other.state)
        mx.eval(self.logits, self.seen, self.state.arrays())

    def _draw_noise(self, steps: Sequence[int]) -> list[int]:
        """Draw the variates of rows that have used up theirs; the place in its block of each row's next step."""
        offsets = []
        for row, step in enumerate(steps):
            noise = self.requests[self.rows[row]].noise
            offsets.append(step % noise.BLOCK)
            if not offsets[-1] and self.sampling.top_k > 1 and self.rows[row] in self.going:
                self.blocks[row] = noise.block(step // noise.BLOCK, self.model.config.vocab_size)
        return offsets

    def _events(self, drawn: Sequence[int], steps: Sequence[int]) -> list[Event]:
        """What a step gave, −1 where a row ended; `steps` counts those of each row, this one included."""
        events: list[Event] = []
        for request, token, step in zip(self.rows, drawn, steps, strict=True):
            if request not in self.going:
                continue
            events.append((request, token if token >= 0 else None))
            if token < 0 or step >= self.sampling.max_tokens:
                self.going.remove(request)
        return events


class PlainBatch(Batch):
    """A step at a time, in MLX's operations or in the host's."""

    def __init__(self, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling):
        super().__init__(model, requests, sampling)
        given = list(requests.values())
        self.logits, self.state = _prefill(model, given)
        if model.host is not None:
            texts, prompts = [len(r.phones) for r in given], [len(r.prompt) for r in given]
            self.state = Rows(host_rows(self.state, texts, prompts))
        self.steps = [0] * len(given)
        self.ids = mx.arange(model.config.vocab_size)
        self.seen = mx.array(_seen(given, model.config.vocab_size))
        self.noise: mx.array | None = None

    def advance(self) -> list[list[Event]]:
        tokens, ended = sample(self.logits, self.seen, self._noise(), self.steps, self.sampling)
        self.seen = self.seen | (self.ids == tokens[:, None])
        self.steps = [step + 1 for step in self.steps]
        result, host = mx.where(ended, -1, tokens), self.model.host
        if host is None:  # the next step is under way while this one is read back
            assert isinstance(self.state, T2SState)
            self.logits = self.model.decode(tokens, self.state)
        mx.async_eval(result, self.seen, self.logits)
        # one small read-back for the whole batch
        drawn = np.array(result)
        events = self._events(drawn.tolist(), self.steps)
        if host is not None and self.going:
            assert isinstance(self.state, Rows)
            going = [i for i, request in enumerate(self.rows) if request in self.going]
            if len(going) < len(self.rows):  # rows without padding are dropped for nothing
                self.select(going)
            self.logits = host.decode(drawn[going], self.state.rows)
        return [events]

    def _noise(self) -> mx.array | None:
        """(B, vocab) variates of this step, by the step of each row."""
        if self.sampling.top_k == 1:
            return None
        offsets = self._draw_noise(self.steps)
        if self.noise is None or 0 in offsets:
            blocks = [block for block in self.blocks if block is not None]
            assert len(blocks) == len(self.blocks)
            self.noise = mx.stack(blocks)
        if len(set(offsets)) == 1:
            return self.noise[:, offsets[0]]
        return self.noise[mx.arange(len(offsets)), mx.array(offsets)]

    def select(self, keep: Sequence[int]) -> None:
        super().select(keep)
        self.steps, self.noise = [self.steps[i] for i in keep], None

    def join(self, other: Batch) -> None:
        assert isinstance(other, PlainBatch)
        super().join(other)
        self.steps, self.noise = self.steps + other.steps, None


class KernelBatch(Batch):
    """Several steps at a time, in the CUDA kernel. A row's keys and values are an array of their own."""

    def __init__(self, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling):
        super().__init__(model, requests, sampling)
        given = list(requests.values())
        vocabulary = model.config.vocab_size
        seen = np.pad(_seen(given, vocabulary), [(0, 0), (0, -vocabulary % 32)])
        self.seen = mx.array(np.packbits(seen, axis=1, bitorder="little").view(np.uint32))
        self.logits, state = _prefill(model, given)
        self.state = Rows(kernel_rows(state, given))

    def advance(self) -> list[list[Event]]:
        kernel, model = self.model.kernel, self.model
        assert kernel is not None and isinstance(self.state, Rows)
        states: list[DecodeRow] = self.state.rows
        offsets = self._draw_noise([state.step for state in states])
        # a stream waits for the first steps; later a row that ends in company loses what is left of a launch
        count = STEPS if len(states) > 1 or not states[0].step else LONG_STEPS
        count = min(count, *(self.requests[i].noise.BLOCK - n for i, n in zip(self.rows, offsets, strict=True)))
        live = [state if row in self.going else None for row, state in zip(self.rows, states, strict=True)]
        count = min(count, self.sampling.max_tokens - min(state.step for state in live if state))
        for state in live:
            if state:
                state.make_room(count, KVCache.STEP)
        spare = next(n for n in kernel.layouts if n >= len(states)) - len(states)
        furthest = max(state.position for state in states) + count
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
        self.logits, self.seen = logits[: len(states)], seen[: len(states)]
        # the rows' steps are now those behind the launch
        made = [
            self._events(drawn[: len(states), at].tolist(), [state.step - count + at + 1 for state in states])
            for at in range(count)
        ]
        return [events for events in made if events]


def batch_of(model: TextToSemantic, requests: dict[int, Request], sampling: Sampling) -> Batch:
    """A batch of requests that have been read, in the form that suits the back end."""
    form = PlainBatch if model.kernel is None else KernelBatch
    return form(model, requests, sampling)


def rows_for(model: TextToSemantic, wanted: int | None) -> int:
    """Sentences to decode together: as many as are wanted, or as gain speed, and as the kernel can take."""
    if model.kernel is None:
        return wanted or ROWS
    most = max(model.kernel.layouts)
    return min(wanted or most, most)


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
