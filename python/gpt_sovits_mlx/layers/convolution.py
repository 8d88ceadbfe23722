"""One-dimensional convolutions and their transposes, formulated to suit the back end.

On a GPU these are MLX's own. On a CPU MLX has no fast path for dilated or transposed convolutions (about
1 GFLOP/s), so they become chains of matrix products on (time × channels), which run at the speed of BLAS.
"""

from __future__ import annotations

import mlx.core as mx

from ..choices import choices
from .weights import Scope

RUN = 16
"""Taps that a grouped convolution on a CPU takes at once."""


class Conv1d:
    """Convolution over time with zero padding: (B, T, in) → (B, T', out). PyTorch weight (out, in / groups, k).

    Args:
        padding: zeros on both sides; `None` keeps the length ("same", for odd kernels at stride 1).
    """

    def __init__(
        self,
        scope: Scope,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        out, _, self.kernel = scope.shape("weight")
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.padding = self.reach if padding is None else padding
        weight = scope.raw("weight")
        self.form = self._native
        if choices().convolution == "native":
            weight = weight.transpose(0, 2, 1)  # (out, k, in / groups)
        elif groups > 1 or (stride > 1 and dilation > 1):
            self.form, self.run = self._frames, RUN if stride == 1 and self.kernel % RUN == 0 else self.kernel
            weight = weight.reshape(groups, out // groups, -1, self.kernel).transpose(3, 0, 2, 1)
            weight = weight.reshape(self.kernel // self.run, self.run, groups, -1, out // groups).swapaxes(1, 2)
            # (runs, groups, taps of a run · in / groups, out / groups)
            weight = weight.reshape(self.kernel // self.run, groups, -1, out // groups)
        else:
            self.form = self._sum_of_taps
            # (taps, stride · in, out): rows of `stride` frames
            weight = mx.pad(weight.transpose(2, 1, 0), [(0, -self.kernel % stride), (0, 0), (0, 0)])
            weight = weight.reshape(-1, stride * weight.shape[1], out)
        self.weight = scope.keep(weight)
        self.bias = scope.tensor("bias", out) if bias else None

    @property
    def taps(self) -> mx.array:
        """The kernel, (k, in, out), of a convolution with stride 1 and one group."""
        return self.weight if self.form == self._sum_of_taps else self.weight.transpose(1, 2, 0)

    @property
    def reach(self) -> int:
        """Input frames on either side that an output frame depends on, at stride 1 and "same" padding."""
        return self.dilation * (self.kernel - 1) // 2

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """`mask` (B, T, 1) is 0 where a row of a padded batch has ended, and 1 before."""
        return self.form(x if mask is None else x * mask)

    def _native(self, x: mx.array) -> mx.array:
        y = mx.conv1d(x, self.weight, self.stride, self.padding, self.dilation, self.groups)
        return y if self.bias is None else y + self.bias

    def _frames(self, x: mx.array) -> mx.array:
        """Σ over runs of taps of (frames laid out as rows of run · in values) @ (run), a product for each group."""
        x = mx.contiguous(mx.pad(x, [(0, 0), (self.padding, self.padding), (0, 0)]))
        batch, padded, channels = x.shape
        count = (padded - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
        # the same rows, further on, serve the later runs
        rows = count + self.kernel - self.run
        shape = (batch, self.groups, rows, self.run, channels // self.groups)
        steps = (padded * channels, shape[-1], self.stride * channels, self.dilation * channels, 1)
        frames = mx.as_strided(x, shape, steps).reshape(batch, self.groups, rows, -1)
        y = frames[:, :, :count] @ self.weight[0]
        for run in range(1, len(self.weight)):
            y = y + frames[:, :, run * self.run : run * self.run + count] @ self.weight[run]
        y = y.transpose(0, 2, 1, 3).reshape(batch, count, -1)
        return y if self.bias is None else y + self.bias

    def _sum_of_taps(self, x: mx.array) -> mx.array:
        """Σ over taps of (shifted input) @ (tap), all rows of the batch laid end to end as one long signal."""
        end = -(x.shape[1] + 2 * self.padding) % self.stride
        batch, time, channels = x.shape
        count = (time + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
        if self.padding or end:  # of rows laid flat, which MLX copies faster
            around = self.padding * channels, (self.padding + end) * channels
            x = mx.pad(x.reshape(batch, -1), [(0, 0), around])
        padded = (time + 2 * self.padding + end) // self.stride
        flat = x.reshape(batch * padded, self.stride * channels)
        span = self.dilation * (len(self.weight) - 1)
        rows = batch * padded - span
        out = None
        if self.bias is not None:  # repeated by BLAS, faster than MLX does it
            out = mx.ones((rows, 1), self.bias.dtype) @ self.bias[None]
        for tap, weight in enumerate(self.weight):
            shifted, left = flat[tap * self.dilation : tap * self.dilation + rows], self.kernel - tap * self.stride
            if left < self.stride:  # the last one ends within a row
                shifted, weight = shifted[:, : left * channels], weight[: left * channels]
            out = shifted @ weight if out is None else mx.addmm(out, shifted, weight)
        assert out is not None
        if batch > 1:
            # rows that mix two neighbours fall into the last `span` places of each stretch and are cut off
            out = mx.pad(out, [(0, span), (0, 0)]).reshape(batch, padded, -1)[:, : padded - span]
        return out.reshape(batch, padded - span, -1)[:, :count]


class NormalisedConv1d:
    """Convolution without bias or padding whose output is normalised channel by channel over time, and scaled.

    (B, T, in) → (B, T', out): group normalisation with as many groups as channels. On a CPU the statistics come from
    those of the input: channel c of the output has mean w_c · m and variance w_c C w_c, where m and C are mean and
    covariance of the frames that the kernel sees. So the kernel is scaled, and never the long output.
    """

    def __init__(self, scope: Scope, norm: Scope, stride: int, eps: float = 1e-5):
        self.stride, self.eps = stride, eps
        out, _, self.kernel = scope.shape("weight")
        self.gain, self.shift = norm.tensor("weight", out), norm.tensor("bias", out)
        self.folded = choices().convolution == "taps"
        if self.folded:
            self.weight = scope.keep(scope.raw("weight").transpose(2, 1, 0).reshape(-1, out))  # (k · in, out)
        else:
            self.convolution = Conv1d(scope, stride=stride, padding=0, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        if not self.folded:
            y = self.convolution(x)
            y = mx.fast.layer_norm(y.swapaxes(1, 2), None, None, self.eps).swapaxes(1, 2)
            return y * self.gain + self.shift
        batch, time, channels = x.shape
        count = (time - self.kernel) // self.stride + 1
        steps = (time * channels, self.stride * channels, 1)
        frames = mx.as_strided(mx.contiguous(x), (batch, count, self.kernel * channels), steps)
        centred = frames - mx.mean(frames, axis=1, keepdims=True)
        covariance = centred.swapaxes(1, 2) @ centred / count
        variance = mx.sum(self.weight * (covariance @ self.weight), axis=1, keepdims=True)
        return centred @ (self.weight * (self.gain * mx.rsqrt(variance + self.eps))) + self.shift


class ConvTranspose1d:
    """Transposed convolution: (B, T, in) → (B, (T−1)·stride − 2·padding + k, out). PyTorch weight (in, out, k)."""

    def __init__(self, scope: Scope, stride: int, padding: int = 0):
        _, self.out_channels, self.kernel = scope.shape("weight")
        self.stride, self.padding = stride, padding
        weight, bias = scope.raw("weight"), scope.raw("bias", self.out_channels)
        self.by_phases = choices().transposed == "phases"
        if self.by_phases:
            self.weight, self.bias = scope.keep(self._phases(weight)), scope.keep(mx.tile(bias, stride))
        else:
            self.weight, self.bias = scope.keep(weight.transpose(1, 2, 0)), scope.keep(bias)

    def _phases(self, weight: mx.array) -> mx.array:
        """The kernel (in, out, k) as that of a convolution whose frames are `stride` samples.

        It is padded to whole strides, so that each input frame gives blocks of `stride` samples: (blocks, in,
        stride · out), the last block first.
        """
        blocks = -(-self.kernel // self.stride)
        weight = mx.pad(weight, [(0, 0), (0, 0), (0, blocks * self.stride - self.kernel)])
        weight = weight.reshape(*weight.shape[:2], blocks, self.stride)[:, :, ::-1]
        return weight.transpose(2, 0, 3, 1).reshape(blocks, len(weight), -1)

    @property
    def taps(self) -> mx.array:
        """See `_phases`."""
        return self.weight if self.by_phases else self._phases(self.weight.transpose(2, 0, 1))

    @property
    def biases(self) -> mx.array:
        """The bias of each of the stride · out outputs that `taps` give."""
        return self.bias if self.by_phases else mx.tile(self.bias, self.stride)

    def sources(self, first: int, last: int) -> tuple[int, int]:
        """The first and the last input frame that the output's frames `first` to `last` depend on."""
        return -((self.kernel - 1 - self.padding - first) // self.stride), (last + self.padding) // self.stride

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """`mask`: as of `Conv1d`."""
        x = x if mask is None else x * mask
        if self.by_phases:
            return self._overlap_add(x)
        return mx.conv_transpose1d(x, self.weight, self.stride, self.padding) + self.bias

    def _overlap_add(self, x: mx.array) -> mx.array:
        """Σ over blocks of `stride` samples of (input that many frames earlier) @ (block)."""
        batch, time, _ = x.shape
        around = len(self.weight) - 1
        x = mx.pad(x, [(0, 0), (around, around), (0, 0)]) if around else x
        out = self.bias
        for block, weight in enumerate(self.weight):
            out = mx.addmm(out, x[:, block : block + time + around], weight)
        length = (time - 1) * self.stride + self.kernel - 2 * self.padding
        return out.reshape(batch, -1, self.out_channels)[:, self.padding : self.padding + length]
