"""Prior encoder: semantic features and phones, joined by cross attention → mean and log deviation of the latent."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ...layers.attention import MultiHeadAttention
from ...layers.convolution import Conv1d
from ...layers.linear import PointwiseConv1d
from ...layers.normalisation import ChannelNorm

MRTE_HEADS = 4
WINDOW = 4
"""Frames on either side within which positions are told apart; fixed in the reference."""


class FeedForward(nn.Module):
    """Convolution, ReLU, convolution: (B, T, channels) → the same."""

    def __init__(self, channels: int, inner: int, kernel_size: int):
        super().__init__()
        self.conv_1, self.conv_2 = Conv1d(channels, inner, kernel_size), Conv1d(inner, channels, kernel_size)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        return self.conv_2(mx.maximum(self.conv_1(x, mask), 0), mask)


class Encoder(nn.Module):
    """Post-norm Transformer layers with relative positions (VITS; Kim et al. 2021): (B, T, channels) → the same."""

    def __init__(self, channels: int, inner: int, heads: int, depth: int, kernel_size: int):
        super().__init__()
        layers = range(depth)
        self.attn_layers = [MultiHeadAttention(channels, heads, WINDOW) for _ in layers]
        self.norm_layers_1 = [ChannelNorm(channels) for _ in layers]
        self.ffn_layers = [FeedForward(channels, inner, kernel_size) for _ in layers]
        self.norm_layers_2 = [ChannelNorm(channels) for _ in layers]

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        for attention, norm_1, feed_forward, norm_2 in zip(
            self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True
        ):
            x = norm_1(x + attention(x, x, mask))
            x = norm_2(x + feed_forward(x, mask))
        return x


class MRTE(nn.Module):
    """Multi-reference timbre encoder (Mega-TTS 2, Jiang et al. 2023): speech attends to text; style is added.

    The style is added inside, so the cross attention is as wide as the style.
    """

    def __init__(self, channels: int, style_channels: int):
        super().__init__()
        self.c_pre, self.text_pre = (PointwiseConv1d(channels, style_channels) for _ in range(2))
        self.cross_attention = MultiHeadAttention(style_channels, MRTE_HEADS)
        self.c_post = PointwiseConv1d(style_channels, channels)

    def __call__(self, speech: mx.array, text: mx.array, style: mx.array, text_mask: mx.array | None) -> mx.array:
        """Speech (B, T, channels), text (B, X, channels), style (B, 1, gin) → (B, T, channels)."""
        speech = self.c_pre(speech)
        return self.c_post(self.cross_attention(speech, self.text_pre(text), text_mask) + speech + style)


class TextEncoder(nn.Module):
    """`enc_p` of the reference.

    Args:
        phonemes: number of phoneme ids.
        feature_channels: of the codebook's entries.
        latent_channels: of mean and deviation.
        channels, inner, heads, layers, kernel_size: of the encoders; two of them have half the layers.
        style_channels: of the style vector.
    """

    def __init__(
        self,
        phonemes: int,
        feature_channels: int,
        latent_channels: int,
        channels: int,
        inner: int,
        heads: int,
        layers: int,
        kernel_size: int,
        style_channels: int,
    ):
        super().__init__()
        self.ssl_proj = PointwiseConv1d(feature_channels, channels)
        self.encoder_ssl = Encoder(channels, inner, heads, layers // 2, kernel_size)
        self.text_embedding = nn.Embedding(phonemes, channels)
        self.encoder_text = Encoder(channels, inner, heads, layers, kernel_size)
        self.mrte = MRTE(channels, style_channels)
        self.encoder2 = Encoder(channels, inner, heads, layers // 2, kernel_size)
        self.proj = PointwiseConv1d(channels, 2 * latent_channels)

    def __call__(
        self,
        features: mx.array,
        phones: mx.array,
        style: mx.array,
        speed: float = 1.0,
        steady: bool = False,
        mask: mx.array | None = None,
        phone_mask: mx.array | None = None,
    ) -> tuple[mx.array, mx.array]:
        """Codebook features (B, T, ssl) at 50 Hz, phone ids (B, X), style (B, 1, gin) → mean, log deviation.

        Both are (B, T', inter); T' = T, or int(T / speed) + 1 where `speed` is not 1. Frame i then stands for
        time i · T / T', or, where `steady`, for i · speed, whatever T is. The masks (B, T, 1) and (B, X, 1) are 0
        where a row has ended; then `speed` is 1.
        """
        speech = self.encoder_ssl(self.ssl_proj(features), mask)
        text = self.encoder_text(self.text_embedding(phones), phone_mask)
        x = self.encoder2(self.mrte(speech, text, style, phone_mask), mask)
        if speed != 1:
            # one frame more than T / speed: the reference adds it, and published samples have it
            length = int(x.shape[1] / speed) + 1
            x = stretch(x, length, speed if steady else x.shape[1] / length)
        mean, log_deviation = mx.split(self.proj(x), 2, axis=-1)
        return mean, log_deviation


def stretch(x: mx.array, length: int, step: float) -> mx.array:
    """Linear interpolation over time, (B, T, C) → (B, length, C), `step` input frames apart, from centre to centre.

    With `step` T / length this is PyTorch's default.
    """
    time = x.shape[1]
    position = mx.clip((mx.arange(length, dtype=mx.float32) + 0.5) * step - 0.5, 0, time - 1)
    left = mx.floor(position).astype(mx.int32)
    right = mx.minimum(left + 1, time - 1)
    share = (position - left)[None, :, None].astype(x.dtype)
    return x[:, left] * (1 - share) + x[:, right] * share
