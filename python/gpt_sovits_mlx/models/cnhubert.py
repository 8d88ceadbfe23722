"""CNHubert (chinese-hubert-base): 16 kHz audio → features at 50 Hz (HuBERT; Hsu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import WeightsError
from ..layers.activation import gelu
from ..layers.convolution import Conv1d, NormalisedConv1d
from ..layers.encoder import TransformerLayer
from ..layers.linear import dtype_of
from .model import Model, Shape


@dataclass(frozen=True)
class CNHubertConfig:
    """Sizes, under Hugging Face's names."""

    conv_dim: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int
    layer_norm_eps: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> CNHubertConfig:
        """Raises `WeightsError` for a missing key."""
        try:
            stated: dict[str, Any] = {field.name: config[field.name] for field in fields(cls)}
        except KeyError as missing:
            raise WeightsError(f"cnhubert_config.json lacks {missing}: convert the encoder again") from None
        stated |= {name: tuple(stated[name]) for name in ("conv_dim", "conv_kernel", "conv_stride")}
        return cls(**stated)


class ConvLayer(nn.Module):
    """A convolution without bias or padding under the name `conv`: (B, T, in) → (B, T', out)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.conv = Conv1d(in_channels, out_channels, kernel_size, stride, padding=0, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.conv(x)


class FeatureExtractor(nn.Module):
    """Strided convolutions, a frame each 320 samples; the first is normalised channel by channel over time."""

    def __init__(self, config: CNHubertConfig):
        super().__init__()
        widths = zip([1, *config.conv_dim[:-1]], config.conv_dim, strict=True)
        sizes = [*zip(widths, config.conv_kernel, config.conv_stride, strict=True)]
        (first, kernel_size, stride), *others = sizes
        self.conv_layers: list[nn.Module] = [NormalisedConv1d(*first, kernel_size, stride)]
        self.conv_layers += [ConvLayer(*width, kernel_size, stride) for width, kernel_size, stride in others]

    def __call__(self, samples: mx.array) -> mx.array:
        """(B, samples) → (B, T, channels)."""
        x = samples[..., None]
        for layer in self.conv_layers:
            x = gelu(layer(x))
        return x


class FeatureProjection(nn.Module):
    """(B, T, channels) → (B, T, width)."""

    def __init__(self, channels: int, width: int, eps: float):
        super().__init__()
        self.layer_norm, self.projection = nn.LayerNorm(channels, eps), nn.Linear(channels, width)

    def __call__(self, x: mx.array) -> mx.array:
        return self.projection(self.layer_norm(x))


class PositionalConvEmbedding(nn.Module):
    """What tells positions apart: a wide grouped convolution (wav2vec 2.0; Baevski et al. 2020): (B, T, width) → same.

    Its weight norm is folded in files.
    """

    def __init__(self, width: int, kernel_size: int, groups: int):
        super().__init__()
        self.conv = Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=groups)

    def __call__(self, x: mx.array) -> mx.array:
        y = self.conv(x)
        # an even kernel gives a frame too many
        return gelu(y[:, : x.shape[1]])


class Encoder(nn.Module):
    """(B, T, width) → the same."""

    def __init__(self, config: CNHubertConfig):
        super().__init__()
        c = config
        self.pos_conv_embed = PositionalConvEmbedding(
            c.hidden_size, c.num_conv_pos_embeddings, c.num_conv_pos_embedding_groups
        )
        self.layer_norm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.layers = [
            TransformerLayer(c.hidden_size, c.intermediate_size, c.num_attention_heads, c.layer_norm_eps)
            for _ in range(c.num_hidden_layers)
        ]

    def __call__(self, x: mx.array) -> mx.array:
        x = self.layer_norm(x + self.pos_conv_embed(x))
        for layer in self.layers:
            x = layer(x)
        return x


class CNHubert(Model):
    """HuBERT's last hidden state. The audio goes in as it is: the reference does not normalise it."""

    NAME = "CNHubert"

    def __init__(self, config: CNHubertConfig):
        super().__init__()
        self.config = config
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config.conv_dim[-1], config.hidden_size, config.layer_norm_eps)
        self.encoder = Encoder(config)

    @classmethod
    def of_config(cls, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> CNHubert:
        return cls(CNHubertConfig.from_dict(config))

    def __call__(self, samples: mx.array) -> mx.array:
        """(B, samples) at 16 kHz → (B, T, width), T = (samples − 400) // 320 + 1."""
        samples = samples.astype(dtype_of(self.feature_projection.projection))
        return self.encoder(self.feature_projection(self.feature_extractor(samples)))
