"""RoBERTa (chinese-roberta-wwm-ext-large): characters → features (BERT; Devlin et al. 2019, Cui et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import WeightsError
from ..layers.encoder import TransformerLayer
from .model import Model, Shape


@dataclass(frozen=True)
class RobertaConfig:
    """Sizes, under Hugging Face's names.

    Attributes:
        feature_layer: how many layers run, and are in the file: the GPT hears the third last hidden state, so
            conversion drops the two layers after it.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    feature_layer: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> RobertaConfig:
        """Raises `WeightsError` for a missing key."""
        try:
            return cls(**{field.name: config[field.name] for field in fields(cls)})
        except KeyError as missing:
            raise WeightsError(f"roberta_config.json lacks {missing}: convert the encoder again") from None


class Embeddings(nn.Module):
    """Words, positions and the first of the token types: ids (B, T) → (B, T, width)."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)

    def __call__(self, ids: mx.array) -> mx.array:
        positions, types = self.position_embeddings.weight, self.token_type_embeddings.weight
        return self.LayerNorm(self.word_embeddings(ids) + positions[: ids.shape[1]] + types[0])


class Encoder(nn.Module):
    """The layers: (B, T, width) → the same."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        c = config
        self.layer = [
            TransformerLayer(c.hidden_size, c.intermediate_size, c.num_attention_heads, c.layer_norm_eps)
            for _ in range(c.feature_layer)
        ]

    def __call__(self, x: mx.array) -> mx.array:
        for layer in self.layer:
            x = layer(x)
        return x


class Bert(nn.Module):
    """Embeddings and layers under the name that `BertForMaskedLM` gives them: ids (B, T) → (B, T, width)."""

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.embeddings, self.encoder = Embeddings(config), Encoder(config)

    def __call__(self, ids: mx.array) -> mx.array:
        return self.encoder(self.embeddings(ids))


class Roberta(Model):
    """BERT up to the hidden state that GPT-SoVITS takes."""

    NAME = "RoBERTa"
    RENAMED = (
        ("attention.self.query.", "attention.q_proj."),
        ("attention.self.key.", "attention.k_proj."),
        ("attention.self.value.", "attention.v_proj."),
        ("attention.output.dense.", "attention.out_proj."),
        ("attention.output.LayerNorm.", "layer_norm."),
        ("intermediate.dense.", "feed_forward.intermediate_dense."),
        ("output.dense.", "feed_forward.output_dense."),
        ("output.LayerNorm.", "final_layer_norm."),
    )

    def __init__(self, config: RobertaConfig):
        super().__init__()
        self.config, self.bert = config, Bert(config)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Roberta:
        return cls(RobertaConfig.from_dict(config))

    @property
    def max_tokens(self) -> int:
        """The longest input, [CLS] and [SEP] included."""
        return self.config.max_position_embeddings

    def __call__(self, ids: mx.array) -> mx.array:
        """Token ids (B, T) with [CLS] and [SEP] → (B, T, width)."""
        return self.bert(ids)
