"""One-dimensional convolutions and their transposes, formulated to suit the back end.

Weights have MLX's layout, (out, k, in / groups), and PyTorch's in files. On a GPU the convolutions are MLX's own. On a
CPU MLX has no fast path for dilated or transposed convolutions (about 1 GFLOP/s), so they become chains of matrix
products on (time × channels), which run at the speed of BLAS.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from ..tuning import forms
from .derived import Derived, Source, parts_of

TAPS_OF_A_RUN = 16
"""Taps that a grouped convolution on a CPU takes at once."""


class Conv1d(Derived[mx.array]):
    """Convolution over time with zero padding: (B, T, in) → (B, T', out).

    Args:
        padding: zeros on both sides; `None` keeps the length ("same", for odd kernels at stride 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        self.weight = _initial(out_channels, kernel_size, in_channels // groups)
        if bias:
            self.bias = mx.zeros((out_channels,))
        self.kernel_size, self.stride, self.dilation, self.groups = kernel_size, stride, dilation, groups
        self.out_channels = out_channels
        self.padding = self.reach if padding is None else padding
        self._native = forms().convolution == "native"
        self._by_frames = groups > 1 or (stride > 1 and dilation > 1)
        self._run = TAPS_OF_A_RUN if stride == 1 and kernel_size % TAPS_OF_A_RUN == 0 else kernel_size

    @staticmethod
    def weight_of_file(weight: mx.array) -> mx.array:
        """(out, in / groups, k) → (out, k, in / groups)."""
        return weight.transpose(0, 2, 1)

    weight_to_file = weight_of_file

    @property
    def taps(self) -> mx.array:
        """The kernel, (k, in, out), of a convolution with stride 1 and one group."""
        return self.weight.transpose(1, 2, 0) if self._native else self.derived()

    @property
    def reach(self) -> int:
        """Input frames on either side that an output frame depends on, at stride 1 and "same" padding."""
        return self.dilation * (self.kernel_size - 1) // 2

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """`mask` (B, T, 1) is 0 where a row of a padded batch has ended, and 1 before."""
        x = x if mask is None else x * mask
        if not self._native:
            return self._frames(x) if self._by_frames else self._sum_of_taps(x)
        y = mx.conv1d(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y + self.bias if "bias" in self else y

    def sources(self) -> Sequence[Source]:
        return [] if self._native else [(self, "weight")]

    def derive(self) -> mx.array:
        """The kernel as the products take it: (runs, groups, taps of a run · in / groups, out / groups), or
        (taps, stride · in, out) for rows of `stride` frames."""
        if self._by_frames:
            runs = self.kernel_size // self._run
            weight = self.weight.reshape(self.groups, self.out_channels // self.groups, runs, self._run, -1)
            weight = weight.transpose(2, 0, 3, 4, 1).reshape(runs, self.groups, -1, self.out_channels // self.groups)
        else:
            weight = mx.pad(self.weight.transpose(1, 2, 0), [(0, -self.kernel_size % self.stride), (0, 0), (0, 0)])
            weight = weight.reshape(-1, self.stride * weight.shape[1], self.out_channels)
        return mx.contiguous(weight)

    def _frames(self, x: mx.array) -> mx.array:
        """Σ over runs of taps of (frames laid out as rows of run · in values) @ (run), a product for each group."""
        first, *others = parts_of(self.derived())
        x = mx.contiguous(mx.pad(x, [(0, 0), (self.padding, self.padding), (0, 0)]))
        batch, padded, channels = x.shape
        count = (padded - self.dilation * (self.kernel_size - 1) - 1) // self.stride + 1
        # the same rows, further on, serve the later runs
        rows = count + self.kernel_size - self._run
        shape = (batch, self.groups, rows, self._run, channels // self.groups)
        steps = (padded * channels, shape[-1], self.stride * channels, self.dilation * channels, 1)
        frames = mx.as_strided(x, shape, steps).reshape(batch, self.groups, rows, -1)
        y = frames[:, :, :count] @ first
        for run, weight in enumerate(others, start=1):
            y = y + frames[:, :, run * self._run : run * self._run + count] @ weight
        y = y.transpose(0, 2, 1, 3).reshape(batch, count, -1)
        return y + self.bias if "bias" in self else y

    def _sum_of_taps(self, x: mx.array) -> mx.array:
        """Σ over taps of (shifted input) @ (tap), all rows of the batch laid end to end as one long signal."""
        taps = self.derived()
        end = -(x.shape[1] + 2 * self.padding) % self.stride
        batch, time, channels = x.shape
        count = (time + 2 * self.padding - self.dilation * (self.kernel_size - 1) - 1) // self.stride + 1
        if self.padding or end:  # of rows laid flat, which MLX copies faster
            around = self.padding * channels, (self.padding + end) * channels
            x = mx.pad(x.reshape(batch, -1), [(0, 0), around])
        padded = (time + 2 * self.padding + end) // self.stride
        flat = x.reshape(batch * padded, self.stride * channels)
        span = self.dilation * (len(taps) - 1)
        rows = batch * padded - span
        out = None
        if "bias" in self:  # repeated by BLAS, faster than MLX does it
            out = mx.ones((rows, 1), self.bias.dtype) @ self.bias[None]
        for tap, weight in enumerate(parts_of(taps)):
            shifted = flat[tap * self.dilation : tap * self.dilation + rows]
            left = self.kernel_size - tap * self.stride
            if left < self.stride:  # the last one ends within a row
                shifted, weight = shifted[:, : left * channels], weight[: left * channels]
            out = shifted @ weight if out is None else mx.addmm(out, shifted, weight)
        assert out is not None
        if batch > 1:
            # rows that mix two neighbours fall into the last `span` places of each stretch and are cut off
            out = mx.pad(out, [(0, span), (0, 0)]).reshape(batch, padded, -1)[:, : padded - span]
        return out.reshape(batch, padded - span, -1)[:, :count]


class StridedConv1d(nn.Module):
    """MLX's own convolution, without bias or padding: (B, T, in) → (B, T', out)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.weight = _initial(out_channels, kernel_size, in_channels)
        self.stride = stride

    weight_of_file = weight_to_file = staticmethod(Conv1d.weight_of_file)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.conv1d(x, self.weight, self.stride)


class NormalisedConv1d(Derived[mx.array]):
    """Convolution without bias or padding whose output is normalised channel by channel over time, and scaled.

    (B, T, in) → (B, T', out): group normalisation with as many groups as channels, under wav2vec 2's names `conv` and
    `layer_norm`. On a CPU the statistics come from those of the input: channel c of the output has mean w_c · m and
    variance w_c C w_c, where m and C are mean and covariance of the frames that the kernel sees. So the kernel is
    scaled, and never the long output.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, eps: float = 1e-5):
        super().__init__()
        self.conv = StridedConv1d(in_channels, out_channels, kernel_size, stride)
        self.layer_norm = nn.LayerNorm(out_channels, eps)
        self.kernel_size, self.stride, self.eps = kernel_size, stride, eps
        self._native = forms().convolution == "native"

    def sources(self) -> Sequence[Source]:
        return [] if self._native else [(self.conv, "weight")]

    def derive(self) -> mx.array:
        """The kernel as a matrix (k · in, out)."""
        return mx.contiguous(self.conv.weight.reshape(len(self.conv.weight), -1).T)

    def __call__(self, x: mx.array) -> mx.array:
        gain, shift = self.layer_norm.weight, self.layer_norm.bias
        if self._native:
            y = mx.fast.layer_norm(self.conv(x).swapaxes(1, 2), None, None, self.eps).swapaxes(1, 2)
            return y * gain + shift
        weight, (batch, time, channels) = self.derived(), x.shape
        count = (time - self.kernel_size) // self.stride + 1
        steps = (time * channels, self.stride * channels, 1)
        frames = mx.as_strided(mx.contiguous(x), (batch, count, self.kernel_size * channels), steps)
        centred = frames - mx.mean(frames, axis=1, keepdims=True)
        covariance = centred.swapaxes(1, 2) @ centred / count
        variance = mx.sum(weight * (covariance @ weight), axis=1, keepdims=True)
        return centred @ (weight * (gain * mx.rsqrt(variance + self.eps))) + shift


class ConvTranspose1d(Derived[tuple[mx.array, mx.array]]):
    """Transposed convolution: (B, T, in) → (B, (T−1)·stride − 2·padding + k, out).

    Where products are chosen (see `tuning`) it is a convolution whose frames are `stride` samples.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int = 0):
        super().__init__()
        self.weight = _initial(out_channels, kernel_size, in_channels)
        self.bias = mx.zeros((out_channels,))
        self.out_channels, self.kernel_size = out_channels, kernel_size
        self.stride, self.padding = stride, padding
        self._native = forms().transposed == "native"

    @staticmethod
    def weight_of_file(weight: mx.array) -> mx.array:
        """(in, out, k) → (out, k, in)."""
        return weight.transpose(1, 2, 0)

    @staticmethod
    def weight_to_file(weight: mx.array) -> mx.array:
        """(out, k, in) → (in, out, k)."""
        return weight.transpose(2, 0, 1)

    def sources(self) -> Sequence[Source]:
        return [] if self._native else [(self, "weight"), (self, "bias")]

    def derive(self) -> tuple[mx.array, mx.array]:
        """See `phases`."""
        # padded to whole strides, so that each input frame gives blocks of `stride` samples
        blocks = -(-self.kernel_size // self.stride)
        weight = mx.pad(self.weight, [(0, 0), (0, blocks * self.stride - self.kernel_size), (0, 0)])
        weight = weight.reshape(self.out_channels, blocks, self.stride, -1)[:, ::-1]
        weight = weight.transpose(1, 3, 2, 0).reshape(blocks, weight.shape[-1], -1)
        return mx.contiguous(weight), mx.tile(self.bias, self.stride)

    @property
    def phases(self) -> tuple[mx.array, mx.array]:
        """The kernel (blocks, in, stride · out) of a convolution whose frames are `stride` samples, the last block
        first, and its bias (stride · out,)."""
        return self.derive() if self._native else self.derived()

    def first_and_last_source(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last input frame that the output's frames `first` to `last` depend on."""
        return -((self.kernel_size - 1 - self.padding - first) // self.stride), (last + self.padding) // self.stride

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """`mask`: as of `Conv1d`."""
        x = x if mask is None else x * mask
        if self._native:
            return mx.conv_transpose1d(x, self.weight, self.stride, self.padding) + self.bias
        return self._overlap_add(x, *self.derived())

    def _overlap_add(self, x: mx.array, phases: mx.array, bias: mx.array) -> mx.array:
        """Σ over blocks of `stride` samples of (input that many frames earlier) @ (block)."""
        batch, time, _ = x.shape
        around = len(phases) - 1
        x = mx.pad(x, [(0, 0), (around, around), (0, 0)]) if around else x
        out = bias
        for block, weight in enumerate(parts_of(phases)):
            out = mx.addmm(out, x[:, block : block + time + around], weight)
        length = (time - 1) * self.stride + self.kernel_size - 2 * self.padding
        return out.reshape(batch, -1, self.out_channels)[:, self.padding : self.padding + length]


def _initial(out_channels: int, kernel_size: int, in_channels: int) -> mx.array:
    """A new weight, as `nn.Conv1d` draws it."""
    scale = (kernel_size * in_channels) ** -0.5
    return mx.random.uniform(-scale, scale, (out_channels, kernel_size, in_channels))
