"""Logits and noise → token, in the reference's order. Pure functions over (B, vocab) arrays in float32."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from .errors import GPTSoVITSError

MIN_TOKENS = 11
"""The reference removes the end token from the first 11 steps: no utterance is shorter than 0.44 s."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the defaults are those of the reference's HTTP server.

    Attributes:
        top_k: keep the k most likely tokens (those tied with the k-th too); 1 is greedy decoding.
        top_p: nucleus: keep the most likely tokens whose probabilities sum to at most this; 1 keeps all.
        temperature: divides the logits.
        repetition_penalty: factor against every token that has occurred, the prompt's included; 1 is none.
        max_tokens: upper limit of new tokens (25 a second).
    """

    top_k: int = 15
    top_p: float = 1.0
    temperature: float = 1.0
    repetition_penalty: float = 1.35
    max_tokens: int = 1500

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise GPTSoVITSError(f"top_k is {self.top_k}: it must be at least 1 (1 is greedy decoding)")
        if not 0 < self.top_p <= 1:
            raise GPTSoVITSError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.temperature < 0 or self.repetition_penalty <= 0:
            raise GPTSoVITSError(
                f"temperature {self.temperature} and repetition_penalty {self.repetition_penalty}:"
                " the first must not be negative, the second must be above 0"
            )
        if self.max_tokens < 1:
            raise GPTSoVITSError(f"max_tokens is {self.max_tokens}: it must be at least 1")


def penalise(logits: mx.array, seen: mx.array, penalty: float) -> mx.array:
    """Repetition penalty (Keskar et al. 2019): each token of `seen` (B, vocab) once, however often it occurred."""
    if penalty == 1:
        return logits
    return mx.where(seen, mx.where(logits < 0, logits * penalty, logits / penalty), logits)


def nucleus(logits: mx.array, top_p: float) -> mx.array:
    """Top-p filter (Holtzman et al. 2020) as the reference has it: the token that crosses the threshold goes too."""
    if top_p >= 1:
        return logits
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1)
    remove = mx.cumsum(probabilities, axis=-1) > top_p
    remove[:, 0] = False
    remove = mx.put_along_axis(mx.zeros_like(remove), order, remove, axis=-1)
    return mx.where(remove, -mx.inf, logits)


def keep_top(logits: mx.array, top_k: int) -> mx.array:
    """Top-k filter; tokens tied with the k-th stay."""
    if top_k >= logits.shape[-1]:
        return logits
    pivot = mx.min(mx.topk(logits, top_k, axis=-1), axis=-1, keepdims=True)
    return mx.where(logits < pivot, -mx.inf, logits)


def sample(
    logits: mx.array, seen: mx.array, noise: mx.array | None, steps: Sequence[int], sampling: Sampling
) -> tuple[mx.array, mx.array]:
    """Draw the next token of each row.

    Args:
        logits: (B, vocab), the last column being the end token.
        seen: (B, vocab) bool, the tokens that have occurred, prompt included.
        noise: (B, vocab) exponential(1) variates, or `None` for greedy decoding.
        steps: number of tokens that each row has drawn before this one.

    Returns:
        Tokens (B,) int32, and whether each row ends here (B,) bool, in which case its token is not part of
        it. A row ends when the draw or the penalised arg max is the end token: the reference tests both.
    """
    end = logits.shape[-1] - 1
    if min(steps) < MIN_TOKENS:
        barred = mx.array([-mx.inf if step < MIN_TOKENS else mx.inf for step in steps])
        logits = mx.concatenate([logits[:, :end], mx.minimum(logits[:, end:], barred[:, None])], axis=-1)
    logits = penalise(logits, seen, sampling.repetition_penalty)
    likeliest = mx.argmax(logits, axis=-1)
    if sampling.top_k == 1 or noise is None:
        tokens = likeliest
    else:
        filtered = nucleus(logits, sampling.top_p) / max(sampling.temperature, 1e-5)
        probabilities = mx.softmax(keep_top(filtered, sampling.top_k), axis=-1)
        tokens = mx.argmax(probabilities / noise, axis=-1)
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
