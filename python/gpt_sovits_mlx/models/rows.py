"""The rows of a batch, where each has a state of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import mlx.core as mx

Row = TypeVar("Row")


@dataclass
class Rows(Generic[Row]):
    """Rows that come and go without copies of the others'; see `batch.State`."""

    rows: list[Row]

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self.rows = [self.rows[r] for r in rows]

    def join(self, other: Rows[Row]) -> None:
        """Take in the rows of another batch."""
        self.rows = self.rows + other.rows

    def arrays(self) -> list[mx.array]:
        """None that MLX would have to evaluate."""
        return []
