"""The whole vocoder of GPT-SoVITS v1 and v2 (`SynthesizerTrn` of the reference), inference only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from ...errors import WeightsError
from ...layers.convolution import Conv1d, ConvTranspose1d
from ...layers.derived import Derived, Source
from ...tuning import forms
from ..model import Model, Shape, size_of
from .flow import Flow
from .generator import Generator
from .generator_numpy import NumpyGenerator
from .quantizer import EuclideanCodebook
from .style_encoder import StyleEncoder
from .text_encoder import TextEncoder

NOISE_SCALE = 0.5
"""Deviation of the latent's noise in the reference's decoder."""
WINDOW_FRAMES = 480
"""Frames whose samples are made at once, 9.6 s: a longer sentence takes no more memory."""
CODEBOOK = "quantizer.vq.layers.0._codebook.embed"
TENSOR_SIZES = {
    "phonemes": ("enc_p.text_embedding.weight", 0),
    "codes": (CODEBOOK, 0),
    "ssl_channels": (CODEBOOK, 1),
    "style_bins": ("ref_enc.spectral.0.fc.weight", 1),
    "style_channels": ("ref_enc.spectral.0.fc.weight", 0),
}
"""Sizes that official configurations do not state, and the tensors and axes that have them."""


@dataclass(frozen=True)
class SoVITSConfig:
    """Sizes and rates, under the names of the official checkpoint's config where it has them.

    Attributes:
        version: "v1" or "v2".
        symbols: of which version's phonemes its inputs are ids.
        sampling_rate, filter_length, hop_length, win_length: of the spectrogram of references, in Hz and samples.
        phonemes: number of phoneme ids.
        codes, ssl_channels: entries of the codebook, and their width.
        style_bins, style_channels: of the spectrogram that the style encoder sees, and its width.
        others: see `TextEncoder`, `Flow` and `Generator`.
    """

    version: str
    symbols: str
    sampling_rate: int
    filter_length: int
    hop_length: int
    win_length: int
    inter_channels: int
    hidden_channels: int
    filter_channels: int
    n_heads: int
    n_layers: int
    kernel_size: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_initial_channel: int
    upsample_kernel_sizes: tuple[int, ...]
    gin_channels: int
    phonemes: int
    codes: int
    ssl_channels: int
    style_bins: int
    style_channels: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> SoVITSConfig:
        """See `Model.of_config`; what the checkpoint's configuration does not state comes from `shapes`.

        Raises:
            WeightsError: a key or a tensor is missing, or the version is not supported.
        """
        try:
            data, model = config["data"], config["model"]
            if config["version"] not in ("v1", "v2"):
                raise WeightsError(f"SoVITS {config['version']} is not supported: v1 and v2 are")
            if str(model.get("resblock", "1")) != "1":
                raise WeightsError(f"SoVITS residual block {model['resblock']} is not supported: 1 is")
            spectrum = ("sampling_rate", "filter_length", "hop_length", "win_length")
            numbers = ("inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers", "kernel_size")
            found: dict[str, Any] = {
                name: model[name] if name in model else size_of(shapes, *at) for name, at in TENSOR_SIZES.items()
            }
            lists = ("resblock_kernel_sizes", "upsample_rates", "upsample_kernel_sizes")
            return cls(
                version=config["version"],
                symbols=config["symbols"],
                **{name: data[name] for name in spectrum},
                **{name: model[name] for name in (*numbers, "upsample_initial_channel", "gin_channels")},
                **{name: tuple(model[name]) for name in lists},
                resblock_dilation_sizes=tuple(tuple(d) for d in model["resblock_dilation_sizes"]),
                **found,
            )
        except KeyError as missing:
            raise WeightsError(f"sovits_config.json lacks {missing}: convert the checkpoint again") from None

    @property
    def samples_per_frame(self) -> int:
        """A frame of the latent lasts 20 ms; a semantic token, at speed 1, two of them."""
        return math.prod(self.upsample_rates)


class SoVITS(Model, Derived[NumpyGenerator]):
    """Weights and arithmetic; nothing of a request is kept.

    Its parts have the reference's names: the quantizer, the style encoder `ref_enc`, the prior's text encoder `enc_p`,
    the flow and the generator `dec`.
    """

    NAME = "SoVITS"
    RENAMED = ((CODEBOOK, "quantizer.embed"),)
    SHARES_SOURCES = True

    def __init__(self, config: SoVITSConfig):
        super().__init__()
        self.config = c = config
        self.ssl_proj = Conv1d(c.ssl_channels, c.ssl_channels, 2, stride=2, padding=0)
        self.quantizer = EuclideanCodebook(c.codes, c.ssl_channels)
        self.ref_enc = StyleEncoder(c.style_bins, c.style_channels, c.gin_channels)
        self.enc_p = TextEncoder(
            phonemes=c.phonemes,
            feature_channels=c.ssl_channels,
            latent_channels=c.inter_channels,
            channels=c.hidden_channels,
            inner=c.filter_channels,
            heads=c.n_heads,
            layers=c.n_layers,
            kernel_size=c.kernel_size,
            style_channels=c.gin_channels,
        )
        self.flow = Flow(c.inter_channels, c.hidden_channels, c.gin_channels)
        self.dec = Generator(
            in_channels=c.inter_channels,
            channels=c.upsample_initial_channel,
            style_channels=c.gin_channels,
            rates=c.upsample_rates,
            kernel_sizes=c.upsample_kernel_sizes,
            block_kernel_sizes=c.resblock_kernel_sizes,
            dilations=c.resblock_dilation_sizes,
        )
        self._generates_in_numpy = forms().numpy_generator
        self.pads = forms().padded

    @classmethod
    def of_config(cls, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> SoVITS:
        return cls(SoVITSConfig.from_dict(config, shapes))

    def sources(self) -> Sequence[Source]:
        """A generator in numpy holds views of the parameters."""
        if not self._generates_in_numpy:
            return []
        layers = [layer for layer in self.dec.modules() if isinstance(layer, Conv1d | ConvTranspose1d)]
        return [(layer, name) for layer in layers for name in ("weight", "bias")]

    def derive(self) -> NumpyGenerator:
        return NumpyGenerator(self.dec)

    def tokens(self, features: mx.array) -> mx.array:
        """HuBERT features (B, T, ssl) at 50 Hz → semantic tokens (B, T // 2) at 25 Hz."""
        return self.quantizer.encode(self.ssl_proj(features.astype(self.quantizer.embed.dtype)))

    def style(self, spectrograms: Sequence[mx.array]) -> mx.array:
        """Magnitude spectrograms (1, T, bins) of one or more references → their mean style (1, 1, gin)."""
        styles = [self.ref_enc(s) for s in spectrograms]
        return sum(styles[1:], styles[0]) / len(styles)

    def decode(
        self,
        tokens: mx.array,
        phones: mx.array,
        style: mx.array,
        speed: float = 1.0,
        noise: mx.array | None = None,
        lengths: Sequence[int] | None = None,
        phone_lengths: Sequence[int] | None = None,
    ) -> mx.array:
        """Semantic tokens and the phones that they say → audio.

        Args:
            tokens: (B, N) int, rows shorter than N padded at their end with any token.
            phones: (B, X) ids of the sentence (the prompt's are not among them), padded likewise.
            style: (B or 1, 1, gin).
            speed: above 1 is faster.
            noise: standard normal (B, `latent_frames(N, speed)`, inter), or `None` for the mean of the prior.
            lengths, phone_lengths: those of the rows where they differ; then `speed` is 1.

        Returns:
            (B, frames · hop) samples at `config.sampling_rate`, float32, within ±1; those behind a row's end mean
            nothing.
        """
        z = self.latent(tokens, phones, style, speed, noise, lengths=lengths, phone_lengths=phone_lengths)
        return self.vocode(z, style, lengths and [self.latent_frames(n) for n in lengths])

    def latent(
        self,
        tokens: mx.array,
        phones: mx.array,
        style: mx.array,
        speed: float = 1.0,
        noise: mx.array | None = None,
        steady: bool = False,
        lengths: Sequence[int] | None = None,
        phone_lengths: Sequence[int] | None = None,
    ) -> mx.array:
        """The text side of `decode`: a draw from the prior, (B, `latent_frames(N, speed)`, inter).

        Every frame depends on all tokens and phones. `steady`, for tokens whose number still grows, keeps frame i
        at time i · speed; the reference's frames lie evenly over N tokens, up to a frame away from that.
        """
        batch, frames = tokens.shape[0], self.latent_frames(tokens.shape[1], speed)
        noise = mx.zeros((batch, frames, self.latent_width)) if noise is None else noise
        if speed != 1 or not (self.pads or lengths or phone_lengths):
            return self._drawn(tokens, phones, style, noise, None, None, speed, steady)
        tokens, mask = self._padded(tokens, lengths)
        phones, phone_mask = self._padded(phones, phone_lengths)
        noise = mx.pad(noise, [(0, 0), (0, self.latent_frames(tokens.shape[1]) - frames), (0, 0)])
        return self._drawn(tokens, phones, style, noise, mx.repeat(mask, 2, axis=1), phone_mask)[:, :frames]

    def _drawn(
        self,
        tokens: mx.array,
        phones: mx.array,
        style: mx.array,
        noise: mx.array,
        mask: mx.array | None,
        phone_mask: mx.array | None,
        speed: float = 1.0,
        steady: bool = False,
    ) -> mx.array:
        features = self.quantizer.decode(tokens)
        style = style.astype(features.dtype)
        mean, log_deviation = self.enc_p(features, phones, style, speed, steady, mask, phone_mask)
        return mean + noise.astype(mean.dtype) * mx.exp(log_deviation) * NOISE_SCALE

    def vocode(self, z: mx.array, style: mx.array, lengths: Sequence[int] | None = None) -> mx.array:
        """The other side of `decode`: latent (B, T, inter) → audio (B, T · hop), float32.

        A frame's samples depend on the frames within `reach` of it. `lengths` are those of rows shorter than T.
        """
        style, frames = style.astype(z.dtype), z.shape[1]
        x, mask = self._masked(z, lengths)
        x = self.flow.inverse(x, style, mask)[:, :frames]
        step = -(-frames // -(-frames // WINDOW_FRAMES))
        parts = []
        for first in range(0, frames, step):
            parts.append(self._generated(x, style, lengths, first, min(first + step, frames)))
            if step < frames:
                mx.eval(parts[-1])
        return mx.concatenate(parts, axis=1)

    def _generated(
        self, x: mx.array, style: mx.array, lengths: Sequence[int] | None, first: int, last: int
    ) -> mx.array:
        """The samples of the frames from `first` to `last`, made of those that they depend on."""
        low, high = max(0, first - self.dec.reach), min(x.shape[1], last + self.dec.reach)
        within = lengths and [min(max(n - low, 0), high - low) for n in lengths]
        piece, mask = self._masked(x[:, low:high], within)
        hop = self.config.samples_per_frame
        generate = self.derived() if self._generates_in_numpy else self.dec
        return generate(piece, style, mask)[:, (first - low) * hop : (last - low) * hop].astype(mx.float32)

    def _masked(self, x: mx.array, lengths: Sequence[int] | None) -> tuple[mx.array, mx.array | None]:
        """As `_padded` where there is anything to pad or to mask, else `x` as it is."""
        return self._padded(x, lengths) if self.pads or lengths else (x, None)

    def _padded(self, x: mx.array, lengths: Sequence[int] | None) -> tuple[mx.array, mx.array]:
        """(B, T, …) with zeros up to a length that many have, and what is 1 up to each row's own: (B, T', 1)."""
        time = x.shape[1]
        room = padded_length(time) if self.pads else time
        padding = [(0, 0), (0, room - time), *[(0, 0)] * (x.ndim - 2)]
        ends = mx.array([[n] for n in lengths or [time] * x.shape[0]])
        mask = (mx.arange(room) < ends).astype(self.quantizer.embed.dtype)
        return mx.pad(x, padding), mask[..., None]

    @property
    def reach(self) -> int:
        """Frames of the latent on either side that a frame's samples depend on."""
        return self.flow.reach + self.dec.reach

    def latent_frames(self, tokens: int, speed: float = 1.0) -> int:
        """Frames of the latent for so many tokens."""
        return 2 * tokens if speed == 1 else int(2 * tokens / speed) + 1

    @property
    def latent_width(self) -> int:
        return self.config.inter_channels


def padded_length(length: int) -> int:
    """The next of four lengths an octave, at least 16 apart.

    CUDA plans each convolution for each shape, which takes longer than computing it: padded and masked, sentences
    share a few.
    """
    step = max(16, 1 << max(0, length.bit_length() - 3))
    return -(-length // step) * step
