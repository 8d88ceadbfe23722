"""How the decode kernel is laid out over a GPU: what its blocks share, and how much memory that takes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

THREADS = 512
WARPS = THREADS // 32
STATIC = 8192
"""Bytes of shared memory that a block has beside what it is given, at most."""


@dataclass(frozen=True)
class DecoderSizes:
    """Sizes of a decoder that the kernel is compiled for."""

    width: int
    inner: int
    heads: int
    layers: int
    vocabulary: int

    @property
    def head(self) -> int:
        return self.width // self.heads

    @property
    def supported(self) -> bool:
        """Whether the kernel can take them, which it can those of all checkpoints."""
        return self.head in (8, 16, 32, 64, 128) and self.width % 64 == 0 and self.inner % 64 == 0


@dataclass(frozen=True)
class Layout:
    """A launch for so many rows.

    Attributes:
        sizes: the decoder's.
        rows: sentences.
        bytes_each: those of a number of the layers' matrices; 0 where they are quantized.
    """

    sizes: DecoderSizes
    rows: int
    bytes_each: int

    @property
    def blocks(self) -> int:
        # every block must have rows of the inner layer: that is how the others know that it keeps up
        per_block = -(-self.sizes.inner // device().multiprocessors)
        return -(-self.sizes.inner // per_block)

    @property
    def splits(self) -> int:
        """Blocks that share the attention of a head."""
        count = 1
        while count < 8 and 2 * count * self.rows * self.sizes.heads <= self.blocks:
            count *= 2
        return count

    @property
    def teams(self) -> int:
        """Teams of a block's warps that attend at the same time, each to a head of its own."""
        count = 1
        while count < 8 and count * self.blocks < self.rows * self.sizes.heads * self.splits:
            count *= 2
        return count

    @property
    def words(self) -> int:
        """Words that the blocks exchange: two layers', and the logits."""
        s = self.sizes
        part = s.head + (2 if self.splits > 1 else 0)
        return self.rows * (2 * (5 * s.width + s.inner + s.heads * self.splits * part) + s.vocabulary)

    @property
    def team_scratch(self) -> int:
        """Numbers that a team of warps needs."""
        return _up(3 * self.sizes.head, 32) + WARPS // self.teams * (self.sizes.head + 2)

    @property
    def scratch(self) -> int:
        """Numbers that attention or normalisation need in a block."""
        return _up(max(self.teams * self.team_scratch, 2 * WARPS * self.rows), 4)

    @property
    def sums(self) -> int:
        """Numbers that a product's warps add up."""
        return WARPS * 16 * (8 if self.rows <= 8 else self.rows + 8)

    @property
    def stock(self) -> int:
        """Groups of 16 bytes of weights that a block holds: its share of a layer, and of the last matrix."""
        s = self.sizes
        layer = [(3 * s.width, s.width), (s.width, s.width), (s.inner, s.width), (s.width, s.inner)]
        return sum(self._share(*shape, self.bytes_each) for shape in layer) + self._share(s.vocabulary, s.width, 4)

    def _share(self, rows: int, columns: int, bytes_each: int) -> int:
        chunks = _up(columns // 32, WARPS)
        return chunks * min(16, -(-rows // self.blocks)) * 4 * (8 * bytes_each // 16)

    @property
    def memory(self) -> int:
        """Bytes of shared memory that a block is given."""
        vectors = self.rows * (self.sizes.width + 4) * (1 if self.splits == 1 else 2)
        return 4 * (vectors + 2 * self.sums + self.scratch) + 16 * self.stock

    @property
    def fits(self) -> bool:
        return self.memory + STATIC <= device().shared_memory

    def constants(self) -> dict[str, int]:
        """What the kernel's source calls them."""
        s = self.sizes
        return {
            "THREADS": THREADS,
            "BLOCKS": self.blocks,
            "ROWS": self.rows,
            "WIDTH": s.width,
            "INNER": s.inner,
            "HEADS": s.heads,
            "HEAD": s.head,
            "LAYERS": s.layers,
            "VOCABULARY": s.vocabulary,
            "SPLITS": self.splits,
            "TEAMS": self.teams,
            "TEAM_SCRATCH": self.team_scratch,
            "SCRATCH": self.scratch,
            "SUMS": self.sums,
            "STOCK": self.stock,
        }


def _up(number: int, to: int) -> int:
    return -(-number // to) * to


@dataclass(frozen=True)
class Device:
    """The first CUDA device, which MLX computes on by default.

    Attributes:
        shared_memory: bytes that a block can have.
        generation: the major number of its compute capability.
    """

    multiprocessors: int
    shared_memory: int
    generation: int


@cache
def device() -> Device:
    """Raises `RuntimeError` where the CUDA driver does not tell."""
    driver = ctypes.CDLL("libcuda.so.1")
    driver.cuInit(0)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, 0) or not value.value:
            raise RuntimeError(f"the CUDA driver does not tell the device's attribute {number}")
        return value.value

    # by their numbers in cuda.h
    return Device(multiprocessors=attribute(16), shared_memory=attribute(97), generation=attribute(75))
