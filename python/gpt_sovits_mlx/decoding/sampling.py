"""Logits and noise → token, in the reference's order. Pure functions over (B, vocab) arrays in float32."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..settings import Sampling

MIN_TOKENS = 11
"""The reference removes the end token from the first 11 steps: no utterance is shorter than 0.44 s."""
LEAST_TEMPERATURE = 1e-5
"""What a temperature of 0 means, as in the reference."""


@dataclass(frozen=True)
class BatchSampling:
    """The settings of the rows of a batch: a number where all rows agree, else an array (B, 1).

    Attributes:
        top_k: of each row.
    """

    top_k: tuple[int, ...]
    top_p: float | mx.array
    temperature: float | mx.array
    repetition_penalty: float | mx.array

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> BatchSampling:
        def common(values: Sequence[float]) -> float | mx.array:
            return float(values[0]) if len(set(values)) == 1 else mx.array(list(values), mx.float32)[:, None]

        return cls(
            top_k=tuple(row.top_k for row in rows),
            top_p=common([1.0 if row.top_k == 1 else row.top_p for row in rows]),
            temperature=common([max(row.temperature, LEAST_TEMPERATURE) for row in rows]),
            repetition_penalty=common([row.repetition_penalty for row in rows]),
        )

    @property
    def greedy(self) -> tuple[bool, ...]:
        """Whether each row takes its likeliest token, and needs no noise."""
        return tuple(top_k == 1 for top_k in self.top_k)


def penalise(logits: mx.array, seen: mx.array, penalty: float | mx.array) -> mx.array:
    """Repetition penalty (Keskar et al. 2019): each token of `seen` (B, vocab) once, however often it occurred."""
    if isinstance(penalty, float) and penalty == 1:
        return logits
    return mx.where(seen, mx.where(logits < 0, logits * penalty, logits / penalty), logits)


def nucleus(logits: mx.array, top_p: float | mx.array) -> mx.array:
    """Top-p filter (Holtzman et al. 2020) as the reference has it: the token that crosses the threshold goes too.

    Args:
        logits: (B, vocab).
        top_p: for all rows, or (B, 1); 1 keeps all.
    """
    if isinstance(top_p, mx.array):
        top_p = mx.where(top_p < 1, top_p, mx.inf)
    elif top_p >= 1:
        return logits
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
    remove = mx.cumsum(probabilities, axis=-1) > top_p
    remove[:, 0] = False
    remove = mx.put_along_axis(mx.zeros_like(remove), order, remove, axis=-1)
    return mx.where(remove, -mx.inf, logits)


def keep_top(logits: mx.array, top_k: Sequence[int]) -> mx.array:
    """Top-k filter of rows (B, vocab), each with a k of its own; tokens tied with the k-th stay."""
    kept = [min(k, logits.shape[-1]) for k in top_k]
    most = max(kept)
    if min(kept) == logits.shape[-1]:
        return logits
    largest = mx.topk(logits, most, axis=-1)
    if min(kept) == most:
        pivot = mx.min(largest, axis=-1, keepdims=True)
    else:
        pivot = mx.take_along_axis(mx.sort(largest, axis=-1), mx.array([most - k for k in kept])[:, None], axis=-1)
    return mx.where(logits < pivot, -mx.inf, logits)


def sample(
    logits: mx.array, seen: mx.array, noise: mx.array | None, steps: Sequence[int], settings: BatchSampling
) -> tuple[mx.array, mx.array]:
    """Draw the next token of each row.

    Args:
        logits: (B, vocab), the last column being the end token.
        seen: (B, vocab) bool, the tokens that have occurred, prompt included.
        noise: (B, vocab) exponential(1) variates, of which greedy rows use none; `None` where all are greedy.
        steps: number of tokens that each row has drawn before this one.
        settings: of the rows.

    Returns:
        Tokens (B,) int32, and whether each row ends here (B,) bool, in which case its token is not part of
        it. A row ends when the draw or the penalised arg max is the end token: the reference tests both.
    """
    end = logits.shape[-1] - 1
    if min(steps) < MIN_TOKENS:
        barred = mx.array([-mx.inf if step < MIN_TOKENS else mx.inf for step in steps])
        logits = mx.concatenate([logits[:, :end], mx.minimum(logits[:, end:], barred[:, None])], axis=-1)
    logits = penalise(logits, seen, settings.repetition_penalty)
    tokens = likeliest = mx.argmax(logits, axis=-1)
    if not all(settings.greedy):
        assert noise is not None
        filtered = nucleus(logits, settings.top_p) / settings.temperature
        probabilities = mx.softmax(keep_top(filtered, settings.top_k), axis=-1)
        tokens = mx.argmax(probabilities / noise, axis=-1)
        if any(settings.greedy):
            tokens = mx.where(mx.array(settings.greedy), likeliest, tokens)
    return tokens.astype(mx.int32), (likeliest == end) | (tokens == end)


class NoiseStream:
    """All variates of one sentence: functions of (seed, index of the sentence, step or frame) alone.

    So a sentence gets the same tokens and the same sound alone, in a batch and streamed.
    """

    BLOCK = 64

    def __init__(self, seed: int, index: int):
        self.seed, self.index = seed, index

    def block(self, number: int, width: int) -> mx.array:
        """Exponential(1) variates (BLOCK, width) of the steps from number · BLOCK on."""
        uniform = mx.random.uniform(shape=(self.BLOCK, width), key=self.key(f"tokens/{number}"))
        # never 0, which would turn a token of probability 0 into nan
        return mx.maximum(-mx.log1p(-uniform), 1e-10)

    def latent(self, frames: int, width: int) -> mx.array:
        """Standard normal variates (1, frames, width) for the vocoder's latent.

        A frame's variates depend on its position alone, not on how many frames there are.
        """
        numbers = range(-(-frames // self.BLOCK))
        blocks = [mx.random.normal((self.BLOCK, width), key=self.key(f"latent/{n}")) for n in numbers]
        return mx.concatenate(blocks)[None, :frames]

    def key(self, purpose: str) -> mx.array:
        digest = hashlib.blake2b(f"{self.seed}/{self.index}/{purpose}".encode(), digest_size=8).digest()
        return mx.array(np.frombuffer(digest, np.uint32))
