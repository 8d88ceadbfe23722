"""Decode steps of the text-to-semantic GPT as one CUDA kernel: draw, embed, all layers, logits, again.

A plain step launches some 300 small kernels, which is all of its time at batch 1. Here all of a GPU's multiprocessors
stay with one launch for several steps, and hand each other what they computed through memory (`decode_exchange.cu`).
Tensor cores multiply (`decode_products.cu`), with 22 bits of every activation; accumulation, softmax and normalisation
are in float32 whatever the weights are stored in. It equals `TextToSemantic.step` after `sampling.sample`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import mlx.core as mx
import numpy as np

from .decode_layout import THREADS, DecoderSizes, Layout

LAUNCH_ROWS = (1, 2, 4, 8, 16, 32)
"""Sentences that a launch can take, where they fit; each number is compiled when it is first needed."""
FACTS = 9
"""Whole numbers that the kernel is told of each row."""
SETTINGS = 3
"""Other numbers that it is told of each row."""
TYPES = {mx.float32: "float", mx.float16: "__half", mx.bfloat16: "__nv_bfloat16"}
MATRICES = ("qkv", "out", "first", "second")
PARTS = ("decode_exchange.cu", "decode_products.cu", "decode_draw.cu")
VECTORS = (
    *("b_qkv", "b_out", "b_first", "b_second"),
    *("norm1", "shift1", "norm2", "shift2", "embedding"),
)
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Matrix:
    """The same matrix of all layers: numbers (L, out, in), or those that `mx.quantize` packed with what belongs to
    their groups."""

    numbers: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    bits: int = 0
    group_size: int = 0

    def arrays(self) -> list[mx.array]:
        return [a for a in (self.numbers, self.scales, self.biases) if a is not None]


@dataclass
class DecodeRow:
    """One sentence's place in a decode.

    Attributes:
        cache: (L, 2, heads, room, head_dim), which the kernel extends in place.
        length: keys that it holds.
        text, gap: behind the first `text` of them it leaves `gap` slots free.
        position: of the next audio token.
        step: tokens drawn so far.
    """

    cache: mx.array
    length: int
    text: int
    gap: int
    position: int
    step: int = 0

    @property
    def room(self) -> int:
        return self.cache.shape[3]

    def make_room(self, steps: int, by: int) -> None:
        """Let so many more keys fit, in steps of `by`."""
        missing = self.length + self.gap + steps - self.room
        if missing > 0:
            more = -(-missing // by) * by
            self.cache = mx.contiguous(mx.pad(self.cache, [(0, 0), (0, 0), (0, 0), (0, more), (0, 0)]))


@dataclass(frozen=True)
class Draw:
    """How a row's tokens are drawn; see `sampling.Sampling`."""

    top_k: int
    top_p: float
    temperature: float
    repetition_penalty: float


