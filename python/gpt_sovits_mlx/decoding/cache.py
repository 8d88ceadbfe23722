"""Key/value cache of a decoder layer, allocated in steps."""

from __future__ import annotations

import mlx.core as mx

STEP = 256
"""Positions that a cache grows by."""


class KVCache:
    """Keys and values of one layer, (2, B, heads, T, head_dim).

    Room is allocated `STEP` positions at a time, and new positions are written into it in place, keys and values in one
    update: what is already there is copied once in `STEP` tokens, not at every token.
    """

    def __init__(self) -> None:
        self.kept: mx.array | None = None
        self.length = 0

    @property
    def capacity(self) -> int:
        return 0 if self.kept is None else self.kept.shape[3]

    def append(self, keys_and_values: mx.array) -> tuple[mx.array, mx.array]:
        """Add (2, B, heads, n, head_dim) and return all keys and values so far, (B, heads, length, head_dim) each."""
        end = self.length + keys_and_values.shape[3]
        if end > self.capacity:
            self._grow(end, keys_and_values)
        assert self.kept is not None
        self.kept[:, :, :, self.length : end] = keys_and_values
        self.length = end
        return self.kept[0, :, :, :end], self.kept[1, :, :, :end]

    def select(self, rows: mx.array) -> None:
        """Keep only these rows of the batch."""
        if self.kept is not None:
            self.kept = self.kept[:, rows]

    def join(self, other: KVCache, drop: int) -> None:
        """Drop the first `drop` positions, and take in the rows of another cache; the shorter gets zeros in front."""
        assert self.kept is not None and other.kept is not None
        length = max(self.length - drop, other.length)
        room = -(-length // STEP) * STEP - length
        filled = self.kept[:, :, :, drop : self.length], other.kept[:, :, :, : other.length]
        padded = [mx.pad(x, [(0, 0), (0, 0), (0, 0), (length - x.shape[3], room), (0, 0)]) for x in filled]
        self.kept, self.length = mx.concatenate(padded, axis=1), length

    def _grow(self, length: int, like: mx.array) -> None:
        _, batch, heads, _, width = like.shape
        room = -(-length // STEP) * STEP - self.capacity
        more = mx.zeros((2, batch, heads, room, width), like.dtype)
        self.kept = more if self.kept is None else mx.concatenate([self.kept, more], axis=3)
