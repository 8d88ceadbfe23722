"""Prior encoder: semantic features and phones, joined by cross attention → mean and log deviation of the latent."""

from __future__ import annotations

import mlx.core as mx

from ...layers.attention import MultiHeadAttention
from ...layers.convolution import Conv1d
from ...layers.linear import Embedding, Linear
from ...layers.normalisation import LayerNorm
from ...layers.weights import Scope

MRTE_HEADS = 4


class FeedForward:
    """Convolution, ReLU, convolution."""

    def __init__(self, scope: Scope):
        self.conv1, self.conv2 = Conv1d(scope / "conv_1"), Conv1d(scope / "conv_2")

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        return self.conv2(mx.maximum(self.conv1(x, mask), 0), mask)


class Encoder:
    """Post-norm Transformer layers with relative positions (VITS; Kim et al. 2021)."""

    def __init__(self, scope: Scope, heads: int):
        layers = range(scope.count("attn_layers.{}.conv_q.weight"))
        self.attention = [MultiHeadAttention(scope / "attn_layers" / i, heads) for i in layers]
        self.norm1 = [LayerNorm(scope / "norm_layers_1" / i) for i in layers]
        self.feed_forward = [FeedForward(scope / "ffn_layers" / i) for i in layers]
        self.norm2 = [LayerNorm(scope / "norm_layers_2" / i) for i in layers]

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        for attention, norm1, feed_forward, norm2 in zip(
            self.attention, self.norm1, self.feed_forward, self.norm2, strict=True
        ):
            x = norm1(x + attention(x, x, mask))
            x = norm2(x + feed_forward(x, mask))
        return x


class MRTE:
    """Multi-reference timbre encoder (Mega-TTS 2, Jiang et al. 2023): speech attends to text; style is added."""

    def __init__(self, scope: Scope):
        self.speech_in, self.text_in = Linear(scope / "c_pre"), Linear(scope / "text_pre")
        self.attention = MultiHeadAttention(scope / "cross_attention", MRTE_HEADS)
        self.out = Linear(scope / "c_post")

    def __call__(self, speech: mx.array, text: mx.array, style: mx.array, text_mask: mx.array | None) -> mx.array:
        speech = self.speech_in(speech)
        return self.out(self.attention(speech, self.text_in(text), text_mask) + speech + style)


class TextEncoder:
    """`enc_p` of the reference."""

    def __init__(self, scope: Scope, heads: int):
        self.speech_in = Linear(scope / "ssl_proj")
        self.speech_encoder = Encoder(scope / "encoder_ssl", heads)
        self.phones = Embedding(scope / "text_embedding")
        self.text_encoder = Encoder(scope / "encoder_text", heads)
        self.mrte = MRTE(scope / "mrte")
        self.joint_encoder = Encoder(scope / "encoder2", heads)
        self.out = Linear(scope / "proj")

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
        speech = self.speech_encoder(self.speech_in(features), mask)
        text = self.text_encoder(self.phones(phones), phone_mask)
        x = self.joint_encoder(self.mrte(speech, text, style, phone_mask), mask)
        if speed != 1:
            # one frame more than T / speed: the reference adds it, and published samples have it
            length = int(x.shape[1] / speed) + 1
            x = stretch(x, length, speed if steady else x.shape[1] / length)
        mean, log_deviation = mx.split(self.out(x), 2, axis=-1)
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
