"""The generator on a CPU, in numpy: every core makes stretches of the signal, each small enough for its cache.

MLX's operations pass over the whole signal one after the other, and its sum of products, a tap each, is written anew
for every tap. It equals `Generator`.
"""

from __future__ import annotations

from itertools import pairwise

import mlx.core as mx
import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...layers.convolution import Conv1d, ConvTranspose1d
from ...runtime import numpy_view
from ...threads import Threads, all_threads
from .generator import LAST_SLOPE, SLOPE, ConvPair, Generator, ResBlock

STRETCH_BYTES = 2 << 20
"""Of an array of a stretch, at most."""
SHORTEST_STRETCH = 128
"""Frames of a stretch, at least: it is made with those on either side that it depends on."""
BIAS_ROW = 1024
"""Numbers of a row of biases: numpy starts a loop for each row."""


class NumpyGenerator:
    """See `Generator`; it holds views of its weights, where they lie as needed."""

    def __init__(self, generator: Generator):
        self.conv_pre, self.condition, self.rate = generator.conv_pre, generator.cond, generator.rate
        self.stages = [
            (NumpyUpsampling(up), [NumpyResBlock(block) for block in blocks]) for up, blocks in generator.stages
        ]
        self.conv_post = NumpyConv.of(generator.conv_post)

    def __call__(self, z: mx.array, style: mx.array, mask: mx.array | None = None) -> mx.array:
        """Latent (B, T, inter), style (B, 1, gin) → audio (B, T · Π rates); zeros where a row has ended."""
        start, rate = self.conv_pre(z, mask) + self.condition(style), self.rate
        ends = [z.shape[1]] * len(z) if mask is None else np.array(mask.astype(mx.int32).sum(axis=(1, 2)))
        audio = np.zeros((len(z), z.shape[1] * rate), np.float32)
        with all_threads() as threads:
            # MLX computes all that this awaits (text encoder and flow) here, with one thread, too: products so small
            # gained nothing from two cores, and to wake BLAS's threads for them took longer
            rows = np.array(start.astype(mx.float32))
            for x, end, row in zip(rows, ends, audio, strict=True):
                row[: end * rate] = self._samples(x[:end], threads)[: end * rate]
        return mx.array(audio)

    def _samples(self, x: np.ndarray, threads: Threads) -> np.ndarray:
        """What follows the first convolution, of one row: (T, channels) → (T · Π rates)."""
        for upsampling, blocks in self.stages:
            x = _mean_of_blocks(upsampling(x, threads), blocks, threads)
        made, reach = np.empty((len(x), 1), np.float32), self.conv_post.reach

        def work(first: int, last: int) -> None:
            near = _stretch(x, first - reach, last + reach)
            np.tanh(self.conv_post(_leaky_relu(near, LAST_SLOPE)), out=made[first:last])

        threads.share(work, len(x), _parts(x.shape, threads))
        return made[:, 0]


def _mean_of_blocks(x: np.ndarray, blocks: list[NumpyResBlock], threads: Threads) -> np.ndarray:
    """The residual blocks of a stage: (T, channels) → the same."""
    made = np.empty_like(x)

    def work(first: int, last: int) -> None:
        total = blocks[0](x, first, last)
        for block in blocks[1:]:
            total += block(x, first, last)
        np.multiply(total, np.float32(1 / len(blocks)), out=made[first:last])

    threads.share(work, len(x), _parts(x.shape, threads))
    return made


class NumpyResBlock:
    """See `ResBlock`."""

    def __init__(self, block: ResBlock):
        self.reach, self.pairs = block.reach, [NumpyPair(pair) for pair in block.pairs]

    def __call__(self, x: np.ndarray, first: int, last: int) -> np.ndarray:
        """What it makes of the signal (T, channels) from frame `first` to `last`."""
        start = first - self.reach
        y = _stretch(x, start, last + self.reach)
        for pair in self.pairs:
            y = pair(y, start, len(x))
            start += pair.reach
        return y


class NumpyPair:
    """See `ConvPair`."""

    def __init__(self, pair: ConvPair):
        self.dilated, self.plain, self.reach = NumpyConv.of(pair.dilated), NumpyConv.of(pair.plain), pair.reach

    def __call__(self, x: np.ndarray, first: int, length: int) -> np.ndarray:
        """A stretch that begins at frame `first` of a signal → the same without `reach` frames on either side.

        What is beyond the signal's ends stays 0, as if both convolutions padded it.
        """
        inner = self.dilated(_leaky_relu(x, SLOPE))
        inner = _leaky_relu(_ended(inner, first + self.dilated.reach, length), SLOPE)
        y = self.plain(inner)
        y += x[self.reach : self.reach + len(y)]
        return _ended(y, first + self.reach, length)


class NumpyUpsampling:
    """See `ConvTranspose1d`: as a convolution, each of whose frames is as many samples as the stride."""

    def __init__(self, upsampling: ConvTranspose1d):
        self.stride, self.padding, self.kernel_size = upsampling.stride, upsampling.padding, upsampling.kernel_size
        self.out_channels = upsampling.out_channels
        taps, bias = upsampling.phases
        self.convolution = NumpyConv(numpy_view(taps), numpy_view(bias))

    def __call__(self, x: np.ndarray, threads: Threads) -> np.ndarray:
        """(T, in) → (T', out), of what the activation makes of x."""
        around = self.convolution.kernel_size - 1
        made = np.empty((len(x) + around, self.stride * self.out_channels), np.float32)

        def work(first: int, last: int) -> None:
            made[first:last] = self.convolution(_leaky_relu(_stretch(x, first - around, last), SLOPE))

        threads.share(work, len(made), _parts(made.shape, threads))
        length = (len(x) - 1) * self.stride + self.kernel_size - 2 * self.padding
        return made.reshape(-1, self.out_channels)[self.padding : self.padding + length]


