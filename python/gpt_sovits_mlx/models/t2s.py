"""Text-to-semantic GPT: phones and BERT features → semantic tokens (the reference's `Text2SemanticDecoder`).

A decoder of post-norm layers with ReLU over one sequence [text, audio]. Text attends to all text, audio to
all text and to the audio before it. Text and audio have sinusoidal positions of their own, both from 0,
each scaled by a learned alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import WeightsError
from ..layers.attention import dot_product, merge_heads, split_heads
from ..layers.linear import Embedding, Linear
from ..layers.normalisation import LayerNorm
from ..layers.weights import Scope, Weights, open_model
from ..runtime import backend
from .cache import KVCache
from .decode_host import host_decoder
from .decode_kernel import decode_kernel


@dataclass(frozen=True)
class T2SConfig:
    """Sizes of a text-to-semantic GPT, under the names of the official checkpoint's `config.model`."""

    hidden_dim: int
    n_layer: int
    head: int
    vocab_size: int
    phoneme_vocab_size: int
    EOS: int
    max_sec: int = 54

    @classmethod
    def from_dict(cls, config: dict) -> T2SConfig:
        """Raises `WeightsError` for a missing key or sizes that no checkpoint has."""
        try:
            sizes = cls(**{name: int(config[name]) for name in cls.__dataclass_fields__})
        except KeyError as missing:
            raise WeightsError(f"gpt_config.json lacks {missing}: convert the checkpoint again") from None
        if sizes.vocab_size - 1 != sizes.EOS or sizes.hidden_dim % sizes.head:
            raise WeightsError(
                f"gpt_config.json does not describe a GPT-SoVITS model: EOS {sizes.EOS} of {sizes.vocab_size}"
                f" tokens, {sizes.head} heads of width {sizes.hidden_dim}"
            )
        return sizes


class SinePositions:
    """x + alpha · pe[position] (Vaswani et al. 2017; sines and cosines interleaved, alpha learned)."""

    LENGTH = 4000

    def __init__(self, scope: Scope, width: int):
        self.alpha = scope.raw("alpha", 1, dtype=mx.float32)
        self.width = width
        table = scope.keep(self._table(0, self.LENGTH))
        self.table = scope.keep((self.alpha * table).astype(scope.weights.dtype or mx.float32))

    def _table(self, start: int, end: int) -> mx.array:
        rates = np.exp(np.arange(0, self.width, 2, dtype=np.float32) * np.float32(-math.log(10000) / self.width))
        angles = np.arange(start, end, dtype=np.float32)[:, None] * rates
        return mx.array(np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(end - start, self.width))

    def __call__(self, x: mx.array, start: int = 0) -> mx.array:
        """(B, T, width), whose first position is `start`."""
        return x + self._rows(start, start + x.shape[1])

    def at(self, x: mx.array, positions: Sequence[int]) -> mx.array:
        """(B, 1, width), one frame a row, each at a position of its own."""
        if len(set(positions)) == 1:
            return self(x, positions[0])
        return x + self.of(positions)[:, None]

    def of(self, positions: Sequence[int]) -> mx.array:
        """What is added at these positions, (B, width)."""
        if max(positions) < self.LENGTH:
            return self.table[mx.array(list(positions))]
        return mx.concatenate([self._rows(p, p + 1) for p in positions])

    def first(self, count: int) -> mx.array:
        """What is added at the first `count` positions or more, (P, width)."""
        return self.table if count <= self.LENGTH else self._rows(0, count)

    def _rows(self, start: int, end: int) -> mx.array:
        if end <= self.LENGTH:
            return self.table[start:end]
        return (self.alpha * self._table(start, end)).astype(self.table.dtype)


