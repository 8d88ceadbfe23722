"""CNHubert (chinese-hubert-base): 16 kHz audio → features at 50 Hz (HuBERT; Hsu et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..errors import WeightsError
from ..layers.activation import gelu
from ..layers.convolution import Conv1d, NormalisedConv1d
from ..layers.encoder import LayerNames, TransformerLayer
from ..layers.linear import Linear
from ..layers.normalisation import LayerNorm
from ..layers.weights import Scope, Weights

NAMES = LayerNames(
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    attention_out="attention.out_proj",
    attention_norm="layer_norm",
    feed_forward_in="feed_forward.intermediate_dense",
    feed_forward_out="feed_forward.output_dense",
    feed_forward_norm="final_layer_norm",
)


@dataclass(frozen=True)
class CNHubertConfig:
    """What the tensors' shapes do not tell, under Hugging Face's names."""

    conv_stride: tuple[int, ...]
    num_attention_heads: int
    num_hidden_layers: int
    num_conv_pos_embedding_groups: int
    layer_norm_eps: float

    @classmethod
    def from_dict(cls, config: dict) -> CNHubertConfig:
        """Raises `WeightsError` for a missing key."""
        try:
            return cls(
                conv_stride=tuple(config["conv_stride"]),
                num_attention_heads=config["num_attention_heads"],
                num_hidden_layers=config["num_hidden_layers"],
                num_conv_pos_embedding_groups=config["num_conv_pos_embedding_groups"],
                layer_norm_eps=config["layer_norm_eps"],
            )
        except KeyError as missing:
            raise WeightsError(f"cnhubert_config.json lacks {missing}: convert the encoder again") from None


class FeatureExtractor:
    """Strided convolutions, a frame each 320 samples; the first is normalised channel by channel over time."""

    def __init__(self, scope: Scope, strides: Sequence[int]):
        layers = scope / "conv_layers"
        self.first = NormalisedConv1d(layers / 0 / "conv", layers / 0 / "layer_norm", strides[0])
        self.others = [
            Conv1d(layers / i / "conv", stride=stride, padding=0, bias=False) for i, stride in enumerate(strides) if i
        ]

    def __call__(self, samples: mx.array) -> mx.array:
        """(B, samples) → (B, T, channels)."""
        x = gelu(self.first(samples[..., None]))
        for convolution in self.others:
            x = gelu(convolution(x))
        return x


class CNHubert:
    """Returns the last hidden state. The audio goes in as it is: the reference does not normalise it."""

    def __init__(self, config: CNHubertConfig, weights: Weights):
        root = weights.scope()
        eps = config.layer_norm_eps
        self.features = FeatureExtractor(root / "feature_extractor", config.conv_stride)
        self.projection_norm = LayerNorm(root / "feature_projection" / "layer_norm", eps)
        self.projection = Linear(root / "feature_projection" / "projection")
        position = root / "encoder" / "pos_conv_embed" / "conv"
        kernel = position.shape("weight")[2]
        self.even = kernel % 2 == 0
        self.position = Conv1d(position, padding=kernel // 2, groups=config.num_conv_pos_embedding_groups)
        self.norm = LayerNorm(root / "encoder" / "layer_norm", eps)
        self.layers = [
            TransformerLayer(root / "encoder" / "layers" / i, NAMES, config.num_attention_heads, eps)
            for i in range(config.num_hidden_layers)
        ]
        weights.finish()

    def __call__(self, samples: mx.array) -> mx.array:
        """(B, samples) at 16 kHz → (B, T, width), T = (samples − 400) // 320 + 1."""
        x = self.projection(self.projection_norm(self.features(samples.astype(self.projection.dtype))))
        position = self.position(x)
        if self.even:  # an even kernel gives a frame too many
            position = position[:, :-1]
        x = self.norm(x + gelu(position))
        for layer in self.layers:
            x = layer(x)
        return x
