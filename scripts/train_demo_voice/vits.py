"""SoVITS v2 in small: codes, phones and a reference's spectrogram -> 32 kHz audio, with the reference's tensor names.

Text encoder with relative attention (Shaw et al., 2018) and MRTE, residual coupling flow (VITS, Kim et al.,
2021), HiFi-GAN generator (Kong et al., 2020), mel style encoder (Meta-StyleSpeech, Min et al., 2021).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm

from .graphs import beside

warnings.filterwarnings("ignore", message=".*weight_norm.*", category=FutureWarning)

HOP = 640
STYLE_BINS = 704
WINDOW = 4  # relative attention reaches so many frames to either side


@dataclass(frozen=True)
class Size:
    hidden: int = 96
    filter: int = 160
    style: int = 128
    initial: int = 192
    symbols: int = 732
    codes: int = 1024
    code_width: int = 256
    rates: tuple[int, ...] = (10, 8, 2, 2, 2)
    kernels: tuple[int, ...] = (16, 16, 8, 2, 2)
    residual_kernels: tuple[int, ...] = (3, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), (x.shape[1],), self.gamma, self.beta, 1e-5).transpose(1, 2)


def band_mask(length: int, device: torch.device) -> Tensor:
    """(length, 9) of True where column r of row i, position i + r - 4, exists."""
    position = torch.arange(length, device=device)[:, None] + torch.arange(-WINDOW, WINDOW + 1, device=device)
    return (position >= 0) & (position < length)


def band_to_square(x: Tensor) -> Tensor:
    """(..., T, 9) scores by relative position, zero where it does not exist -> (..., T, T)."""
    if (short := x.shape[-1] - x.shape[-2]) > 0:
        return band_to_square(F.pad(x, (0, 0, 0, short)))[..., :-short, :-short]
    length = x.shape[-2]
    rows = F.pad(x, (0, length + 1 - x.shape[-1])).flatten(-2)
    return rows[..., WINDOW : WINDOW + length * length].unflatten(-1, (length, length))


def square_to_band(x: Tensor) -> Tensor:
    """(..., T, T) -> (..., T, 9), the values around the diagonal; what lies outside must be masked by the caller."""
    if (short := 2 * WINDOW + 1 - x.shape[-1]) > 0:
        return square_to_band(F.pad(x, (0, short, 0, short)))[..., :-short, :]
    length = x.shape[-1]
    rows = F.pad(x.flatten(-2), (WINDOW, length - WINDOW)).unflatten(-1, (length, length + 1))
    return rows[..., : 2 * WINDOW + 1]


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int, relative: bool) -> None:
        super().__init__()
        self.heads, self.relative = heads, relative
        self.conv_q, self.conv_k, self.conv_v, self.conv_o = (nn.Conv1d(channels, channels, 1) for _ in range(4))
        for conv in (self.conv_q, self.conv_k, self.conv_v):
            nn.init.xavier_uniform_(conv.weight)
        if relative:
            width = channels // heads
            self.emb_rel_k = nn.Parameter(torch.randn(1, 2 * WINDOW + 1, width) * width**-0.5)
            self.emb_rel_v = nn.Parameter(torch.randn(1, 2 * WINDOW + 1, width) * width**-0.5)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, T) attends over context (B, C, S) where mask (B, 1, S) is 1."""
        q, k, v = (
            conv(t).unflatten(1, (self.heads, -1)).transpose(2, 3)
            for conv, t in ((self.conv_q, x), (self.conv_k, context), (self.conv_v, context))
        )
        if not self.relative:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None].bool())
            return self.conv_o(out.transpose(2, 3).flatten(1, 2))
        q = q / math.sqrt(q.shape[-1])
        inside = band_mask(x.shape[2], x.device)
        scores = q @ k.transpose(2, 3) + band_to_square((q @ self.emb_rel_k[0].T.to(q.dtype)) * inside)
        weights = scores.masked_fill(mask[:, None] == 0, -1e4).softmax(-1).to(v.dtype)
        out = weights @ v + (square_to_band(weights) * inside) @ self.emb_rel_v[0].to(v.dtype)
        return self.conv_o(out.transpose(2, 3).flatten(1, 2))


class FeedForward(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = nn.Conv1d(channels, width, 3, padding=1), nn.Conv1d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.conv_2(F.relu(self.conv_1(x * mask)) * mask) * mask


class Encoder(nn.Module):
    def __init__(self, channels: int, width: int, layers: int, heads: int = 2, dropout: float = 0.05) -> None:
        super().__init__()
        self.attn_layers = nn.ModuleList(Attention(channels, heads, True) for _ in range(layers))
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.ffn_layers = nn.ModuleList(FeedForward(channels, width) for _ in range(layers))
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in range(layers))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask
        parts = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2, strict=True)
        for attention, norm_1, feed_forward, norm_2 in parts:
            x = norm_1(x + self.drop(attention(x, x, mask)))
            x = norm_2(x + self.drop(feed_forward(x, mask)))
        return x * mask


