"""What the decode kernel takes of a device, and of memory; no device is needed."""

from __future__ import annotations

import gc

import mlx.core as mx
import pytest

from gpt_sovits_mlx.decoding import cuda_step
from gpt_sovits_mlx.decoding.cuda_step import CudaStep
from gpt_sovits_mlx.kernels import decode_layout
from gpt_sovits_mlx.kernels.decode_layout import DecoderSizes, Device, Layout
from random_gpt import SMALL, models

H200 = Device(multiprocessors=132, shared_memory=232448, generation=9)
OFFICIAL = DecoderSizes(512, 2048, 16, 24, 1025)


@pytest.fixture
def on(monkeypatch):
    """Pretends that there is a device."""

    def pretend(device: Device) -> None:
        monkeypatch.setattr(decode_layout, "device", lambda: device)
        monkeypatch.setattr(cuda_step, "device", lambda: device)

    return pretend


def test_every_block_has_rows_of_the_inner_layer_and_every_head_a_team(on):
    on(H200)
    for sizes in (OFFICIAL, DecoderSizes(256, 1024, 8, 6, 1025), DecoderSizes(192, 768, 3, 5, 1025)):
        for rows in (1, 2, 4, 8, 16, 32):
            layout = Layout(sizes, rows, 2)
            per_block = -(-sizes.inner // layout.blocks)
            assert (layout.blocks - 1) * per_block < sizes.inner <= layout.blocks * per_block
            assert layout.blocks <= H200.multiprocessors
            assert layout.splits == 1 or layout.blocks >= rows * sizes.heads * layout.splits
            assert layout.fits


def test_a_small_device_takes_fewer_rows_and_an_old_one_none(on):
    model, _ = models(SMALL, mx.float32)
    on(H200)
    step = CudaStep.of(model)
    assert step is not None and max(step.kernel.layouts) == 32
    on(Device(132, 100_000, 8))
    step = CudaStep.of(model)
    assert step is not None and 1 <= max(step.kernel.layouts) < 32
    on(Device(132, 20_000, 8))
    assert CudaStep.of(model) is None
    on(Device(132, 232448, 7))
    assert CudaStep.of(model) is None


@pytest.mark.parametrize("bits", [0, 8])
def test_layers_and_kernel_hold_the_weights_once(on, bits, monkeypatch):
    from gpt_sovits_mlx.layers import linear

    on(H200)
    monkeypatch.setattr(linear, "backend", lambda: "cuda")  # a CPU would unpack them
    model = models(SMALL, mx.float32, bits)[0]
    gc.collect()
    before = mx.get_active_memory()
    step = CudaStep.of(model)
    assert step is not None
    gc.collect()
    weights = sum(a.nbytes for matrix in step.kernel.matrices.values() for a in matrix.arrays())
    assert mx.get_active_memory() - before - step.positions(1).nbytes < weights / 4
