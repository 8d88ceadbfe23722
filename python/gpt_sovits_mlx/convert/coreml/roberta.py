"""RoBERTa as the Neural Engine runs it: everything behind the embedding tables, which stay outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ...encoders.buckets import TextBucket, text_inputs
from ...models.roberta import RobertaConfig
from .layers import ChannelNorm, LayerNames, Tensors, TransformerLayer

EMBEDDINGS = "bert.embeddings"
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


class RobertaNetwork(nn.Module):
    """Embeddings (1, width, 1, S) and the mask of the keys (1, S, 1, 1) → features (1, width, 1, S)."""

    input_names = ("embeddings", "key_mask")

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]):
        super().__init__()
        settings = RobertaConfig.from_dict(dict(config))
        eps, heads = settings.layer_norm_eps, settings.num_attention_heads
        self.width = config["hidden_size"]
        self.norm = ChannelNorm(tensors, f"{EMBEDDINGS}.LayerNorm", eps)
        self.layers = nn.ModuleList(
            TransformerLayer(tensors, f"bert.encoder.layer.{i}", NAMES, heads, eps)
            for i in range(config["feature_layer"])
        )

    def forward(self, embeddings: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        x = self.norm(embeddings)
        for layer in self.layers:
            x = layer(x, key_mask)
        return x

    def example(self, bucket: TextBucket) -> dict[str, np.ndarray]:
        """Inputs to trace the network with."""
        random = np.random.default_rng(0)
        embeddings = random.standard_normal((bucket.length, self.width)).astype(np.float32)
        return text_inputs(embeddings, embeddings[0], bucket)


def embedding_tables(tensors: Tensors) -> dict[str, np.ndarray]:
    """What stays outside the package: `words` (vocabulary, width) as stored, and `positions` (tokens, width)
    float32, the embedding of the token type that all tokens have added in."""
    types = tensors[f"{EMBEDDINGS}.token_type_embeddings.weight"].astype(np.float32)
    positions = tensors[f"{EMBEDDINGS}.position_embeddings.weight"].astype(np.float32) + types[0]
    return {"words": tensors[f"{EMBEDDINGS}.word_embeddings.weight"], "positions": positions}
