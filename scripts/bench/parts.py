"""Single parts: attention, the two ways to keep keys and values, convolutions, sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np

from gpt_sovits_mlx.decoding.cache import KVCache
from gpt_sovits_mlx.decoding.sampling import BatchSampling, sample
from gpt_sovits_mlx.layers.attention import split_heads
from gpt_sovits_mlx.settings import Sampling

from .measure import Case, Clock
from .reference import Reference
from .workbench import Workbench

KEYS = (500, 2500)
POSITIONS = 500
TIMES = 20
"""Runs of a small operation under one clock."""
TOKENS = 100


def parts(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """Each operation is evaluated by itself: launching it is part of its time."""
    yield from attention(bench, reference)
    yield from caches(bench, reference)
    yield from convolutions(bench, reference)
    yield from drawing(bench, reference)


def repeated(work: Callable[[], object], times: int = TIMES) -> Clock:
    """A clock around `times` evaluations, divided by their number."""
    import time

    def clock() -> float:
        start = time.perf_counter()
        for _ in range(times):
            mx.eval(work())
        return (time.perf_counter() - start) / times

    return clock


def attention(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """A decoding step's, at the GPT's width."""
    config = bench.gpt().config
    dtype = bench.dtype
    for keys in KEYS:
        q, k, v = (
            bench.random.standard_normal((1, length, config.hidden_dim)).astype(np.float32)
            for length in (1, keys, keys)
        )
        given = [mx.contiguous(split_heads(mx.array(x).astype(dtype), config.head)) for x in (q, k, v)]
        mx.eval(given)
        scale = given[0].shape[-1] ** -0.5
        yield Case(
            "parts",
            f"attention, 1 query over {keys:,} keys",
            repeated(lambda given=given, scale=scale: mx.fast.scaled_dot_product_attention(*given, scale=scale)),
            reference and reference.attention([np.array(x.astype(mx.float32)) for x in given], TIMES),
        )


def caches(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """The keys and values of one layer, position by position."""
    config = bench.gpt().config
    shape = (1, config.head, 1, config.hidden_dim // config.head)
    row = mx.ones(shape, bench.dtype)
    both = mx.stack([row, row])
    mx.eval(row, both)

    def by_steps() -> None:
        cache = KVCache()
        for _ in range(POSITIONS):
            cache.append(both)
            mx.eval(cache.kept)

    def concatenated() -> None:
        keys = values = row[:, :, :0]
        for _ in range(POSITIONS):
            keys, values = mx.concatenate([keys, row], axis=2), mx.concatenate([values, row], axis=2)
            mx.eval(keys, values)

    theirs = reference and reference.concatenation(shape, POSITIONS)
    yield Case("parts", f"cache that grows by steps, {POSITIONS} positions", repeated(by_steps, 1), theirs)
    yield Case("parts", f"cache that concatenates, {POSITIONS} positions", repeated(concatenated, 1), theirs)


def convolutions(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """The widest dilated one of the generator's second stage, and the transposed one before it, in MLX's operations."""
    (first, _), (second, blocks) = bench.sovits().dec.stages[:2]
    conv = blocks[-1].pairs[-1].dilated
    frames = 2 * TOKENS * first.stride
    wide, narrow = first.out_channels, second.out_channels
    x = bench.random.standard_normal((1, frames * second.stride, narrow)).astype(np.float32)
    given = mx.array(x).astype(bench.dtype)
    yield Case(
        "parts",
        f"MLX's convolution {narrow}→{narrow}, kernel {conv.kernel_size}, dilation {conv.dilation},"
        f" {x.shape[1]:,} frames",
        repeated(lambda: conv(given), 1),
        reference and reference.convolution(x, narrow, conv.kernel_size, conv.dilation),
    )
    y = bench.random.standard_normal((1, frames, wide)).astype(np.float32)
    before = mx.array(y).astype(bench.dtype)
    yield Case(
        "parts",
        f"MLX's transposed convolution {wide}→{narrow}, kernel {second.kernel_size}, stride {second.stride},"
        f" {frames:,} frames",
        repeated(lambda: second(before), 1),
        reference and reference.transposed(y, narrow, second.kernel_size, second.stride, second.padding),
    )


def drawing(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """A token drawn from logits, with the defaults of `Sampling`."""
    vocabulary = bench.gpt().config.vocab_size
    logits = bench.random.standard_normal((1, vocabulary)).astype(np.float32)
    before = bench.random.integers(0, vocabulary - 1, (1, TOKENS))
    seen = np.zeros((1, vocabulary), bool)
    seen[0, before[0]] = True
    given, known = mx.array(logits), mx.array(seen)
    settings = BatchSampling.of([Sampling()])
    # the variates are drawn for many steps at once, outside of `sample`: here at every call, as the reference does
    yield Case(
        "parts",
        f"sampling among {vocabulary:,} tokens",
        repeated(lambda: sample(given, known, -mx.log1p(-mx.random.uniform(shape=given.shape)), [TOKENS], settings)),
        reference and reference.sampling(logits, before, TIMES),
    )
