"""Text-to-semantic GPT: phones and BERT features → semantic tokens (the reference's `Text2SemanticDecoder`).

A decoder of post-norm layers with ReLU over one sequence [text, audio]. Text attends to all text, audio to
all text and to the audio before it. Text and audio have sinusoidal positions of their own, both from 0,
each scaled by a learned alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import WeightsError
from ..layers.attention import dot_product, merge_heads
from .model import Model, Shape, size_of

TENSOR_SIZES = {"linear_units": ("h.layers.0.linear1.weight", 0), "bert_dim": ("bert_proj.weight", 1)}
"""Sizes that official configurations do not state, or not truly, and the tensors and axes that have them."""


@dataclass(frozen=True)
class T2SConfig:
    """Sizes of a text-to-semantic GPT, under the names of the official checkpoint's `config.model`.

    Attributes:
        linear_units: width of the feed-forward layers (the reference's is 4 · hidden_dim, whatever its config states).
        bert_dim: width of BERT's features.
        max_sec: what the checkpoint was trained up to, in seconds.
    """

    hidden_dim: int
    n_layer: int
    head: int
    vocab_size: int
    phoneme_vocab_size: int
    EOS: int
    linear_units: int
    bert_dim: int
    max_sec: int = 54

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> T2SConfig:
        """See `Model.of_config`; what configurations of before do not state comes from `shapes`.

        Raises:
            WeightsError: a key or a tensor is missing, or the sizes are those of no checkpoint.
        """
        from_tensors = {name: size_of(shapes, *at) for name, at in TENSOR_SIZES.items() if name not in config}
        try:
            stated = {"max_sec": cls.max_sec, **from_tensors, **config}
            sizes = cls(**{field.name: int(stated[field.name]) for field in fields(cls)})
        except KeyError as missing:
            raise WeightsError(f"gpt_config.json lacks {missing}: convert the checkpoint again") from None
        if sizes.vocab_size - 1 != sizes.EOS or sizes.hidden_dim % sizes.head:
            raise WeightsError(
                f"gpt_config.json does not describe a GPT-SoVITS model: EOS {sizes.EOS} of {sizes.vocab_size}"
                f" tokens, {sizes.head} heads of width {sizes.hidden_dim}"
            )
        return sizes


class LayerCache(Protocol):
    """Where a layer's keys and values are kept."""

    def append(self, keys_and_values: mx.array) -> tuple[mx.array, mx.array]:
        """Add (2, B, heads, n, head_dim) and return all keys and values so far, (B, heads, length, head_dim) each."""
        ...


class TokenEmbedding(nn.Module):
    """A table of vectors under the name `word_embeddings`: ids (…) → (…, width)."""

    def __init__(self, count: int, width: int):
        super().__init__()
        self.word_embeddings = nn.Embedding(count, width)

    def __call__(self, ids: mx.array) -> mx.array:
        return self.word_embeddings(ids)


class SinePosition(nn.Module):
    """x + alpha · pe[position] (Vaswani et al. 2017; sines and cosines interleaved, alpha learned)."""

    def __init__(self, width: int):
        super().__init__()
        self.alpha = mx.ones((1,))
        self.width = width

    def __call__(self, x: mx.array, start: int = 0) -> mx.array:
        """(B, T, width), whose first position is `start`."""
        return x + self.rows(start, start + x.shape[1]).astype(x.dtype)

    def at(self, positions: Sequence[int]) -> mx.array:
        """What is added at these positions, (B, width), float32."""
        return mx.concatenate([self.rows(position, position + 1) for position in positions])

    def rows(self, start: int, end: int) -> mx.array:
        """What is added at the positions from `start` to `end`, (end − start, width), float32."""
        return self.alpha * mx.array(sines(start, end, self.width))


TABLE_POSITIONS = 4000
"""Positions of which the sines are kept."""


def sines(start: int, end: int, width: int) -> np.ndarray:
    """Sines and cosines of positions, (end − start, width), float32."""
    if end <= TABLE_POSITIONS:
        return _table(width)[start:end]
    rates = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-math.log(10000) / width))
    angles = np.arange(start, end, dtype=np.float32)[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(end - start, width)


@lru_cache(maxsize=4)
def _table(width: int) -> np.ndarray:
    first = sines(0, TABLE_POSITIONS + 1, width)
    return first[:TABLE_POSITIONS]


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, and to what a cache holds: (B, T, width) → the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, 1 / math.sqrt(width // heads)
        self.in_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def __call__(self, x: mx.array, mask: mx.array | None, cache: LayerCache | None) -> mx.array:
        """`mask`, of a shape like (B, heads, T, S), is true where a position may look."""
        batch, time, _ = x.shape
        projected = self.in_proj(x).reshape(batch, time, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        queries, keys_and_values = projected[:1].squeeze(0), projected[1:]  # views: an index would copy
        keys, values = keys_and_values if cache is None else cache.append(keys_and_values)
        return self.out_proj(merge_heads(dot_product(queries, keys, values, self.scale, mask)))


class DecoderLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + W₂ ReLU(W₁ x)): the post-norm layer of the original Transformer."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    @property
    def linears(self) -> list[nn.Module]:
        """Its four matrices; an adapter may stand in the place of each."""
        return [self.self_attn.in_proj, self.self_attn.out_proj, self.linear1, self.linear2]

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: LayerCache | None = None) -> mx.array:
        """(B, T, width) → the same."""
        x = self.norm1(x + self.self_attn(x, mask, cache))
        return self.norm2(x + self.linear2(nn.relu(self.linear1(x))))


class Decoder(nn.Module):
    """The layers, under the name that the reference has for them."""

    def __init__(self, config: T2SConfig):
        super().__init__()
        c = config
        self.layers = [DecoderLayer(c.hidden_dim, c.head, c.linear_units) for _ in range(c.n_layer)]


class TextToSemantic(Model):
    """The GPT. It holds weights only: the state of a decode lives with its decoder (see `decoding`)."""

    NAME = "GPT"
    RENAMED = (("self_attn.in_proj_", "self_attn.in_proj."),)
    # float32 whatever the rest is stored in: float16 logits end some sentences early
    FULL_PRECISION = ("ar_predict_layer.weight", "ar_text_position.alpha", "ar_audio_position.alpha")
    # It decides the token: quantized alone it changes as many of the demo voice's as all other matrices together do
    # (8 bits: 0.5 %; 4 bits: 12 %, against 9 %), and it is 1 % of an official GPT.
    NEVER_QUANTIZED = ("ar_predict_layer",)

    def __init__(self, config: T2SConfig):
        super().__init__()
        self.config, width = config, config.hidden_dim
        self.bert_proj = nn.Linear(config.bert_dim, width)
        self.ar_text_embedding = TokenEmbedding(config.phoneme_vocab_size, width)
        self.ar_text_position = SinePosition(width)
        self.ar_audio_embedding = TokenEmbedding(config.vocab_size, width)
        self.ar_audio_position = SinePosition(width)
        self.h = Decoder(config)
        self.ar_predict_layer = nn.Linear(width, config.vocab_size, bias=False)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> TextToSemantic:
        return cls(T2SConfig.from_dict(config, shapes))

    def __call__(
        self,
        phones: mx.array,
        bert: mx.array | None,
        tokens: mx.array,
        text_lengths: Sequence[int] | None = None,
        token_lengths: Sequence[int] | None = None,
    ) -> mx.array:
        """Logits of the token behind each token, (B, P, vocab), float32; the arguments are those of `hidden_states`."""
        x = self.hidden_states(phones, bert, tokens, text_lengths, token_lengths)
        return self.logits(x[:, phones.shape[1] :])

    def hidden_states(
        self,
        phones: mx.array,
        bert: mx.array | None,
        tokens: mx.array,
        text_lengths: Sequence[int] | None = None,
        token_lengths: Sequence[int] | None = None,
        caches: Sequence[LayerCache] | None = None,
    ) -> mx.array:
        """Read texts and semantic tokens.

        Args:
            phones: (B, X) ids, rows shorter than X padded at their end with any id.
            bert: (B, X, bert_dim) features, or `None` for zeros.
            tokens: (B, P) semantic tokens, padded likewise; P may be 0.
            text_lengths, token_lengths: the rows' lengths where they differ.
            caches: one a layer, which take its keys and values.

        Returns:
            What the last layer makes of each position, (B, X + P, hidden).
        """
        x = self.embed_text(phones, bert)
        if tokens.shape[1]:
            x = mx.concatenate([x, self.ar_audio_position(self.ar_audio_embedding(tokens))], axis=1)
        position, width = mx.arange(x.shape[1]), phones.shape[1]
        is_text = position < width
        mask = is_text[None] | ((position[None] <= position[:, None]) & ~is_text[:, None])
        real = real_positions(width, tokens.shape[1], text_lengths, token_lengths)
        if real is not None:
            mask = (mask[None] & real[:, None])[:, None]
        for layer, cache in zip(self.h.layers, caches or [None] * len(self.h.layers), strict=True):
            x = layer(x, mask, cache)
        return x

    def embed_text(self, phones: mx.array, bert: mx.array | None) -> mx.array:
        """Phone ids (B, X) and BERT features (B, X, bert_dim), zeros where `None` → (B, X, hidden)."""
        x = self.ar_text_embedding(phones)
        x = x + (self.bert_proj.bias if bert is None else self.bert_proj(bert.astype(x.dtype)))
        return self.ar_text_position(x)

    def step(
        self, tokens: mx.array, positions: Sequence[int], mask: mx.array | None, caches: Sequence[LayerCache]
    ) -> mx.array:
        """Read each row's newest token (B,), at a position of its own → logits (B, vocab) of the next, float32.

        `mask` (B, 1, 1, S) is true where a row may look among what the caches hold, the newest token included.
        """
        x = self.ar_audio_embedding(tokens[:, None])
        x = x + self.ar_audio_position.at(positions)[:, None].astype(x.dtype)
        for layer, cache in zip(self.h.layers, caches, strict=True):
            x = layer(x, mask, cache)
        return self.logits(x[:, 0])

    def logits(self, hidden: mx.array) -> mx.array:
        """(…, hidden) → (…, vocab), float32."""
        return self.ar_predict_layer(hidden.astype(mx.float32))


def real_positions(
    text_width: int, token_width: int, text_lengths: Sequence[int] | None, token_lengths: Sequence[int] | None
) -> mx.array | None:
    """(B, X + P), true where a row holds a phone or a token, and no padding; `None` where all are as long."""
    if len(set(text_lengths or [0])) == len(set(token_lengths or [0])) == 1:
        return None
    position = mx.arange(text_width + token_width)
    texts = mx.array(list(text_lengths or [text_width]))[:, None]
    tokens = text_width + mx.array(list(token_lengths or [token_width]))[:, None]
    return mx.where(position < text_width, position < texts, position < tokens)
