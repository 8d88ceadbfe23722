"""The decoding loop: prefill, then one token a step for every row of a batch until each row has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx
import numpy as np

from .models.t2s import T2SState, TextToSemantic
from .sampling import Sampling, sample


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
        prompt: semantic tokens of the reference; all requests of a batch have the same number.
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


def generate(model: TextToSemantic, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
    """Decode a batch to its end. The result of a row does not depend on the rows beside it."""
    results = [Generation() for _ in requests]
    for step in decode_steps(model, requests, sampling):
        for row, token in step:
            if token is None:
                results[row].ended = True
            else:
                results[row].tokens.append(token)
    return results


def decode_steps(
    model: TextToSemantic, requests: Sequence[Request], sampling: Sampling
) -> Iterator[list[tuple[int, int | None]]]:
    """Decode a batch, yielding after each step (row, token) of the rows still going; `None` says that a row ended.

    The next step is under way on the device while this one's tokens are read back.
    """
    logits, state = _prefill(model, requests)
    vocab = logits.shape[-1]
    rows = list(range(len(requests)))
    going = set(rows)
    ids = mx.arange(vocab)
    seen = _seen(requests, vocab)
    noise = mx.zeros(0)
    for step in range(sampling.max_tokens):
        block, offset = divmod(step, requests[0].noise.BLOCK)
        if sampling.top_k > 1 and offset == 0:
            noise = mx.stack([requests[r].noise.block(block, vocab) for r in rows])
        tokens, ended = sample(logits, seen, noise[:, offset] if sampling.top_k > 1 else None, step, sampling)
        seen = seen | (ids == tokens[:, None])
        logits = model.decode(tokens, state)
        result = mx.where(ended, -1, tokens)
        mx.async_eval(result, seen, logits)
        # one small read-back for the whole batch
        events = [(r, t) for r, t in zip(rows, np.array(result).tolist(), strict=True) if r in going]
        going -= {r for r, t in events if t < 0}
        yield [(r, t if t >= 0 else None) for r, t in events]
        if not going:
            return
        if 2 * len(going) <= len(rows):
            keep = [i for i, r in enumerate(rows) if r in going]
            rows = [rows[i] for i in keep]
            index = mx.array(keep)
            logits, seen = logits[index], seen[index]
            noise = noise[index] if noise.size else noise
            state.select(keep)


def _prefill(model: TextToSemantic, requests: Sequence[Request]) -> tuple[mx.array, T2SState]:
    lengths = [len(r.phones) for r in requests]
    width = max(lengths)
    phones = np.zeros((len(requests), width), np.int32)
    for row, request in enumerate(requests):
        phones[row, : lengths[row]] = request.phones
    bert = None
    if any(r.bert is not None for r in requests):
        bert = mx.stack([_padded(r.bert, width, model.bert_width) for r in requests])
    if len({len(r.prompt) for r in requests}) > 1:
        raise ValueError("the requests of a batch must have prompts of the same length")
    prompt = np.array([r.prompt for r in requests], np.int32).reshape(len(requests), -1)
    logits, state = model.prefill(mx.array(phones), bert, mx.array(prompt), lengths)
    mx.eval(logits, state.arrays())
    return logits, state


def _padded(features: mx.array | None, length: int, width: int) -> mx.array:
    if features is None:
        return mx.zeros((length, width))
    return mx.pad(features.astype(mx.float32), [(0, length - features.shape[0]), (0, 0)])


def _seen(requests: Sequence[Request], vocab: int) -> mx.array:
    seen = np.zeros((len(requests), vocab), bool)
    for row, request in enumerate(requests):
        seen[row, list(request.prompt)] = True
    return mx.array(seen)
