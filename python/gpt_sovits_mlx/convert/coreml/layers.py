"""The Transformer layer that HuBERT and BERT share, in the layout that the Neural Engine likes.

Signals are (1, channels, 1, S), linear layers 1×1 convolutions, and attention runs head by head on slices of
the channels (apple/ml-ane-transformers, "Deploying Transformers on the Apple Neural Engine").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

Tensors = Mapping[str, np.ndarray]
SMALLEST_EPS = 1e-7
"""What stays above zero in float16; BERT's own 1e-12 would not."""
SMALLEST_WEIGHT = 1e-20
"""Biases are divided by weights, which must not be zero."""


@dataclass(frozen=True)
class LayerNames:
    """What a file calls the parts of a layer, as dotted paths."""

    query: str
    key: str
    value: str
    attention_out: str
    attention_norm: str
    feed_forward_in: str
    feed_forward_out: str
    feed_forward_norm: str


def parameter(array: np.ndarray, *shape: int) -> nn.Parameter:
    """An array as a frozen float32 parameter, reshaped where a shape is given."""
    tensor = torch.from_numpy(np.array(array, np.float32))
    return nn.Parameter(tensor.reshape(shape) if shape else tensor, requires_grad=False)


class Pointwise(nn.Module):
    """A linear layer as a 1×1 convolution; `scale` is multiplied into its weights."""

    def __init__(self, tensors: Tensors, name: str, scale: float = 1.0):
        super().__init__()
        weight = tensors[f"{name}.weight"].astype(np.float32) * scale
        self.weight = parameter(weight, *weight.shape, 1, 1)
        self.bias = parameter(tensors[f"{name}.bias"].astype(np.float32) * scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, self.bias)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels.

    Written out as in apple/ml-ane-transformers, the bias before the weight, since the conversion knows that form and
    puts the single operation `layer_norm` in its place: in float16 the written-out square overflows above 255.

    Args:
        gain: multiplied into the signal, and its square into `eps`, where signals are so small that `eps` counts: a
            device may flush 1e-5 to zero.
    """

    def __init__(self, tensors: Tensors, name: str, eps: float, gain: float = 1.0):
        super().__init__()
        width = tensors[f"{name}.weight"].shape[0]
        weight = tensors[f"{name}.weight"].astype(np.float32)
        weight = np.where(np.abs(weight) < SMALLEST_WEIGHT, SMALLEST_WEIGHT, weight)
        self.weight = parameter(weight, 1, width, 1, 1)
        self.bias = parameter(tensors[f"{name}.bias"].astype(np.float32) / weight, 1, width, 1, 1)
        self.gain = gain
        self.eps = max(eps, SMALLEST_EPS) * gain**2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.gain != 1:
            x = x * self.gain
        centred = x - x.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        return (centred * torch.rsqrt(variance + self.eps) + self.bias) * self.weight


class Attention(nn.Module):
    """Multi-head self-attention under an additive mask of the keys."""

    def __init__(self, tensors: Tensors, prefix: str, names: LayerNames, heads: int):
        super().__init__()
        width = tensors[f"{prefix}.{names.query}.weight"].shape[0] // heads
        self.head_width = width
        self.query = Pointwise(tensors, f"{prefix}.{names.query}", width**-0.5)
        self.key = Pointwise(tensors, f"{prefix}.{names.key}")
        self.value = Pointwise(tensors, f"{prefix}.{names.value}")
        self.out = Pointwise(tensors, f"{prefix}.{names.attention_out}")

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        queries = self.query(x).split(self.head_width, 1)
        keys = self.key(x).transpose(1, 3).split(self.head_width, 3)
        values = self.value(x).split(self.head_width, 1)
        heads = []
        for q, k, v in zip(queries, keys, values, strict=True):
            scores = torch.einsum("bchq,bkhc->bkhq", q, k) + key_mask
            heads.append(torch.einsum("bkhq,bchk->bchq", scores.softmax(1), v))
        return self.out(torch.cat(heads, 1))


class TransformerLayer(nn.Module):
    """x = LN(x + attention(x)); x = LN(x + W₂ GELU(W₁ x)): (1, C, 1, S), mask (1, S, 1, 1) → (1, C, 1, S)."""

    def __init__(self, tensors: Tensors, prefix: str, names: LayerNames, heads: int, eps: float):
        super().__init__()
        self.attention = Attention(tensors, prefix, names, heads)
        self.norm1 = ChannelNorm(tensors, f"{prefix}.{names.attention_norm}", eps)
        self.linear1 = Pointwise(tensors, f"{prefix}.{names.feed_forward_in}")
        self.linear2 = Pointwise(tensors, f"{prefix}.{names.feed_forward_out}")
        self.norm2 = ChannelNorm(tensors, f"{prefix}.{names.feed_forward_norm}", eps)

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.attention(x, key_mask))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))