class DecodeKernel:
    """The kernel for a model.

    Args:
        sizes: the model's.
        matrices: "qkv", "out", "first" and "second" of all layers.
        vectors: their biases "b_qkv", "b_out", "b_first", "b_second" and the layers' "norm1", "shift1", "norm2",
            "shift2", each (L, n); "embedding" (vocabulary, width); all of one type.
        head: (vocabulary, width), float32.

    Attributes:
        layouts: by the number of rows that a launch can take; none where the device cannot run it.
    """

    def __init__(
        self, sizes: DecoderSizes, matrices: Mapping[str, Matrix], vectors: Mapping[str, mx.array], head: mx.array
    ):
        self.sizes, self.matrices, self.vectors, self.head = sizes, dict(matrices), dict(vectors), head
        each = 0 if self.matrices["qkv"].bits else self.dtype.size
        layouts = [Layout(sizes, rows, each) for rows in LAUNCH_ROWS]
        self.layouts = {layout.rows: layout for layout in layouts if layout.fits}
        self._compiled: dict[int, Callable[..., Any]] = {}

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the vectors, and of `positions`."""
        return self.vectors["embedding"].dtype

    def steps(
        self,
        rows: Sequence[DecodeRow | None],
        logits: mx.array,
        seen: mx.array,
        noises: Sequence[mx.array | None],
        noise_row: Sequence[int],
        positions: mx.array,
        draws: Sequence[Draw],
        min_tokens: int,
        steps: int,
    ) -> tuple[np.ndarray, mx.array, mx.array]:
        """Draw `steps` tokens of each row, and extend its cache by as many keys.

        Args:
            rows: as many as one of `layouts` has; `None` where there is no sentence.
            logits: (B, vocabulary) of the first draw, float32.
            seen: (B, ⌈vocabulary / 32⌉) uint32, a bit for each token that has occurred.
            noises: for each row, exponential variates (n, vocabulary), or `None` where none are needed.
            noise_row: which of them the first draw takes.
            positions: (P, width), what is added to the embedding at each position.
            draws: how the tokens of each row are drawn.
            min_tokens: before a row has drawn so many, it does not end.
            steps: number of draws.

        Returns:
            Tokens (B, steps), −1 where a row ended and −2 behind that; the next logits and `seen`.
        """
        count, words = len(rows), -(-self.sizes.vocabulary // 32)
        # small arrays would become constants of the kernel
        facts = np.zeros(max(64, count * FACTS + 1), np.int32)
        settings = np.ones(max(64, count * SETTINGS), np.float32)
        for at, (row, draw) in enumerate(zip(rows, draws, strict=True)):
            if row is not None:
                stated = (row.length, row.text, row.gap, row.room, row.position, row.step, 1, noise_row[at], draw.top_k)
                facts[at * FACTS : (at + 1) * FACTS] = stated
                drawn = draw.top_p, draw.temperature, draw.repetition_penalty
                settings[at * SETTINGS : (at + 1) * SETTINGS] = drawn
        facts[count * FACTS] = steps
        some = next(row.cache for row in rows if row is not None)
        given = [array for name in MATRICES for array in self.matrices[name].arrays()]
        given += [self.vectors[name] for name in VECTORS] + [self.head, positions, logits, seen]
        given += [mx.array(facts), mx.array(settings)]
        given += [some if row is None else row.cache for row in rows]
        given += [logits if noise is None else noise for noise in noises]
        shapes = [(count, steps), (count, self.sizes.vocabulary), (count, words), (self.layouts[count].words,)]
        # the kernel waits for all of its blocks: two of them at once could each hold what the other needs
        with _one_at_a_time:
            tokens, logits, seen, _ = self._kernel(count, some.dtype, min_tokens)(
                inputs=given,
                grid=(self.layouts[count].blocks * THREADS, 1, 1),
                threadgroup=(THREADS, 1, 1),
                output_shapes=shapes,
                output_dtypes=[mx.int32, mx.float32, mx.uint32, mx.uint32],
                init_value=0,
            )
            mx.eval(tokens, logits, seen)
        drawn = np.array(tokens)
        for row in rows:
            if row is not None:
                row.length += steps
                row.position += steps
                row.step += steps
        return np.where(drawn > 0, drawn - 1, np.where(drawn < 0, -1, -2)), logits, seen

    def _kernel(self, rows: int, cached: mx.Dtype, min_tokens: int) -> Callable[..., Any]:
        if rows not in self._compiled:
            names = []
            for name in MATRICES:
                names += [f"w_{name}", f"s_{name}", f"z_{name}"][: len(self.matrices[name].arrays())]
            names += [*VECTORS, "head", "positions", "logits", "seen", "rows_now", "settings"]
            names += [f"cache{r}" for r in range(rows)] + [f"noise{r}" for r in range(rows)]
            header, body, memory = self.source(rows, cached, min_tokens)
            made: Any = mx.fast.cuda_kernel(
                name="t2s_decode_steps",
                input_names=names,
                output_names=["tokens", "next_logits", "next_seen", "words"],
                source=body,
                header=header,
                shared_memory=memory,
            )
            self._compiled[rows] = made
        return self._compiled[rows]

    def source(self, rows: int, cached: mx.Dtype, min_tokens: int) -> tuple[str, str, int]:
        """Header, body and bytes of shared memory for so many rows."""
        s, layout = self.sizes, self.layouts[rows]
        stored = TYPES[self.dtype]
        constants = {**layout.constants(), "MIN_TOKENS": min_tokens}
        lines = [f"constexpr int {name} = {value};" for name, value in constants.items()]
        lines += [f"constexpr float SCALE = {s.head**-0.5!r}f;", f"typedef {TYPES[cached]} Cached;"]
        kinds = []
        for name, width in zip(MATRICES, (s.width, s.width, s.width, s.inner), strict=True):
            matrix = self.matrices[name]
            kind = f"Plain<{stored}, {width}>"
            if matrix.bits:
                kind = f"Grouped<{stored}, {width}, {matrix.bits}, {matrix.group_size}>"
            arrays = ", ".join([f"w_{name}", f"s_{name}", f"z_{name}"][: len(matrix.arrays())])
            kinds += [
                f"typedef {kind} {name.title()}Matrix;",
                f"#define {name.upper()}_MATRIX {name.title()}Matrix{{{arrays}}}",
            ]
        pointers = [f"caches[{r}] = (Cached*)cache{r}; noises[{r}] = (const float*)noise{r};" for r in range(rows)]
        # MLX writes the kernel's head: only so can it say that a block's registers have to fit a multiprocessor
        bounds = f"#undef __global__\n#define __global__ __attribute__((global)) __launch_bounds__({THREADS}, 1)"
        header = "\n".join([*lines, *map(_text, PARTS), *kinds, bounds, ""])
        body = _text("decode_steps.cu").replace("SET_POINTERS", "\n  ".join(pointers))
        return header, body, layout.memory


@cache
def _text(name: str) -> str:
    return resources.files("gpt_sovits_mlx.kernels").joinpath(name).read_text(encoding="utf-8")
