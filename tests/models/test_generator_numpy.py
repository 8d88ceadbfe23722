"""The generator in numpy equals MLX's, however the signal is cut."""

from __future__ import annotations

import os
import signal
import threading

import mlx.core as mx
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from gpt_sovits_mlx.layers.derived import derive_all
from gpt_sovits_mlx.models.model import parameters_of
from gpt_sovits_mlx.models.sovits import generator_numpy
from gpt_sovits_mlx.models.sovits.generator import Generator
from gpt_sovits_mlx.models.sovits.generator_numpy import NumpyGenerator
from gpt_sovits_mlx.threads import all_threads
from gpt_sovits_mlx.tuning import Forms, trying

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
INTER, STYLE = 5, 3
CASES = {
    "official rates": (64, [10, 8, 2, 2, 2], [16, 16, 8, 2, 2], {3: (1, 3, 5), 7: (1, 3, 5), 11: (1, 3, 5)}),
    "odd channels": (44, [3, 4], [7, 4], {5: (2, 7), 3: (1,)}),
    "wide": (512, [2], [4], {3: (1, 2)}),
}
"""Channels, rates, their kernels, and the dilations of each kernel of a stage's residual blocks."""


def generator(channels: int, rates: list[int], kernels: list[int], resblocks: dict[int, tuple[int, ...]]) -> Generator:
    """With made-up weights."""
    made = Generator(INTER, channels, STYLE, rates, kernels, list(resblocks), list(resblocks.values()))
    random = np.random.default_rng(channels)
    weights = {
        name: mx.array((random.standard_normal(p.shape) / np.sqrt(np.prod(p.shape[1:]))).astype(np.float32))
        for name, p in parameters_of(made).items()
    }
    made.load_weights(list(weights.items()))
    derive_all(made, keep_sources=False)
    return made


@pytest.fixture(scope="module", params=CASES)
def both(request) -> tuple[Generator, NumpyGenerator]:
    with trying(Forms("taps", numpy_generator=True, transposed="phases", fused=False, padded=False)):
        of_mlx = generator(*CASES[request.param])
    return of_mlx, NumpyGenerator(of_mlx)


@pytest.fixture(autouse=True)
def nothing_undefined(monkeypatch):
    """What is left undefined reaches no result, and no operation."""
    empty = np.empty

    def undefined(*given, **named):
        made = empty(*given, **named)
        if made.dtype == np.float32:
            # a signalling one: to compute with it is an invalid operation
            made.view(np.uint32).fill(0x7FA00000)
        return made

    monkeypatch.setattr(np, "empty", undefined)


@pytest.fixture(params=[None, 40], ids=["as usual", "many stretches"])
def stretch(request, monkeypatch):
    """Frames of a stretch."""
    if request.param:
        monkeypatch.setattr(generator_numpy, "STRETCH_BYTES", 1)
        monkeypatch.setattr(generator_numpy, "SHORTEST_STRETCH", request.param)


@pytest.mark.parametrize("frames", [1, 2, 33])
def test_samples_equal_those_of_mlx(both, stretch, frames):
    of_mlx, in_numpy = both
    z, style = mx.random.normal((2, frames, INTER), key=mx.random.key(frames)), mx.random.normal((2, 1, STYLE))
    expected, found = np.array(of_mlx(z, style)), np.array(in_numpy(z, style))
    assert found.dtype == np.float32 and found.shape == (2, frames * of_mlx.rate)
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected[:, : found.shape[1]]).max() < 1e-5


def test_rows_end_where_the_mask_says(both):
    of_mlx, in_numpy = both
    z, style = mx.random.normal((3, 20, INTER), key=mx.random.key(1)), mx.random.normal((1, 1, STYLE))
    lengths = mx.array([[20], [7], [1]])
    mask = (mx.arange(20) < lengths).astype(mx.float32)[..., None]
    expected, found = np.array(of_mlx(z, style, mask)), np.array(in_numpy(z, style, mask.astype(mx.bfloat16)))
    rate = found.shape[1] // 20
    for row, length in enumerate((20, 7, 1)):
        assert np.abs(found[row] - expected[row, : found.shape[1]])[: length * rate].max() < 1e-5
        assert not found[row, length * rate :].any()


def test_weights_are_held_once(both):
    of_mlx, in_numpy = both
    pairs = [(in_numpy.conv_post, of_mlx.conv_post.taps)]
    for (upsampling, blocks), (up, of_mlx_blocks) in zip(in_numpy.stages, of_mlx.stages, strict=True):
        pairs.append((upsampling.convolution, up.phases[0]))
        for block, of_mlx_block in zip(blocks, of_mlx_blocks, strict=True):
            for pair, of_mlx_pair in zip(block.pairs, of_mlx_block.pairs, strict=True):
                pairs += [(pair.dilated, of_mlx_pair.dilated.taps), (pair.plain, of_mlx_pair.plain.taps)]
    for convolution, taps in pairs:
        assert np.shares_memory(convolution.weight, np.array(taps, copy=False))


def test_blas_gets_its_threads_back():
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before, seen, together, inside = threads(), [], [], threading.Lock()

    def work(first: int, last: int) -> None:
        seen.append((first, last))
        assert set(threads()) <= {1}

    def caller() -> None:
        with all_threads() as threads_:
            together.append(inside.acquire(blocking=False))
            threads_.share(work, 10, 3)
            inside.release()

    def fail(first: int, last: int) -> None:
        raise ZeroDivisionError

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert sorted(seen) == sorted([(0, 3), (3, 6), (6, 10)] * 4) and all(together)
    assert threads() == before
    with pytest.raises(ZeroDivisionError), all_threads() as threads_:
        threads_.share(fail, 10, 3)
    assert threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_threads_of_its_own():
    """Even of a process that is at work, which takes a lock."""
    made: list[int] = []
    with all_threads() as threads_:
        threads_.share(lambda first, _: made.append(first), 2, 2)
        child = os.fork()
        if not child:
            signal.alarm(20)
            with all_threads() as threads_:
                threads_.share(lambda first, _: made.append(first), 2, 2)
            os._exit(len(made))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
