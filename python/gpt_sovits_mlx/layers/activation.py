"""Activations and softmax.

On a CPU MLX computes erf, exp and tanh one element after the other (10 to 25 ns each), but adds and multiplies whole
vectors (0.1 to 0.3 ns): there they become polynomials, exact to about 1e-6. The coefficients are minimax fits (Lawson's
weighted least squares in float64) made for here. Their bits are moved about, so each states its own derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx

from ..runtime import backend

# Φ(y) − 1/2 = y · P(y²) / Q(y²) within 1.1e-8 for |y| ≤ LIMIT, beyond which Φ is 0 or 1 in float32.
LIMIT = 5.66
P = (
    2.18013864e-08, 6.36547644e-06, 1.77113519e-04, 4.72696686e-03, 3.47101146e-02, 3.98942212e-01,
)  # fmt: skip
Q = (
    1.17080524e-06, 7.60755067e-05, 1.93155347e-03, 2.91292535e-02, 2.53670926e-01, 1.0,
)  # fmt: skip
# 2^f within 7.5e-8 of itself for |f| ≤ 1/2
POWER = (0.00132765, 0.00967554, 0.05550713, 0.2402212, 0.69314697, 1.00000007)
ROUNDING = 1.5 * 2**23
"""Added to a number of at most 2^22, it leaves the nearest integer in the lowest bits."""
SMALLEST = -87.0
"""exp of it is about the smallest normal number of float32."""


def custom_function(function: Callable[[mx.array], mx.array]) -> Any:
    """`mx.custom_function`, whose type is that of no function."""
    return mx.custom_function(function)


def gelu(x: mx.array) -> mx.array:
    """Exact GELU, x · Φ(x) (Hendrycks and Gimpel 2016)."""
    return gelu_of_gpu(x) if backend() != "cpu" else _gelu(x)


def sigmoid(x: mx.array) -> mx.array:
    return mx.sigmoid(x) if backend() != "cpu" else _sigmoid(x)


def tanh(x: mx.array) -> mx.array:
    return mx.tanh(x) if backend() != "cpu" else 2 * _sigmoid(2 * x) - 1


def softmax(x: mx.array) -> mx.array:
    """Over the last axis, in float32 within."""
    return mx.softmax(x, axis=-1, precise=True) if backend() != "cpu" else _softmax(x)


@partial(mx.compile, shapeless=True)
def gelu_of_gpu(x: mx.array) -> mx.array:
    """In one kernel."""
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


@custom_function
def _gelu(x: mx.array) -> mx.array:
    return x * _normal_cdf(x)


@_gelu.vjp
def _gelu_gradient(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
    return cotangent * (_normal_cdf(x) + x * mx.exp(-mx.square(x) / 2) / math.sqrt(2 * math.pi))


def _normal_cdf(x: mx.array) -> mx.array:
    y = mx.clip(x, -LIMIT, LIMIT)
    square = mx.square(y)
    return y * (_horner(P, square) / _horner(Q, square)) + 0.5


def _exp(x: mx.array) -> mx.array:
    """2^n · 2^f, with n put into the exponent's bits."""
    y = mx.maximum(x, SMALLEST) * math.log2(math.e)
    rounded = y + ROUNDING
    power = _horner(POWER, y - (rounded - ROUNDING))
    return (power.view(mx.int32) + mx.left_shift(rounded.view(mx.int32), 23)).view(mx.float32)


@custom_function
def _sigmoid(x: mx.array) -> mx.array:
    # beyond ±87 it is 0 or 1
    return 1 / (1 + _exp(mx.minimum(-x, -SMALLEST)))


@_sigmoid.vjp
def _sigmoid_gradient(_: mx.array, cotangent: mx.array, y: mx.array) -> mx.array:
    return cotangent * y * (1 - y)


@custom_function
def _softmax(x: mx.array) -> mx.array:
    y = _exp(x - mx.max(x, axis=-1, keepdims=True))
    return y / mx.sum(y, axis=-1, keepdims=True)


@_softmax.vjp
def _softmax_gradient(_: mx.array, cotangent: mx.array, y: mx.array) -> mx.array:
    return y * (cotangent - mx.sum(cotangent * y, axis=-1, keepdims=True))


def _horner(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """A polynomial, the highest power first."""
    y = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        y = y * x + coefficient
    return y
