"""Speculative decoding (Leviathan et al. 2023): a draft guesses tokens, and the GPT verifies them in one block.

Only greedy decoding of one sentence gains by it: sampled tokens are guessed too seldom, and a batch computes its rows
together as it is.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from .batch import Event, PlainBatch, Request
from .models.t2s import TextToSemantic
from .sampling import Sampling, sample

GUESSES = 3
"""Tokens that are guessed at a time; of 2, 3 and 4 the fastest with the demo voice's draft."""
COST = 0.7
"""What guesses and a block for them cost beyond a plain step, in plain steps (demo voice, two cores)."""
CREDIT = 3.0
"""Plain steps that guesses may lose in all before the rest is decoded without: a draft may not know the language."""


class SpeculativeBatch(PlainBatch):
    """One request, decoded greedily with the GPT's draft, to the tokens that `PlainBatch` gives."""

    def __init__(self, model: TextToSemantic, requests: dict[int, Request], sampling: Sampling):
        super().__init__(model, requests, sampling)
        self.hidden: mx.array | None = None
        self.credit = CREDIT

    def advance(self) -> list[list[Event]]:
        """The next token, and those behind it that were guessed right."""
        if self.credit < 0:
            return super().advance()
        ([row], [step]) = self.rows, self.steps
        block, seen = self._guess(step)
        hidden, logits = self.model.decode_block(block, self.state)
        before = mx.concatenate([self.logits, logits[:-1]])
        tokens, ended = sample(before, seen[:-1], None, range(step, step + len(block)), self.sampling)
        result = mx.stack([mx.where(ended, -1, tokens), block])
        mx.async_eval(result, seen, hidden, logits)
        drawn, read = np.array(result).tolist()
        right = next((i for i in range(len(read)) if drawn[i] != read[i]), len(read))
        if self.hidden is not None:
            self.credit += right - 1 - COST
        # what was read behind the last right token is taken back
        self.state.drop(len(read) - right)
        self.hidden, self.logits = hidden[right - 1 : right], logits[right - 1 : right]
        self.seen, self.steps = seen[right : right + 1], [step + right]
        events: list[list[Event]] = [[(row, token)] for token in drawn[:right][: self.sampling.max_tokens - step]]
        if step + right >= self.sampling.max_tokens:
            self.going.clear()
        elif drawn[right : right + 1] == [-1]:
            events.append([(row, None)])
            self.going.clear()
        return events

    def _guess(self, step: int) -> tuple[mx.array, mx.array]:
        """The next token and guesses of those behind it (n,); which tokens had been seen before each and at the end."""
        draft, hidden, logits = self.model.draft, self.hidden, self.logits
        assert draft is not None
        block: list[mx.array] = []
        seen = [self.seen]
        while True:
            token, _ = sample(logits, seen[-1], None, [step + len(block)], self.sampling)
            block.append(token)
            seen.append(seen[-1] | (self.ids == token))
            if hidden is None or len(block) > GUESSES:  # there is no hidden state before the first block
                return mx.concatenate(block), mx.concatenate(seen)
            hidden, logits = draft(hidden, token)
