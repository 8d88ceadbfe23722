"""What decoding remembers of rows that share their caches, and how they are read first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..models.t2s import TextToSemantic, real_positions
from .cache import KVCache


@dataclass
class DecodeState:
    """The rows of a batch between two steps.

    Attributes:
        caches: one for each layer; all rows end at the same slot.
        positions: the position of each row's next audio token.
        starts: the first slot of each row.
        real: (B, n), false where one of the first n slots is padding; `None` where none is. Later slots are real.
    """

    caches: list[KVCache]
    positions: list[int]
    starts: list[int]
    real: mx.array | None

    @property
    def length(self) -> int:
        return self.caches[0].length

    def advance(self) -> mx.array | None:
        """Make a place for each row's next token; the mask (B, 1, 1, S) with which it looks, `None` for all."""
        self.positions = [position + 1 for position in self.positions]
        return None if self.real is None else self.real_slots(self.length + 1)[:, None, None]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch."""
        index = mx.array(list(rows))
        for cache in self.caches:
            cache.select(index)
        self.positions = [self.positions[row] for row in rows]
        self.starts = [self.starts[row] for row in rows]
        if self.real is not None:
            self.real = self.real[index]

    def join(self, other: DecodeState) -> None:
        """Take in the rows of another batch; slots that no row uses any more are dropped."""
        drop = min(self.starts)
        length = max(self.length - drop, other.length)
        parts = [self.real_slots(self.length)[:, drop:], other.real_slots(other.length)]
        shifts = [length - part.shape[1] for part in parts]
        self.starts = [start - drop + shifts[0] for start in self.starts]
        self.starts += [start + shifts[1] for start in other.starts]
        self.positions = self.positions + other.positions
        for mine, theirs in zip(self.caches, other.caches, strict=True):
            mine.join(theirs, drop)
        whole = self.real is None and other.real is None and not any(shifts)
        padded = [mx.pad(p, [(0, 0), (n, 0)], constant_values=False) for p, n in zip(parts, shifts, strict=True)]
        self.real = None if whole else mx.concatenate(padded)

    def real_slots(self, count: int) -> mx.array:
        """(B, count), true where one of the first `count` slots holds a key, or is to hold one."""
        if self.real is None:
            return mx.ones((len(self.starts), count), mx.bool_)
        return mx.pad(self.real, [(0, 0), (0, count - self.real.shape[1])], constant_values=True)

    def arrays(self) -> list[mx.array]:
        """What the caches hold."""
        return [cache.kept for cache in self.caches if cache.kept is not None]


def prefill(
    model: TextToSemantic,
    phones: mx.array,
    bert: mx.array | None,
    prompt: mx.array,
    text_lengths: Sequence[int] | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> tuple[mx.array, DecodeState]:
    """Read texts and prompts; the arguments are those of `TextToSemantic.hidden_states`.

    Returns:
        Logits of the first token (B, vocab), float32, and the state to decode on.
    """
    batch, text_width = phones.shape
    texts = list(text_lengths or [text_width] * batch)
    prompts = list(prompt_lengths or [prompt.shape[1]] * batch)
    caches = [KVCache() for _ in model.h.layers]
    x = model.hidden_states(phones, bert, prompt, texts, prompts, caches)
    real = real_positions(text_width, prompt.shape[1], texts, prompts)
    last = [text_width + p - 1 if p else t - 1 for t, p in zip(texts, prompts, strict=True)]
    logits = model.logits(x[mx.arange(batch), mx.array(last)])
    return logits, DecodeState(caches, prompts, [0] * batch, real)
