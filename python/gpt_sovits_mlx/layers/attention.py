"""Attention: split into heads, scaled dot product, and VITS's relative positions."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn

from ..runtime import backend
from .activation import softmax
from .linear import PointwiseConv1d


def split_heads(x: mx.array, heads: int) -> mx.array:
    """(B, T, C) → (B, heads, T, C / heads)."""
    batch, time, width = x.shape
    return x.reshape(batch, time, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x: mx.array) -> mx.array:
    """(B, heads, T, D) → (B, T, heads · D)."""
    batch, heads, time, width = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, time, heads * width)


def attend(q: mx.array, k: mx.array, v: mx.array, heads: int, scale: float, mask: mx.array | None = None) -> mx.array:
    """Scaled dot-product attention of un-split (B, T, C) queries over (B, S, C) keys and values."""
    return merge_heads(dot_product(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads), scale, mask))


def dot_product(q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None = None) -> mx.array:
    """Scaled dot-product attention of (B, heads, T, D) queries over (B, heads, S, D) keys and values.

    `mask` is true where a query may look; each may look somewhere.
    """
    if backend() == "cpu" and q.dtype == mx.float32:  # MLX's own takes its slow softmax
        scores = (q * scale) @ k.swapaxes(-1, -2)
        return softmax(scores if mask is None else mx.where(mask, scores, -mx.inf)) @ v
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)


class MultiHeadAttention(nn.Module):
    """Attention of queries over a context, each with a 1×1 convolution of its own, under VITS's names.

    Args:
        channels: of queries, context and output.
        heads: that share them.
        window: reach of the relative-position terms that keys and values get (Shaw et al. 2018, as VITS uses them; the
            embeddings are shared between heads); `None` for none.
    """

    def __init__(self, channels: int, heads: int, window: int | None = None):
        super().__init__()
        self.heads = heads
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (PointwiseConv1d(channels, channels) for _ in range(4))
        width = channels // heads
        self.scale = 1 / math.sqrt(width)
        if window is not None:
            self.emb_rel_k, self.emb_rel_v = (
                mx.random.normal((1, 2 * window + 1, width), scale=self.scale) for _ in range(2)
            )

    def __call__(self, x: mx.array, context: mx.array, mask: mx.array | None = None) -> mx.array:
        """(B, T, C) attends over (B, S, C), where `mask` (B, S, 1) is not 0; S = T with relative positions."""
        keys = None if mask is None else (mask > 0).swapaxes(1, 2)[:, None]
        q, k, v = self.conv_q(x), self.conv_k(context), self.conv_v(context)
        if "emb_rel_k" not in self:
            return self.conv_o(attend(q, k, v, self.heads, self.scale, keys))
        rel_k, rel_v = self.emb_rel_k.squeeze(0), self.emb_rel_v.squeeze(0)
        q, k, v = (split_heads(t, self.heads) for t in (q * self.scale, k, v))
        scores = q @ k.swapaxes(-1, -2) + band_to_matrix(q @ rel_k.T)
        if keys is not None:
            scores = mx.where(keys, scores, -mx.inf)
        weights = softmax(scores)
        return self.conv_o(merge_heads(weights @ v + matrix_to_band(weights, len(rel_v)) @ rel_v))


def band_to_matrix(band: mx.array) -> mx.array:
    """(…, T, 2w+1) values at offsets −w … w → (…, T, T), zero outside the band.

    Row i is padded to T + 2w + 1 places; reading the same memory in rows one place shorter shifts it by i.
    """
    *lead, time, offsets = band.shape
    flat = mx.pad(band, [(0, 0)] * (band.ndim - 1) + [(0, time)]).reshape(*lead, -1)
    skewed = flat[..., : time * (time + offsets - 1)].reshape(*lead, time, time + offsets - 1)
    return skewed[..., offsets // 2 : offsets // 2 + time]


def matrix_to_band(matrix: mx.array, offsets: int) -> mx.array:
    """(…, T, T) → (…, T, 2w+1): the entries at offsets −w … w of each row; the inverse of `band_to_matrix`."""
    *lead, time, _ = matrix.shape
    w = offsets // 2
    padding = [(0, 0)] * (matrix.ndim - 1)
    flat = mx.pad(matrix, [*padding, (w, w)]).reshape(*lead, -1)
    flat = mx.pad(flat, [*padding[:-1], (0, time)])
    return flat.reshape(*lead, time, time + offsets)[..., :offsets]
