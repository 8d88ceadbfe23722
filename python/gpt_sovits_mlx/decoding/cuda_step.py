"""Decoding on CUDA: several steps of all rows a launch, in one kernel over the weights of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..kernels.decode_layout import DecoderSizes, device
from ..kernels.decode_steps import MATRICES, DecodeKernel, DecodeRow, Draw, Matrix
from ..layers.derived import parts_of
from ..models.t2s import TABLE_POSITIONS, DecoderLayer, TextToSemantic
from .cache import STEP
from .decoder import Decoder, DecodeRequest, Event
from .sampling import LEAST_TEMPERATURE, MIN_TOKENS, Sampling
from .state import DecodeState

AMPERE = 8
"""Compute capability from which on tensor cores multiply as the kernel needs it."""
LAUNCH_STEPS, LONG_LAUNCH_STEPS = 16, 64
"""Steps of a launch: at first and in company, and later alone."""


class CudaDecoder(Decoder):
    """Rows have caches of their own, which the kernel extends in place."""

    def __init__(self, model: TextToSemantic, step: CudaStep):
        super().__init__(model)
        self.step, self.states = step, list[DecodeRow]()

    @property
    def most_rows(self) -> int:
        return max(self.step.kernel.layouts)

    @property
    def usual_rows(self) -> int:
        return self.most_rows

    def _advance(self) -> list[list[Event]]:
        kernel = self.step.kernel
        if self._layout(len(self)) < self._layout(len(self.rows)):
            self._keep([at for at, row in enumerate(self.rows) if row.going])
        offsets = [row.offset(self.vocabulary) for row in self.rows]
        count = self._launch_steps(offsets)
        live = [state if row.going else None for row, state in zip(self.rows, self.states, strict=True)]
        for state in live:
            if state:
                state.make_room(count, STEP)
        spare = self._layout(len(self.rows)) - len(self.rows)
        drawn, logits, seen = kernel.steps(
            live + [None] * spare,
            mx.pad(self.logits, [(0, spare), (0, 0)]) if spare else self.logits,
            mx.pad(self.seen, [(0, spare), (0, 0)]) if spare else self.seen,
            [row.block for row in self.rows] + [None] * spare,
            offsets + [0] * spare,
            self.step.positions(max(state.position for state in self.states) + count),
            [draw_of(row.request.sampling) for row in self.rows] + [draw_of(Sampling())] * spare,
            MIN_TOKENS,
            count,
        )
        self.logits, self.seen = logits[: len(self.rows)], seen[: len(self.rows)]
        made = [self._events(drawn[: len(self.rows), at].tolist()) for at in range(count)]
        return [events for events in made if events]

    def _layout(self, rows: int) -> int:
        """Rows of the smallest launch that takes so many."""
        return next(size for size in self.step.kernel.layouts if size >= rows)

    def _launch_steps(self, offsets: Sequence[int]) -> int:
        """Steps of the next launch: what the present variates and the sentences' limits allow."""
        # a stream waits for the first steps; later a row that ends in company loses what is left of a launch
        alone = len(self.rows) == 1 and self.rows[0].drawn > 0
        count = LONG_LAUNCH_STEPS if alone else LAUNCH_STEPS
        count = min(count, *(row.request.noise.BLOCK - at for row, at in zip(self.rows, offsets, strict=True)))
        return min(count, max(row.request.sampling.max_tokens - row.drawn for row in self.rows if row.going))

    def _take_in(self, state: DecodeState, requests: Sequence[DecodeRequest]) -> None:
        self.states += kernel_rows(state, [len(r.phones) for r in requests], [len(r.prompt) for r in requests])

    def _select(self, places: Sequence[int]) -> None:
        self.states = [self.states[at] for at in places]

    def _arrays(self) -> list[mx.array]:
        return [state.cache for state in self.states]

    def _packed_tokens(self, seen: np.ndarray) -> mx.array:
        """A bit for each token, (B, ⌈vocab / 32⌉) uint32."""
        padded = np.pad(seen, [(0, 0), (0, -seen.shape[1] % 32)])
        return mx.array(np.packbits(padded, axis=1, bitorder="little").view(np.uint32))


def draw_of(sampling: Sampling) -> Draw:
    """How the kernel draws a row's tokens."""
    temperature = max(sampling.temperature, LEAST_TEMPERATURE)
    return Draw(sampling.top_k, sampling.top_p, temperature, sampling.repetition_penalty)


