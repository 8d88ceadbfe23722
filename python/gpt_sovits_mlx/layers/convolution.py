"""One-dimensional convolutions and their transposes, formulated to suit the back end.

On a GPU these are MLX's own. On a CPU MLX has no fast path for dilated or transposed convolutions (about
1 GFLOP/s), so they become chains of matrix products on (time × channels), which run at the speed of BLAS.
"""

from __future__ import annotations

import mlx.core as mx

from ..runtime import backend
from .weights import Scope


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
        if backend() != "cpu":
            weight = weight.transpose(0, 2, 1)  # (out, k, in / groups)
        elif stride == 1 and groups == 1:
            self.form, weight = self._sum_of_taps, weight.transpose(2, 1, 0)  # (k, in, out)
        else:
            self.form = self._frames
            weight = weight.reshape(groups, out // groups, -1, self.kernel).transpose(0, 3, 2, 1)
            weight = weight.reshape(groups, -1, out // groups)  # (groups, k · in / groups, out / groups)
        self.weight = scope.keep(weight)
        self.bias = scope.tensor("bias", out) if bias else None

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
        """One matrix product a group of (frames laid out as rows of k · in values) @ (kernel)."""
        x = mx.contiguous(mx.pad(x, [(0, 0), (self.padding, self.padding), (0, 0)]))
        batch, padded, channels = x.shape
        count = (padded - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
        shape = (batch, self.groups, count, self.kernel, channels // self.groups)
        steps = (padded * channels, shape[-1], self.stride * channels, self.dilation * channels, 1)
        rows = mx.as_strided(x, shape, steps).reshape(batch, self.groups, count, -1)
        y = (rows @ self.weight).transpose(0, 2, 1, 3).reshape(batch, count, -1)
        return y if self.bias is None else y + self.bias

    def _sum_of_taps(self, x: mx.array) -> mx.array:
        """Σ over taps of (shifted input) @ (tap), all rows of the batch laid end to end as one long signal."""
        x = mx.pad(x, [(0, 0), (self.padding, self.padding), (0, 0)]) if self.padding else x
        batch, padded, channels = x.shape
        span = self.dilation * (self.kernel - 1)
        rows = batch * padded - span
        flat = x.reshape(batch * padded, channels)
        out = None
        for tap in range(self.kernel):
            shifted = flat[tap * self.dilation : tap * self.dilation + rows]
            if out is None:
                first = self.weight[tap]
                out = shifted @ first if self.bias is None else mx.addmm(self.bias, shifted, first)
            else:
                out = mx.addmm(out, shifted, self.weight[tap])
        assert out is not None
        if batch == 1:
            return out[None]
        # rows that mix two neighbours fall into the last `span` places of each stretch and are cut off
        return mx.pad(out, [(0, span), (0, 0)]).reshape(batch, padded, -1)[:, : padded - span]


class ConvTranspose1d:
    """Transposed convolution: (B, T, in) → (B, (T−1)·stride − 2·padding + k, out). PyTorch weight (in, out, k)."""

    def __init__(self, scope: Scope, stride: int, padding: int = 0):
        channels, self.out_channels, self.kernel = scope.shape("weight")
        self.stride, self.padding = stride, padding
        weight = scope.raw("weight")
        self.by_phases = backend() == "cpu"
        if self.by_phases:
            # kernel padded to whole strides, so that each input frame gives `blocks` runs of `stride` samples
            self.blocks = -(-self.kernel // stride)
            weight = mx.pad(weight, [(0, 0), (0, 0), (0, self.blocks * stride - self.kernel)])
            weight = weight.reshape(channels, self.out_channels, self.blocks, stride)
            self.weight = scope.keep(weight.transpose(2, 0, 3, 1).reshape(self.blocks, channels, -1))
        else:
            self.weight = scope.keep(weight.transpose(1, 2, 0))
        self.bias = scope.tensor("bias", self.out_channels)

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
        """One matrix product for each run of `stride` samples, then overlap-add of the runs."""
        batch, time, _ = x.shape
        out: mx.array | None = None
        for block in range(self.blocks):
            run = x @ self.weight[block]
            run = mx.pad(run, [(0, 0), (block, self.blocks - 1 - block), (0, 0)])
            out = run if out is None else out + run
        assert out is not None
        length = (time - 1) * self.stride + self.kernel - 2 * self.padding
        samples = out.reshape(batch, -1, self.out_channels)[:, self.padding : self.padding + length]
        return samples + self.bias
