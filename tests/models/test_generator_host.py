"""The generator in numpy equals MLX's, however the signal is cut."""

from __future__ import annotations

import os
import signal
import threading

import mlx.core as mx
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from gpt_sovits_mlx.choices import Choices, trying
from gpt_sovits_mlx.convert.sovits_tensors import generator_tensors
from gpt_sovits_mlx.cores import all_cores
from gpt_sovits_mlx.layers.weights import Weights
from gpt_sovits_mlx.models.sovits import generator_host
from gpt_sovits_mlx.models.sovits.generator import Generator
from gpt_sovits_mlx.models.sovits.generator_host import HostGenerator

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
    model = {
        "upsample_initial_channel": channels,
        "inter_channels": INTER,
        "gin_channels": STYLE,
        "upsample_kernel_sizes": kernels,
        "resblock_kernel_sizes": list(resblocks),
        "resblock_dilation_sizes": list(resblocks.values()),
    }
    random = np.random.default_rng(channels)
    tensors = {
        name: mx.array((random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))
        for name, shape in generator_tensors(model).items()
    }
    weights = Weights(tensors, "made up")
    made = Generator(weights.scope("dec."), rates, kernels, list(resblocks.values()))
    weights.finish()
    return made


@pytest.fixture(scope="module", params=CASES)
def both(request) -> tuple[Generator, HostGenerator]:
    with trying(Choices("taps", host=True, transposed="phases", fused=False, padded=False)):
        of_mlx = generator(*CASES[request.param])
    return of_mlx, HostGenerator(of_mlx)


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
        monkeypatch.setattr(generator_host, "STRETCH", 1)
        monkeypatch.setattr(generator_host, "SHORTEST", request.param)


@pytest.mark.parametrize("frames", [1, 2, 33])
def test_samples_equal_those_of_mlx(both, stretch, frames):
    of_mlx, of_host = both
    z, style = mx.random.normal((2, frames, INTER), key=mx.random.key(frames)), mx.random.normal((2, 1, STYLE))
    expected, found = np.array(of_mlx(z, style)), np.array(of_host(z, style))
    assert found.dtype == np.float32 and found.shape == (2, frames * np.prod([u.stride for u in of_mlx.upsamplings]))
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected[:, : found.shape[1]]).max() < 1e-5


def test_rows_end_where_the_mask_says(both):
    of_mlx, of_host = both
    z, style = mx.random.normal((3, 20, INTER), key=mx.random.key(1)), mx.random.normal((1, 1, STYLE))
    lengths = mx.array([[20], [7], [1]])
    mask = (mx.arange(20) < lengths).astype(mx.float32)[..., None]
    expected, found = np.array(of_mlx(z, style, mask)), np.array(of_host(z, style, mask.astype(mx.bfloat16)))
    rate = found.shape[1] // 20
    for row, length in enumerate((20, 7, 1)):
        assert np.abs(found[row] - expected[row, : found.shape[1]])[: length * rate].max() < 1e-5
        assert not found[row, length * rate :].any()


def test_weights_are_held_once(both):
    of_mlx, of_host = both
    pairs = [(host.convolution, mlx) for host, mlx in zip(of_host.upsamplings, of_mlx.upsamplings, strict=True)]
    pairs.append((of_host.conv_out, of_mlx.conv_out))
    for blocks, of_mlx_blocks in zip(of_host.stages, of_mlx.stages, strict=True):
        for block, of_mlx_block in zip(blocks, of_mlx_blocks, strict=True):
            for host, mlx in zip(block.pairs, of_mlx_block.pairs, strict=True):
                pairs += [(host.dilated, mlx.dilated), (host.plain, mlx.plain)]
    for host, mlx in pairs:
        assert np.shares_memory(host.weight, np.array(mlx.weight, copy=False))


def test_blas_gets_its_threads_back():
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before, seen, together, inside = threads(), [], [], threading.Lock()

    def work(first: int, last: int) -> None:
        seen.append((first, last))
        assert set(threads()) <= {1}

    def caller() -> None:
        with all_cores() as cores:
            together.append(inside.acquire(blocking=False))
            cores.share(work, 10, 3)
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
    with pytest.raises(ZeroDivisionError), all_cores() as cores:
        cores.share(fail, 10, 3)
    assert threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_threads_of_its_own():
    """Even of a process that is at work, which takes a lock."""
    made: list[int] = []
    with all_cores() as cores:
        cores.share(lambda first, _: made.append(first), 2, 2)
        child = os.fork()
        if not child:
            signal.alarm(20)
            with all_cores() as cores:
                cores.share(lambda first, _: made.append(first), 2, 2)
            os._exit(len(made))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
