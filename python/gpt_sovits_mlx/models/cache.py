"""Key/value cache of a decoder layer, allocated in steps."""

from __future__ import annotations

import mlx.core as mx


class KVCache:
    """Keys and values of one layer, (B, heads, T, head_dim) each.

    Room is allocated `STEP` positions at a time, and a new position is written into it in place: what is
    already there is copied once in `STEP` tokens, not at every token.
    """

    STEP = 256

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.length = 0

    @property
    def capacity(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]

    def append(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add (B, heads, n, head_dim) and return all keys and values so far, (B, heads, length, head_dim)."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            self._grow(end, keys)
        assert self.keys is not None and self.values is not None
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: mx.array) -> None:
        """Keep only these rows of the batch."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def join(self, other: KVCache, drop: int) -> None:
        """Drop the first `drop` positions, and take in the rows of another cache; the shorter gets zeros in front."""
        assert self.keys is not None and self.values is not None
        assert other.keys is not None and other.values is not None
        length = max(self.length - drop, other.length)
        room = -(-length // self.STEP) * self.STEP - length

        def joined(mine: mx.array, theirs: mx.array) -> mx.array:
            filled = mine[:, :, drop : self.length], theirs[:, :, : other.length]
            padded = [mx.pad(x, [(0, 0), (0, 0), (length - x.shape[2], room), (0, 0)]) for x in filled]
            return mx.concatenate(padded)

        self.keys, self.values = joined(self.keys, other.keys), joined(self.values, other.values)
        self.length = length

    def _grow(self, length: int, like: mx.array) -> None:
        batch, heads, _, width = like.shape
        room = -(-length // self.STEP) * self.STEP - self.capacity
        more = mx.zeros((batch, heads, room, width), like.dtype)
        if self.keys is None or self.values is None:
            self.keys, self.values = more, mx.zeros_like(more)
        else:
            self.keys = mx.concatenate([self.keys, more], axis=2)
            self.values = mx.concatenate([self.values, more], axis=2)