class NumpyConv:
    """Convolution over time without padding: (T, in) → (T − 2 · reach, out).

    The k frames that an output depends on lie side by side in memory. So rows that begin k frames apart are a matrix
    that is there already, and its product with the kernel, (k · in, out), is every k-th output: k products are all.
    Of a short signal these have few rows, for which BLAS would rearrange the whole kernel each time: then a few taps
    are taken after the others.
    """

    def __init__(self, taps: np.ndarray, bias: np.ndarray | None, dilation: int = 1):
        """Of a kernel (k, in, out)."""
        self.kernel_size, self.channels, self.out = taps.shape
        self.dilation, self.reach = dilation, dilation * (self.kernel_size - 1) // 2
        self.weight = taps.reshape(-1, self.out)
        self.bias = None if bias is None else np.tile(bias, -(-BIAS_ROW // self.out))

    @classmethod
    def of(cls, layer: Conv1d) -> NumpyConv:
        return cls(numpy_view(layer.taps), numpy_view(layer.bias) if "bias" in layer else None, layer.dilation)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        count = len(x) - self.dilation * (self.kernel_size - 1)
        y = self._by_phase(x, count) if self.dilation > 1 else self._products(x)[:count]
        if self.bias is not None:
            flat, width = y.reshape(-1), len(self.bias)
            rows = flat[: len(flat) // width * width].reshape(-1, width)
            rows += self.bias
            flat[rows.size :] += self.bias[: len(flat) - rows.size]
        return y

    def _by_phase(self, x: np.ndarray, count: int) -> np.ndarray:
        """Every frame beside the one `dilation` later; where a phase ends the kernel mixes two, which is left out."""
        frames = -(-len(x) // self.dilation)
        sorted_ = np.zeros((self.dilation, frames, self.channels), np.float32)
        whole = len(x) // self.dilation
        sorted_[:, :whole] = x[: whole * self.dilation].reshape(whole, self.dilation, self.channels).swapaxes(0, 1)
        sorted_[: len(x) - whole * self.dilation, whole:] = x[whole * self.dilation :, None]
        made = self._products(sorted_.reshape(-1, self.channels)).reshape(self.dilation, frames, -1)
        rows = -(-count // self.dilation)
        return np.ascontiguousarray(made[:, :rows].swapaxes(0, 1)).reshape(-1, self.out)[:count]

    def _products(self, x: np.ndarray) -> np.ndarray:
        """(T, in) → (T, out), of which the last k − 1 frames are undefined."""
        count = len(x) - self.kernel_size + 1
        runs = -(-self.kernel_size // max(1, count // self.out))
        ends = [self.kernel_size * run // runs for run in range(runs + 1)]
        y = self._product(x, 0, ends[1])
        for first, last in pairwise(ends[1:]):
            y[:count] += self._product(x, first, last)[:count]
        return y

    def _product(self, x: np.ndarray, first: int, last: int) -> np.ndarray:
        """The part that the taps from `first` to `last` have in it."""
        weight, taps = self.weight[first * self.channels : last * self.channels], last - first
        y, count = np.empty((len(x), self.out), np.float32), len(x) - self.kernel_size + 1
        for start in range(min(taps, count)):
            rows = (count - 1 - start) // taps + 1
            np.matmul(_rows(x[first + start :], rows, taps, taps), weight, out=_rows(y[start:], rows, 1, taps))
        return y


def _rows(x: np.ndarray, rows: int, frames: int, step: int) -> np.ndarray:
    """A matrix in the memory of a signal (T, channels): each row so many frames, `step` behind the one before."""
    width = x.shape[1] * x.itemsize
    return as_strided(x, (rows, frames * x.shape[1]), (step * width, x.itemsize))


def _stretch(x: np.ndarray, first: int, last: int) -> np.ndarray:
    """Frames `first` to `last` of a signal (T, channels), which is 0 beyond its ends."""
    if first >= 0 and last <= len(x):
        return x[first:last]
    return np.pad(x[max(first, 0) : last], [(max(-first, 0), max(last - len(x), 0)), (0, 0)])


def _ended(x: np.ndarray, first: int, length: int) -> np.ndarray:
    """A stretch that begins at frame `first`, 0 beyond the ends of the signal; in place."""
    x[: max(-first, 0)] = 0
    x[max(length - first, 0) :] = 0
    return x


def _leaky_relu(x: np.ndarray, slope: float) -> np.ndarray:
    scaled = x * np.float32(slope)
    return np.maximum(x, scaled, out=scaled)


def _parts(shape: tuple[int, ...], threads: Threads) -> int:
    """Into how many stretches a signal (T, channels) is cut."""
    time, channels = shape
    wanted = threads.count * -(-4 * time * channels // (STRETCH_BYTES * threads.count))
    return max(1, min(wanted, time // SHORTEST_STRETCH))
