"""The speech encoder and 25 Hz tokenizer: HuBERT's build (Hsu et al., 2021) in small, Hugging Face's tensor names."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)


def config(channels: int, hidden: int, layers: int, heads: int) -> dict[str, object]:
    """The `config.json` of the encoder's Hugging Face folder."""
    return {
        "model_type": "hubert",
        "architectures": ["HubertModel"],
        "conv_dim": [channels] * len(KERNELS),
        "conv_kernel": list(KERNELS),
        "conv_stride": list(STRIDES),
        "conv_bias": False,
        "feat_extract_norm": "group",
        "feat_extract_activation": "gelu",
        "feat_proj_layer_norm": True,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "do_stable_layer_norm": False,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "num_feat_extract_layers": len(KERNELS),
    }


class _ConvLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=False)
        self.layer_norm = nn.GroupNorm(outputs, outputs) if norm else None
        nn.init.kaiming_normal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.gelu(x if self.layer_norm is None else self.layer_norm(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(width, 4 * width)
        self.output_dense = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x)))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(width, heads)
        self.layer_norm = nn.LayerNorm(width)
        self.feed_forward = _FeedForward(width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))


class Hubert(nn.Module):
    """(B, N) audio at 16 kHz -> (B, T, hidden) at 50 Hz, T = (N - 400) // 320 + 1."""

    def __init__(self, channels: int = 160, hidden: int = 256, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.config = config(channels, hidden, layers, heads)
        inputs: Sequence[int] = (1, *(channels,) * 6)
        self.feature_extractor = nn.Module()
        self.feature_extractor.conv_layers = nn.ModuleList(
            _ConvLayer(inputs[i], channels, KERNELS[i], STRIDES[i], i == 0) for i in range(len(KERNELS))
        )
        self.feature_projection = nn.Module()
        self.feature_projection.layer_norm = nn.LayerNorm(channels)
        self.feature_projection.projection = nn.Linear(channels, hidden)
        self.encoder = nn.Module()
        position = nn.Conv1d(hidden, hidden, 128, padding=64, groups=16)
        nn.init.normal_(position.weight, std=2 / math.sqrt(128 * hidden))
        self.encoder.pos_conv_embed = nn.Module()
        self.encoder.pos_conv_embed.conv = position
        self.encoder.layer_norm = nn.LayerNorm(hidden)
        self.encoder.layers = nn.ModuleList(_Layer(hidden, heads) for _ in range(layers))

    def forward(self, audio: Tensor) -> Tensor:
        x = audio[:, None]
        for layer in self.feature_extractor.conv_layers:  # type: ignore[union-attr]
            x = layer(x)
        x = self.feature_projection.projection(self.feature_projection.layer_norm(x.transpose(1, 2)))  # type: ignore
        position = self.encoder.pos_conv_embed.conv(x.transpose(1, 2))[..., :-1]  # type: ignore
        x = self.encoder.layer_norm(x + F.gelu(position).transpose(1, 2))  # type: ignore[operator]
        for layer in self.encoder.layers:  # type: ignore[union-attr]
            x = layer(x)
        return x

    def hugging_face_state(self) -> dict[str, Tensor]:
        """State under Hugging Face's names: the position convolution in weight-norm form over its last dimension."""
        state = {k: v.detach().clone() for k, v in self.state_dict().items()}
        weight = state.pop("encoder.pos_conv_embed.conv.weight")
        state["encoder.pos_conv_embed.conv.weight_v"] = weight
        state["encoder.pos_conv_embed.conv.weight_g"] = weight.float().norm(dim=(0, 1), keepdim=True)
        state["masked_spec_embed"] = torch.zeros(weight.shape[0])
        return state


class Tokenizer(nn.Module):
    """Encoder, stride-2 projection to 25 Hz and a codebook, with heads that read phones and pitch from the codes.

    Trained in two phases: continuous first, then k-means and a straight-through codebook kept by moving
    averages (van den Oord et al., 2017), unused codes moved onto random vectors.
    """

    PITCH, VOICED, ENERGY = 0, 1, 2

    def __init__(self, phones: int, codes: int = 1024, hidden: int = 256, tones: int = 6) -> None:
        super().__init__()
        self.encoder = Hubert(hidden=hidden)
        self.ssl_proj = nn.Conv1d(hidden, hidden, 2, 2)
        self.sizes = (phones, tones, 3)
        self.head = nn.Sequential(
            nn.Conv1d(hidden, hidden, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose1d(hidden, hidden, 2, 2),
            nn.GELU(),
            nn.Conv1d(hidden, sum(self.sizes), 1),
        )
        self.direct = nn.Linear(hidden, phones)
        self.quantise = False
        self.embed: Tensor
        self.count: Tensor
        self.total: Tensor
        self.register_buffer("embed", torch.zeros(codes, hidden))
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", torch.zeros(codes, hidden))

    def vectors(self, audio: Tensor) -> Tensor:
        """(B, N) at 16 kHz -> (B, T // 2, hidden) before the codebook."""
        return self.ssl_proj(self.encoder(audio).transpose(1, 2)).transpose(1, 2).float()

    def codes(self, vectors: Tensor) -> Tensor:
        return nearest(vectors, self.embed)

    def forward(self, audio: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """-> (phone, tone, prosody) scores at 50 Hz through the codes, phone scores before them, commitment loss."""
        hidden = self.encoder(audio)
        z = self.ssl_proj(hidden.transpose(1, 2)).transpose(1, 2).float()
        q, commitment = z, z.new_zeros(())
        if self.quantise:
            codes = self.codes(z)
            embedded = self.embed[codes]
            commitment = (z - embedded).pow(2).mean()
            q = z + (embedded - z).detach()
            if self.training:
                self._follow(z.detach().flatten(0, 1), codes.flatten())
        scores = self.head(q.transpose(1, 2)).transpose(1, 2).float()
        return scores.split(self.sizes, -1), self.direct(hidden).float(), commitment

    @torch.no_grad()
    def _follow(self, z: Tensor, codes: Tensor, decay: float = 0.99) -> None:
        ones = torch.ones(len(codes), device=z.device)
        self.count.mul_(decay).index_add_(0, codes, ones, alpha=1 - decay)
        self.total.mul_(decay).index_add_(0, codes, z, alpha=1 - decay)
        self.embed.copy_(self.total / self.count[:, None].clamp(min=1e-3))
        dead = (self.count < 0.03)[:, None]
        fresh = z[torch.randint(len(z), (len(self.count),), device=z.device)]
        self.embed.copy_(torch.where(dead, fresh, self.embed))
        self.total.copy_(torch.where(dead, 0.1 * fresh, self.total))
        self.count.copy_(torch.where(dead[:, 0], torch.full_like(self.count, 0.1), self.count))

    def start_codebook(self, vectors: Tensor, weight: float) -> None:
        """k-means over `vectors` (N, hidden); `weight` is how many vectors a training step sees."""
        centres, counts = kmeans(vectors, len(self.embed))
        self.embed.copy_(centres)
        self.count.copy_((counts / counts.sum() * weight).clamp(min=0.1))
        self.total.copy_(centres * self.count[:, None])
        self.quantise = True


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest row of `centres` for each vector of x (..., D)."""
    return (2 * x @ centres.T - centres.pow(2).sum(1)).argmax(-1)


@torch.no_grad()
def kmeans(x: Tensor, count: int, iterations: int = 25) -> tuple[Tensor, Tensor]:
    """(N, D) -> (count, D) centres and how many vectors each took; empty centres restart on random vectors."""
    centres = x[torch.randperm(len(x), device=x.device)[:count]].clone()
    taken = x.new_zeros(count)
    for _ in range(iterations):
        index = torch.cat([nearest(part, centres) for part in x.split(65536)])
        taken = torch.bincount(index, minlength=count).float()
        centres = torch.zeros_like(centres).index_add_(0, index, x) / taken[:, None].clamp(min=1)
        empty = taken == 0
        centres[empty] = x[torch.randint(len(x), (int(empty.sum()),), device=x.device)]
    return centres, taken
