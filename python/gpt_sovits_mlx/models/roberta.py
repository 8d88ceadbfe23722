"""RoBERTa (chinese-roberta-wwm-ext-large): characters → features (BERT; Devlin et al. 2019, Cui et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from ..errors import WeightsError
from ..layers.encoder import LayerNames, TransformerLayer
from ..layers.linear import Embedding
from ..layers.normalisation import LayerNorm
from ..layers.weights import Weights

NAMES = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    feed_forward_in="intermediate.dense",
    feed_forward_out="output.dense",
    feed_forward_norm="output.LayerNorm",
)


@dataclass(frozen=True)
class RobertaConfig:
    """What the tensors' shapes do not tell, under Hugging Face's names; the layers are those in the file."""

    num_attention_heads: int
    layer_norm_eps: float

    @classmethod
    def from_dict(cls, config: dict) -> RobertaConfig:
        """Raises `WeightsError` for a missing key."""
        try:
            return cls(config["num_attention_heads"], config["layer_norm_eps"])
        except KeyError as missing:
            raise WeightsError(f"roberta_config.json lacks {missing}: convert the encoder again") from None


class Roberta:
    """BERT up to its third last hidden state: conversion drops the two layers after it, which nobody hears."""

    def __init__(self, config: RobertaConfig, weights: Weights):
        root = weights.scope() / "bert"
        embeddings = root / "embeddings"
        self.words = Embedding(embeddings / "word_embeddings")
        self.positions = Embedding(embeddings / "position_embeddings")
        self.types = Embedding(embeddings / "token_type_embeddings")
        self.norm = LayerNorm(embeddings / "LayerNorm", config.layer_norm_eps)
        encoder = root / "encoder"
        self.layers = [
            TransformerLayer(encoder / "layer" / i, NAMES, config.num_attention_heads, config.layer_norm_eps)
            for i in range(encoder.count("layer.{}.output.dense.weight"))
        ]
        weights.finish()

    @property
    def max_tokens(self) -> int:
        """The longest input, [CLS] and [SEP] included."""
        return self.positions.weight.shape[0]

    def __call__(self, ids: mx.array) -> mx.array:
        """Token ids (B, T) with [CLS] and [SEP] → (B, T, width)."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.types.weight[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x)
        return x
