"""CNHubert as the Neural Engine runs it: audio in rows that fit its axes, exact under padding and in float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...encoders.buckets import FIRST_STRIDE, HOP, LOUDEST_GAIN, ROW_FRAMES, AudioBucket, audio_inputs
from ...errors import WeightsError
from ...models.cnhubert import CNHubertConfig
from .layers import ChannelNorm, LayerNames, Pointwise, Tensors, TransformerLayer, parameter

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
KERNELS, STRIDES = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
"""The only build whose frames lie as `encoders.buckets` cuts the rows."""
NORM_EPS = 1e-5
PEAK = 32.0
"""Largest output of the first convolution for samples within ±1: its square stays far below float16's 65,504."""
LARGEST_EPS = 30000.0
SMALLEST_NORMAL = 6.2e-5
FEATURE_GAIN = 4.0
"""For what leaves the convolutions: quiet frames vary so little that the layer norm's `eps` shapes them."""
TAPS = 13
"""The widest kernel that the engine is said to take; the positional convolution has 128 taps."""


class FirstLayer(nn.Module):
    """The first convolution and its normalisation of each channel over time, over real samples only.

    Each channel's weights are scaled so that its outputs fill float16 without overflow, and the constant added to
    its variance is scaled alike, which changes nothing else: the normalisation divides the scale out again.
    """

    def __init__(self, tensors: Tensors):
        super().__init__()
        layer = "feature_extractor.conv_layers.0"
        weight = tensors[f"{layer}.conv.weight"].astype(np.float32)
        largest = np.abs(weight).sum(axis=(1, 2))
        limit = np.sqrt(LARGEST_EPS / NORM_EPS) / LOUDEST_GAIN
        scale = np.minimum(PEAK / np.maximum(largest, 1e-6), limit)
        # a power of two scales exactly
        scale = 2.0 ** np.floor(np.log2(scale))
        self.outputs = HOP * ROW_FRAMES // FIRST_STRIDE
        self.weight = parameter(weight * scale[:, None, None], len(scale), 1, 1, weight.shape[2])
        self.eps = parameter(np.maximum(NORM_EPS * scale**2, SMALLEST_NORMAL), 1, len(scale), 1, 1)
        self.norm_weight = parameter(tensors[f"{layer}.layer_norm.weight"], 1, len(scale), 1, 1)
        self.norm_bias = parameter(tensors[f"{layer}.layer_norm.bias"], 1, len(scale), 1, 1)

    def forward(
        self, audio: torch.Tensor, power: torch.Tensor, count_scale: torch.Tensor, count_mask: torch.Tensor
    ) -> torch.Tensor:
        x = F.conv2d(audio, self.weight, stride=(1, FIRST_STRIDE))
        # rows overlap: the outputs past a row's own are the next row's first
        mean = self._mean(x[..., : self.outputs] * count_mask, count_scale)
        x = x - mean
        real = x[..., : self.outputs] * count_mask
        variance = self._mean(real * real, count_scale)
        return F.gelu(x * (torch.rsqrt(variance + self.eps * power) * self.norm_weight) + self.norm_bias)

    @staticmethod
    def _mean(x: torch.Tensor, count_scale: torch.Tensor) -> torch.Tensor:
        return x.mean(3, keepdim=True).mean(2, keepdim=True) * count_scale


class PositionalConvolution(nn.Module):
    """A convolution of many taps as the sum of convolutions of a few."""

    def __init__(self, tensors: Tensors, groups: int):
        super().__init__()
        weight = tensors["encoder.pos_conv_embed.conv.weight"]
        self.taps, self.groups = weight.shape[2], groups
        self.starts = range(0, self.taps, TAPS)
        self.parts = nn.ParameterList(
            parameter(weight[:, :, start : start + TAPS][:, :, None]) for start in self.starts
        )
        self.bias = parameter(tensors["encoder.pos_conv_embed.conv.bias"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[3]
        padded = F.pad(x, (self.taps // 2, self.taps - 1 - self.taps // 2))
        total = None
        for start, weight in zip(self.starts, self.parts, strict=True):
            piece = padded[..., start : start + length + weight.shape[3] - 1]
            part = F.conv2d(piece, weight, self.bias if total is None else None, groups=self.groups)
            total = part if total is None else total + part
        assert total is not None
        return total


class CNHubertNetwork(nn.Module):
    """The inputs of `encoders.buckets.audio_inputs` → features (1, width, 1, S), S = 50 · rows.

    Raises:
        WeightsError: the convolutions are not those of HuBERT's base model.
    """

    input_names = ("audio", "power", "count_scale", "count_mask", "frame_mask", "key_mask")

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]):
        super().__init__()
        settings = CNHubertConfig.from_dict(dict(config))
        kernels, strides = list(config["conv_kernel"]), list(settings.conv_stride)
        if kernels != KERNELS or strides != STRIDES:
            raise WeightsError(
                f"a HuBERT with kernels {kernels} and strides {strides} cannot be made into a Core ML package: it must"
                f" have {KERNELS} and {STRIDES}, as HuBERT base has"
            )
        eps, heads = settings.layer_norm_eps, settings.num_attention_heads
        self.first = FirstLayer(tensors)
        convolutions = [tensors[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(1, len(KERNELS))]
        self.convolutions = nn.ParameterList(parameter(weight[:, :, None]) for weight in convolutions)
        self.projection_norm = ChannelNorm(tensors, "feature_projection.layer_norm", eps, FEATURE_GAIN)
        self.projection = Pointwise(tensors, "feature_projection.projection")
        self.position = PositionalConvolution(tensors, settings.num_conv_pos_embedding_groups)
        self.norm = ChannelNorm(tensors, "encoder.layer_norm", eps)
        self.layers = nn.ModuleList(
            TransformerLayer(tensors, f"encoder.layers.{i}", NAMES, heads, eps)
            for i in range(settings.num_hidden_layers)
        )

    def forward(
        self,
        audio: torch.Tensor,
        power: torch.Tensor,
        count_scale: torch.Tensor,
        count_mask: torch.Tensor,
        frame_mask: torch.Tensor,
        key_mask: torch.Tensor,
    ) -> torch.Tensor:
        x = self.first(audio, power, count_scale, count_mask)
        for weight, stride in zip(self.convolutions, STRIDES[1:], strict=True):
            x = F.gelu(F.conv2d(x, weight, stride=(1, stride)))
        x = x.reshape(1, x.shape[1], 1, -1)
        # the positional convolution must see zeros behind the end, as it does without padding
        x = self.projection(self.projection_norm(x)) * frame_mask
        x = self.norm(x + F.gelu(self.position(x)))
        for layer in self.layers:
            x = layer(x, key_mask)
        return x

    def example(self, bucket: AudioBucket) -> dict[str, np.ndarray]:
        """Inputs to trace the network with."""
        samples = np.random.default_rng(0).uniform(-1, 1, bucket.length).astype(np.float32)
        return audio_inputs(samples, bucket)[0]