class MRTE(nn.Module):
    """Codes look at the text; the style is added."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.cross_attention = Attention(width, 4, False)
        self.c_pre, self.text_pre = nn.Conv1d(channels, width, 1), nn.Conv1d(channels, width, 1)
        self.c_post = nn.Conv1d(width, channels, 1)

    def forward(self, codes: Tensor, text: Tensor, text_mask: Tensor, style: Tensor) -> Tensor:
        content, text = self.c_pre(codes), self.text_pre(text)
        return self.c_post(self.cross_attention(content, text, text_mask) + content + style)


class TextEncoder(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        hidden, width = size.hidden, size.filter
        self.ssl_proj = nn.Conv1d(size.code_width, hidden, 1)
        self.encoder_ssl = Encoder(hidden, width, 3)
        self.text_embedding = nn.Embedding(size.symbols, hidden)
        self.encoder_text = Encoder(hidden, width, 6)
        self.mrte = MRTE(hidden, size.style)
        self.encoder2 = Encoder(hidden, width, 3)
        self.proj = nn.Conv1d(hidden, 2 * hidden, 1)
        nn.init.normal_(self.text_embedding.weight, std=hidden**-0.5)
        with torch.no_grad():
            self.proj.bias[hidden:] = -1.5  # type: ignore[index]  # a narrow prior to begin with

    def forward(
        self, quantised: Tensor, mask: Tensor, text: Tensor, text_mask: Tensor, style: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, D, T) at 50 Hz and phones (B, X) -> mean and log standard deviation (B, hidden, T)."""
        (y,), (t,) = beside(
            quantised,
            [
                lambda q: [self.encoder_ssl(self.ssl_proj(q) * mask, mask)],
                lambda _: [self.encoder_text(self.text_embedding(text).transpose(1, 2), text_mask)],
            ],
            mask, text, text_mask,
        )  # fmt: skip
        y = self.encoder2(self.mrte(y, t, text_mask, style), mask)
        mean, scale = self.proj(y).float().chunk(2, 1)
        return mean * mask, scale * mask


class WaveNet(nn.Module):
    def __init__(self, channels: int, style: int, layers: int = 4) -> None:
        super().__init__()
        self.channels = channels
        self.in_layers = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, 2 * channels, 5, padding=2)) for _ in range(layers)
        )
        self.res_skip_layers = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels * (2 if i < layers - 1 else 1), 1)) for i in range(layers)
        )
        self.cond_layer = weight_norm(nn.Conv1d(style, 2 * channels * layers, 1))

    def forward(self, x: Tensor, mask: Tensor, style: Tensor) -> Tensor:
        conditions = self.cond_layer(style).split(2 * self.channels, 1)
        skips: list[Tensor] = []
        for layer, mix, condition in zip(self.in_layers, self.res_skip_layers, conditions, strict=True):
            a, b = (layer(x) + condition).chunk(2, 1)
            y = mix(torch.tanh(a) * torch.sigmoid(b))
            if y.shape[1] > self.channels:
                x = (x + y[:, : self.channels]) * mask
            skips.append(y[:, -self.channels :])
        return torch.stack(skips).sum(0) * mask


class Coupling(nn.Module):
    def __init__(self, channels: int, style: int) -> None:
        super().__init__()
        half = channels // 2
        self.pre = nn.Conv1d(half, channels, 1)
        self.enc = WaveNet(channels, style)
        self.post = nn.Conv1d(channels, half, 1)
        nn.init.normal_(self.post.weight, std=0.01)

    def reverse(self, z: Tensor, mask: Tensor, style: Tensor) -> Tensor:
        a, b = z.chunk(2, 1)
        shift = self.post(self.enc(self.pre(a) * mask, mask, style)).float() * mask
        return torch.cat([a, b - shift], 1)


