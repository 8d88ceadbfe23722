"""The whole vocoder of GPT-SoVITS v1 and v2 (`SynthesizerTrn` of the reference), inference only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ...choices import choices
from ...errors import WeightsError
from ...layers.fusion import padded_length
from ...layers.weights import Weights, open_model
from .flow import Flow
from .generator import Generator
from .generator_host import HostGenerator
from .quantizer import SemanticQuantizer
from .style_encoder import StyleEncoder
from .text_encoder import TextEncoder

NOISE_SCALE = 0.5
"""Deviation of the latent's noise in the reference's decoder."""
WINDOW = 480
"""Frames whose samples are made at once, 9.6 s: a longer sentence takes no more memory."""


@dataclass(frozen=True)
class SoVITSConfig:
    """What the tensors' shapes do not tell, under the names of the official checkpoint's config."""

    version: str
    symbols: str
    sampling_rate: int
    filter_length: int
    hop_length: int
    win_length: int
    n_heads: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]

    @classmethod
    def from_dict(cls, config: dict) -> SoVITSConfig:
        """Raises `WeightsError` for a missing key or a version that is not supported."""
        try:
            data, model = config["data"], config["model"]
            if config["version"] not in ("v1", "v2"):
                raise WeightsError(f"SoVITS {config['version']} is not supported: v1 and v2 are")
            if str(model.get("resblock", "1")) != "1":
                raise WeightsError(f"SoVITS residual block {model['resblock']} is not supported: 1 is")
            return cls(
                version=config["version"],
                symbols=config["symbols"],
                sampling_rate=data["sampling_rate"],
                filter_length=data["filter_length"],
                hop_length=data["hop_length"],
                win_length=data["win_length"],
                n_heads=model["n_heads"],
                upsample_rates=tuple(model["upsample_rates"]),
                upsample_kernel_sizes=tuple(model["upsample_kernel_sizes"]),
                resblock_dilation_sizes=tuple(tuple(d) for d in model["resblock_dilation_sizes"]),
            )
        except KeyError as missing:
            raise WeightsError(f"sovits_config.json lacks {missing}: convert the checkpoint again") from None

    @property
    def samples_per_frame(self) -> int:
        """A frame of the latent lasts 20 ms; a semantic token, at speed 1, two of them."""
        return math.prod(self.upsample_rates)


class SoVITS:
    """Weights and arithmetic; nothing of a request is kept."""

    def __init__(self, config: SoVITSConfig, weights: Weights):
        self.config = config
        root = weights.scope()
        self.quantizer = SemanticQuantizer(root)
        self.style_encoder = StyleEncoder(root / "ref_enc")
        self.text_encoder = TextEncoder(root / "enc_p", config.n_heads)
        self.flow = Flow(root / "flow")
        self.generator = Generator(
            root / "dec", config.upsample_rates, config.upsample_kernel_sizes, config.resblock_dilation_sizes
        )
        weights.finish()
        self._to_audio = HostGenerator(self.generator) if choices().host else self.generator
        self.pads = choices().padded

    @classmethod
    def load(cls, path: Path, dtype: mx.Dtype | None = None) -> SoVITS:
        """The model of a converted file; see `open_model`."""
        config, weights = open_model(path, dtype)
        return cls(SoVITSConfig.from_dict(config), weights)

    def tokens(self, features: mx.array) -> mx.array:
        """HuBERT features (1, T, ssl) at 50 Hz → semantic tokens (1, T // 2) at 25 Hz."""
        return self.quantizer.encode(features)

    def style(self, spectrograms: Sequence[mx.array]) -> mx.array:
        """Magnitude spectrograms (1, T, bins) of one or more references → their mean style (1, 1, gin)."""
        styles = [self.style_encoder(s) for s in spectrograms]
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
        mean, log_deviation = self.text_encoder(features, phones, style, speed, steady, mask, phone_mask)
        return mean + noise.astype(mean.dtype) * mx.exp(log_deviation) * NOISE_SCALE

    def vocode(self, z: mx.array, style: mx.array, lengths: Sequence[int] | None = None) -> mx.array:
        """The other side of `decode`: latent (B, T, inter) → audio (B, T · hop), float32.

        A frame's samples depend on the frames within `reach` of it. `lengths` are those of rows shorter than T.
        """
        style, frames = style.astype(z.dtype), z.shape[1]
        x, mask = self._masked(z, lengths)
        x = self.flow.inverse(x, style, mask)[:, :frames]
        step = -(-frames // -(-frames // WINDOW))
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
        low, high = max(0, first - self.generator.reach), min(x.shape[1], last + self.generator.reach)
        within = lengths and [min(max(n - low, 0), high - low) for n in lengths]
        piece, mask = self._masked(x[:, low:high], within)
        hop = self.config.samples_per_frame
        return self._to_audio(piece, style, mask)[:, (first - low) * hop : (last - low) * hop].astype(mx.float32)

    def _masked(self, x: mx.array, lengths: Sequence[int] | None) -> tuple[mx.array, mx.array | None]:
        """As `_padded` where there is anything to pad or to mask, else `x` as it is."""
        return self._padded(x, lengths) if self.pads or lengths else (x, None)

    def _padded(self, x: mx.array, lengths: Sequence[int] | None) -> tuple[mx.array, mx.array]:
        """(B, T, …) with zeros up to a length that many have, and what is 1 up to each row's own: (B, T', 1)."""
        time = x.shape[1]
        room = padded_length(time) if self.pads else time
        padding = [(0, 0), (0, room - time), *[(0, 0)] * (x.ndim - 2)]
        ends = mx.array([[n] for n in lengths or [time] * x.shape[0]])
        mask = (mx.arange(room) < ends).astype(self.quantizer.codebook.dtype)
        return mx.pad(x, padding), mask[..., None]

    @property
    def reach(self) -> int:
        """Frames of the latent on either side that a frame's samples depend on."""
        return self.flow.reach + self.generator.reach

    def latent_frames(self, tokens: int, speed: float = 1.0) -> int:
        """Frames of the latent for so many tokens."""
        return 2 * tokens if speed == 1 else int(2 * tokens / speed) + 1

    @property
    def latent_width(self) -> int:
        return self.text_encoder.out.out_features // 2