class DecoderLayer:
    """x = LN(x + attention(x)); x = LN(x + W₂ ReLU(W₁ x)): the post-norm layer of the original Transformer."""

    def __init__(self, scope: Scope, heads: int):
        self.heads = heads
        attention = scope / "self_attn"
        self.qkv = Linear(_InProjection(attention))
        self.out = Linear(attention / "out_proj")
        self.linear1, self.linear2 = Linear(scope / "linear1"), Linear(scope / "linear2")
        self.norm1, self.norm2 = LayerNorm(scope / "norm1"), LayerNorm(scope / "norm2")
        self.scale = 1 / math.sqrt(self.out.out_features // heads)

    def __call__(self, x: mx.array, cache: KVCache, mask: mx.array | None) -> mx.array:
        q, k, v = (split_heads(t, self.heads) for t in mx.split(self.qkv(x), 3, axis=-1))
        k, v = cache.append(k, v)
        attended = dot_product(q, k, v, self.scale, mask)
        x = self.norm1(x + self.out(merge_heads(attended)))
        return self.norm2(x + self.linear2(mx.maximum(self.linear1(x), 0)))


class _InProjection(Scope):
    """PyTorch's fused `in_proj_weight` (rows q, k, v) and `in_proj_bias`, under a linear layer's names."""

    def __init__(self, scope: Scope):
        super().__init__(scope.weights, scope.prefix + "in_proj_")


@dataclass
class T2SState:
    """What decoding remembers of the rows of a batch.

    Attributes:
        caches: one for each layer; all rows end at the same slot.
        positions: the position of each row's next audio token.
        starts: the first slot of each row.
        real: (B, n), false where one of the first n slots is padding; `None` where none is. Later slots are real.
    """

    caches: list[KVCache]
    positions: list[int]
    starts: list[int]
    real: mx.array | None

    @property
    def length(self) -> int:
        return self.caches[0].length

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch."""
        index = mx.array(list(rows))
        for cache in self.caches:
            cache.select(index)
        self.positions = [self.positions[r] for r in rows]
        self.starts = [self.starts[r] for r in rows]
        if self.real is not None:
            self.real = self.real[index]

    def join(self, other: T2SState) -> None:
        """Take in the rows of another batch; slots that no row uses any more are dropped."""
        drop = min(self.starts)
        length = max(self.length - drop, other.length)
        parts = [self.real_slots(self.length)[:, drop:], other.real_slots(other.length)]
        shifts = [length - part.shape[1] for part in parts]
        self.starts = [s - drop + shifts[0] for s in self.starts] + [s + shifts[1] for s in other.starts]
        self.positions = self.positions + other.positions
        for mine, theirs in zip(self.caches, other.caches, strict=True):
            mine.join(theirs, drop)
        whole = self.real is None and other.real is None and not any(shifts)
        padded = [mx.pad(p, [(0, 0), (n, 0)], constant_values=False) for p, n in zip(parts, shifts, strict=True)]
        self.real = None if whole else mx.concatenate(padded)

    def real_slots(self, count: int) -> mx.array:
        """(B, count), true where one of the first `count` slots holds a key, or is to hold one."""
        if self.real is None:
            return mx.ones((len(self.starts), count), mx.bool_)
        return mx.pad(self.real, [(0, 0), (0, count - self.real.shape[1])], constant_values=True)

    def arrays(self) -> list[mx.array]:
        return [a for c in self.caches for a in (c.keys, c.values) if a is not None]


class TextToSemantic:
    """The GPT. It holds weights only: the state of a decode lives in a `T2SState`, or in the host's or kernel's rows.

    Attributes:
        kernel: decodes several steps at once where MLX computes on CUDA; `None` elsewhere.
        host: decodes a step where MLX computes on a CPU; `None` elsewhere.
    """

    def __init__(self, config: T2SConfig, weights: Weights):
        self.config = config
        root = weights.scope()
        width = config.hidden_dim
        self.bert_projection = Linear(root / "bert_proj")
        self.text_embedding = Embedding(root / "ar_text_embedding" / "word_embeddings")
        self.audio_embedding = Embedding(root / "ar_audio_embedding" / "word_embeddings")
        self.text_positions = SinePositions(root / "ar_text_position", width)
        self.audio_positions = SinePositions(root / "ar_audio_position", width)
        layers = root / "h" / "layers"
        self.layers = [DecoderLayer(layers / i, config.head) for i in range(config.n_layer)]
        # float32 whatever the rest is stored in: float16 logits end some sentences early
        self.predict = Linear(root / "ar_predict_layer", bias=False, dtype=mx.float32, shape=(config.vocab_size, width))
        weights.finish()
        self.kernel = self.host = None
        if backend() == "cpu":
            self.host = host_decoder(self.layers, self.audio_embedding, self.audio_positions, self.predict)
        if backend() == "cuda":
            self.kernel = decode_kernel(self.layers, self.audio_embedding, self.predict)

    @classmethod
    def load(cls, path: Path, dtype: mx.Dtype | None = None) -> TextToSemantic:
        """The model of a converted file; see `open_model`."""
        config, weights = open_model(path, dtype)
        return cls(T2SConfig.from_dict(config), weights)

    @property
    def bert_width(self) -> int:
        return self.bert_projection.in_features

    def embed_text(self, phones: mx.array, bert: mx.array | None) -> mx.array:
        """Phone ids (B, X) and BERT features (B, X, bert_width), zeros where `None` → (B, X, hidden)."""
        x = self.text_embedding(phones)
        if bert is not None:
            x = x + self.bert_projection(bert.astype(x.dtype))
        elif self.bert_projection.bias is not None:
            x = x + self.bert_projection.bias
        return self.text_positions(x)

    def prefill(
        self,
        phones: mx.array,
        bert: mx.array | None,
        prompt: mx.array,
        text_lengths: Sequence[int] | None = None,
        prompt_lengths: Sequence[int] | None = None,
    ) -> tuple[mx.array, T2SState]:
        """Read the text and the prompt.

        Args:
            phones: (B, X) ids, rows shorter than X padded at their end with any id.
            bert: (B, X, bert_width) features, or `None` for zeros.
            prompt: (B, P) semantic tokens of the prompt, padded likewise; P may be 0.
            text_lengths, prompt_lengths: the rows' lengths where they differ.

        Returns:
            Logits of the first token (B, vocab), float32, and the state to decode on.
        """
        batch, text_width = phones.shape
        texts = list(text_lengths or [text_width] * batch)
        prompts = list(prompt_lengths or [prompt.shape[1]] * batch)
        x = self.embed_text(phones, bert)
        if prompt.shape[1]:
            x = mx.concatenate([x, self.audio_positions(self.audio_embedding(prompt))], axis=1)
        position = mx.arange(x.shape[1])
        is_text = position < text_width
        mask = is_text[None] | ((position[None] <= position[:, None]) & ~is_text[:, None])
        real = None
        if len(set(texts)) > 1 or len(set(prompts)) > 1:
            ends = mx.array(texts)[:, None], text_width + mx.array(prompts)[:, None]
            real = mx.where(is_text, position < ends[0], position < ends[1])
            mask = (mask[None] & real[:, None])[:, None]
        state = T2SState([KVCache() for _ in self.layers], prompts, [0] * batch, real)
        for layer, cache in zip(self.layers, state.caches, strict=True):
            x = layer(x, cache, mask)
        last = [text_width + p - 1 if p else t - 1 for t, p in zip(texts, prompts, strict=True)]
        return self.logits(x[mx.arange(batch), mx.array(last)]), state

    def decode(self, tokens: mx.array, state: T2SState) -> mx.array:
        """One step: the rows' newest tokens (B,) → logits (B, vocab) of the next ones, float32."""
        x = self.audio_positions.at(self.audio_embedding(tokens[:, None]), state.positions)
        state.positions = [p + 1 for p in state.positions]
        mask = None if state.real is None else state.real_slots(state.length + 1)[:, None, None]
        for layer, cache in zip(self.layers, state.caches, strict=True):
            x = layer(x, cache, mask)
        return self.logits(x[:, 0])

    def logits(self, hidden: mx.array) -> mx.array:
        return self.predict(hidden.astype(mx.float32))
