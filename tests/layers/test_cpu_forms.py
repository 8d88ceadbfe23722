"""The forms that a CPU computes equal MLX's own, which GPUs compute."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from gpt_sovits_mlx.layers import activation, attention
from gpt_sovits_mlx.layers.activation import gelu, sigmoid, softmax, tanh
from gpt_sovits_mlx.layers.attention import dot_product
from gpt_sovits_mlx.layers.convolution import Conv1d, NormalisedConv1d
from gpt_sovits_mlx.tuning import Forms, trying


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    for module in (activation, attention):
        monkeypatch.setattr(module, "backend", lambda: "cpu")
    with trying(Forms("taps", numpy_generator=True, transposed="phases", fused=False, padded=False)):
        yield


def filled(layer: nn.Module, **weights: np.ndarray) -> nn.Module:
    """The layer with these weights, a convolution's as files have it."""
    arrays = {name: mx.array(value.astype(np.float32)) for name, value in weights.items()}
    layer.load_weights(list(arrays.items()))
    return layer


def test_activations_are_exact_to_a_millionth():
    x = np.linspace(-20, 20, 100_001).astype(np.float32)
    exact = x.astype(np.float64)
    phi = np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in exact])
    given = mx.array(x)
    assert np.abs(np.array(gelu(given)) - exact * phi).max() < 1.5e-6
    assert np.abs(np.array(activation.gelu_of_gpu(given)) - exact * phi).max() < 1.5e-6
    assert np.abs(np.array(tanh(given)) - np.tanh(exact)).max() < 1e-6
    assert np.abs(np.array(sigmoid(given)) - 1 / (1 + np.exp(-exact))).max() < 1e-6
    far = mx.array([-1e4, -200.0, 200.0, 1e4])
    assert np.abs(np.array(sigmoid(far)) - [0, 0, 1, 1]).max() < 1e-6
    assert np.abs(np.array(tanh(far)) - [-1, -1, 1, 1]).max() < 1e-6
    assert np.array(gelu(far)).tolist() == pytest.approx([0, 0, 200, 1e4], abs=1e-3)


def test_softmax_of_far_apart_numbers():
    x = (30 * np.random.default_rng(0).standard_normal((4, 3, 50))).astype(np.float32)
    x[0, 0, 1:] = -np.inf
    shifted = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    assert np.abs(np.array(softmax(mx.array(x))) - shifted / shifted.sum(-1, keepdims=True)).max() < 1e-6


@pytest.mark.parametrize("masked", [False, True])
def test_attention(masked):
    mx.random.seed(1)
    q, k, v = (3 * mx.random.normal((2, 4, n, 8)) for n in (5, 9, 9))
    mask = mx.arange(9) <= mx.arange(4, 9)[:, None] if masked else None
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=mask)
    assert np.abs(np.array(dot_product(q, k, v, 0.3, mask) - expected)).max() < 1e-5


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups", "time"),
    [(3, 2, 0, 1, 1, 20), (3, 2, 0, 1, 1, 21), (2, 2, 0, 1, 1, 21), (10, 5, 0, 1, 1, 53), (7, 1, 9, 3, 1, 30),
     (128, 1, 64, 1, 4, 30), (5, 1, 2, 1, 2, 30), (3, 3, 1, 2, 1, 30), (4, 6, 0, 1, 1, 30),
     (7, 1, 3, 1, 1, 30), (7, 1, 3, 1, 1, 31), (8, 1, 0, 1, 1, 31), (11, 1, 5, 1, 1, 4)],
)  # fmt: skip
def test_convolutions(batch, kernel, stride, padding, dilation, groups, time):
    random = np.random.default_rng(kernel)
    weight, bias = random.standard_normal((12, 8 // groups, kernel)), random.standard_normal(12)
    x = mx.array(random.standard_normal((batch, time, 8)).astype(np.float32))
    layer = Conv1d(8, 12, kernel, stride, padding, dilation, groups)
    found = filled(layer, weight=weight.transpose(0, 2, 1), bias=bias)(x)
    native = mx.array(weight.transpose(0, 2, 1).astype(np.float32))
    expected = mx.conv1d(x, native, stride, padding, dilation, groups) + mx.array(bias.astype(np.float32))
    assert found.shape == expected.shape
    assert np.abs(np.array(found - expected)).max() < 1e-4


@pytest.mark.parametrize("batch", [1, 2])
def test_statistics_of_a_normalised_convolution_come_from_its_input(batch):
    random = np.random.default_rng(1)
    weight, gain, shift = random.standard_normal((6, 1, 10)), random.standard_normal(6), random.standard_normal(6)
    x = mx.array((random.standard_normal((batch, 203, 1)) + 3).astype(np.float32))
    norm = {"layer_norm.weight": gain, "layer_norm.bias": shift}
    layer = filled(NormalisedConv1d(1, 6, 10, 5), **{"conv.weight": weight.transpose(0, 2, 1)}, **norm)
    y = mx.conv1d(x, mx.array(weight.transpose(0, 2, 1).astype(np.float32)), 5)
    y = (y - y.mean(1, keepdims=True)) * mx.rsqrt(y.var(1, keepdims=True) + 1e-5)
    expected = np.array(y) * gain + shift
    assert np.abs(np.array(layer(x)) - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("function", "of_mlx"),
    [
        (gelu, nn.gelu),
        (sigmoid, mx.sigmoid),
        (tanh, mx.tanh),
        (softmax, lambda x: mx.softmax(x, axis=-1)),
    ],
)
def test_derivatives_are_those_of_mlx(function, of_mlx):
    """A CPU's own forms move bits about, and state their derivatives."""
    x, weight = 2 * mx.random.normal((3, 7), key=mx.random.key(1)), mx.random.normal((3, 7), key=mx.random.key(2))
    found, expected = (mx.grad(lambda x, f=f: (f(x) * weight).sum())(x) for f in (function, of_mlx))
    assert np.abs(np.array(found - expected)).max() < 1e-5