def kernel_rows(state: DecodeState, texts: Sequence[int], prompts: Sequence[int]) -> list[DecodeRow]:
    """The rows of a batch that has been read, of so many phones and prompt tokens, with room for the first steps.

    In the batch the texts are padded to the longest, the prompts behind them likewise: a row leaves a gap behind its
    text, and writes over what pads its prompt.
    """
    stacked = mx.stack(state.arrays())  # (L, 2, B, heads, T, head_dim)
    rows = [
        DecodeRow(mx.contiguous(stacked[:, :, at]), text + prompt, text, max(texts) - text, prompt)
        for at, (text, prompt) in enumerate(zip(texts, prompts, strict=True))
    ]
    mx.eval([row.cache for row in rows])
    return rows


class CudaStep:
    """The kernel for a model, of whose weights the layers then hold views."""

    def __init__(self, model: TextToSemantic, kernel: DecodeKernel):
        self.kernel, self._positions, self._dtype = kernel, model.ar_audio_position, kernel.dtype
        self._table = self._rows(0)

    @classmethod
    def of(cls, model: TextToSemantic) -> CudaStep | None:
        """The step of a model; `None` for sizes that the kernel cannot take, for adapters, or on an old device."""
        config, layers = model.config, model.h.layers
        sizes = DecoderSizes(
            width=config.hidden_dim,
            inner=config.linear_units,
            heads=config.head,
            layers=config.n_layer,
            vocabulary=config.vocab_size,
        )
        if not sizes.supported or device().generation < AMPERE:
            return None
        groups = [list(group) for group in zip(*(layer.linears for layer in layers), strict=True)]
        if not all(_alike(group) for group in [*groups, [model.ar_predict_layer]]):
            return None
        matrices: dict[str, Matrix] = dict(zip(MATRICES, map(_together, groups), strict=True))
        vectors = {name: mx.stack(rows) for name, rows in _vectors(layers).items()}
        vectors["embedding"] = model.ar_audio_embedding.word_embeddings.weight
        mx.eval(vectors)
        kernel = DecodeKernel(sizes, matrices, vectors, model.ar_predict_layer.weight)
        return cls(model, kernel) if kernel.layouts else None

    def positions(self, count: int) -> mx.array:
        """What is added at the first `count` positions or more, (P, width)."""
        return self._table if count <= len(self._table) else self._rows(count)

    def _rows(self, count: int) -> mx.array:
        table = self._positions.rows(0, max(count, TABLE_POSITIONS)).astype(self._dtype)
        mx.eval(table)
        return table


def _alike(layers: Sequence[nn.Module]) -> bool:
    """Whether all are plain linear layers, or all packed alike, and none is an adapter."""
    first, kinds = layers[0], {type(layer) for layer in layers}
    return len(kinds) == 1 and (type(first) is nn.Linear or isinstance(first, nn.QuantizedLinear))


def _vectors(layers: Sequence[DecoderLayer]) -> dict[str, list[mx.array]]:
    return {
        "b_qkv": [layer.self_attn.in_proj.bias for layer in layers],
        "b_out": [layer.self_attn.out_proj.bias for layer in layers],
        "b_first": [layer.linear1.bias for layer in layers],
        "b_second": [layer.linear2.bias for layer in layers],
        "norm1": [layer.norm1.weight for layer in layers],
        "shift1": [layer.norm1.bias for layer in layers],
        "norm2": [layer.norm2.weight for layer in layers],
        "shift2": [layer.norm2.bias for layer in layers],
    }


def _together(linears: Sequence[Any]) -> Matrix:
    """Weights (L, out, in); each layer keeps views of them, so that they are held once."""
    first = linears[0]
    packed = isinstance(first, nn.QuantizedLinear)
    names = ("weight", "scales", "biases") if packed else ("weight",)
    parts = {}
    for name in names:
        parts[name] = joined = mx.stack([linear[name] for linear in linears])
        views = parts_of(joined)
        mx.eval(joined, views)
        for linear, view in zip(linears, views, strict=True):
            linear[name] = view
    if not packed:
        return Matrix(parts["weight"])
    return Matrix(parts["weight"], parts["scales"], parts["biases"], first.bits, first.group_size)