class Flow(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        # flows.1, .3, .5, .7 of the reference only reverse the channels and own no weights
        layers = [Coupling(size.hidden, size.style) if i % 2 == 0 else nn.Identity() for i in range(8)]
        self.flows = nn.ModuleList(layers)

    def reverse(self, z: Tensor, mask: Tensor, style: Tensor) -> Tensor:
        for layer in reversed(self.flows):
            if isinstance(layer, Coupling):
                z = layer.reverse(z.flip(1), mask, style)
        return z


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            return weight_norm(nn.Conv1d(channels, channels, kernel, 1, (kernel - 1) * dilation // 2, dilation))

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1))
        return x


class Generator(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        channels = size.initial
        self.conv_pre = nn.Conv1d(size.hidden, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        self.kernels = len(size.residual_kernels)
        for rate, kernel in zip(size.rates, size.kernels, strict=True):
            up = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, (kernel - rate) // 2)
            self.ups.append(weight_norm(up))
            channels //= 2
            self.resblocks.extend(ResidualBlock(channels, k, size.dilations) for k in size.residual_kernels)
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=False)
        self.cond = nn.Conv1d(size.style, size.initial, 1)

    def forward(self, z: Tensor, style: Tensor) -> Tensor:
        """(B, hidden, T) -> (B, 640 T) in -1..1."""
        x = self.conv_pre(z) + self.cond(style)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            blocks = self.resblocks[i * self.kernels : (i + 1) * self.kernels]
            heard = beside(x, [lambda x, block=block: [block(x)] for block in blocks])
            x = torch.stack([x for (x,) in heard]).sum(0) / self.kernels
        return torch.tanh(self.conv_post(F.leaky_relu(x)).float())[:, 0]


class _Wrapped(nn.Module):
    """A layer under the attribute name that the reference's wrapper class gives it."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(x)


class _StyleAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.w_qs, self.w_ks, self.w_vs, self.fc = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (w(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for w in (self.w_qs, self.w_ks, self.w_vs))
        out = F.scaled_dot_product_attention(q, k, v, scale=x.shape[-1] ** -0.5)
        return self.fc(out.transpose(1, 2).flatten(2)) + x


class StyleEncoder(nn.Module):
    """(B, 704, T) magnitude spectrogram -> (B, style, 1)."""

    def __init__(self, style: int, width: int = 128) -> None:
        super().__init__()
        first, second = nn.Linear(STYLE_BINS, width), nn.Linear(width, width)
        # positions 1, 2, 4 and 5 hold the activation and dropout, without weights
        layers = [_Wrapped("fc", first), nn.Mish(), nn.Identity(), _Wrapped("fc", second), nn.Mish(), nn.Identity()]
        self.spectral = nn.Sequential(*layers)
        self.temporal = nn.ModuleList(
            _Wrapped("conv1", _Wrapped("conv", nn.Conv1d(width, 2 * width, 5, padding=2))) for _ in range(2)
        )
        self.slf_attn = _StyleAttention(width, 2)
        self.fc = _Wrapped("fc", nn.Linear(width, style))

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.spectral(spectrogram.transpose(1, 2)).transpose(1, 2)
        for layer in self.temporal:
            a, b = layer(x).chunk(2, 1)
            x = x + a * torch.sigmoid(b)
        return self.fc(self.slf_attn(x.transpose(1, 2))).mean(1)[..., None]


class SoVITS(nn.Module):
    """All of the decoder; `codebook` (codes, width) is fixed."""

    codebook: Tensor

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        self.enc_p = TextEncoder(size)
        self.dec = Generator(size)
        self.flow = Flow(size)
        self.ref_enc = StyleEncoder(size.style)
        self.register_buffer("codebook", torch.zeros(size.codes, size.code_width))

    def latent(
        self, codes: Tensor, code_count: Tensor, text: Tensor, text_count: Tensor, style: Tensor, noise: float = 0.5
    ) -> Tensor:
        """Codes (B, n) and phones (B, X) with their counts -> what the generator turns to sound, (B, hidden, 2 n)."""
        frames, phones = 2 * codes.shape[1], text.shape[1]
        device = codes.device
        mask = (torch.arange(frames, device=device) < 2 * code_count[:, None])[:, None].float()
        text_mask = (torch.arange(phones, device=device) < text_count[:, None])[:, None].float()
        quantised = self.codebook[codes].transpose(1, 2).repeat_interleave(2, 2)
        mean, scale = self.enc_p(quantised, mask, text, text_mask, style)
        z = (mean + torch.randn_like(mean) * scale.exp() * noise) * mask
        return self.flow.reverse(z, mask, style)

    @torch.no_grad()
    def speak(self, codes: list[int], phones: list[int], style: Tensor, noise: float = 0.5) -> Tensor:
        """One utterance -> (1280 n,) samples at 32 kHz."""
        device = self.codebook.device
        c, t = torch.tensor([codes], device=device), torch.tensor([phones], device=device)
        counts = torch.tensor([len(codes)], device=device), torch.tensor([len(phones)], device=device)
        return self.dec(self.latent(c, counts[0], t, counts[1], style, noise), style)[0]


def spectrogram(audio: Tensor, window: int = 2048, hop: int = HOP) -> Tensor:
    """(B, N) -> magnitudes (B, window // 2 + 1, N // hop), not centred, reflected by (window - hop) / 2."""
    padded = F.pad(audio[:, None], ((window - hop) // 2,) * 2, mode="reflect")[:, 0]
    shape = torch.hann_window(window, device=audio.device)
    transformed = torch.stft(padded, window, hop, window, shape, center=False, return_complex=True)
    return (transformed.real**2 + transformed.imag**2 + 1e-8).sqrt()
