"""What the engine asks of an encoder, whatever computes it."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx
import numpy as np


class SpeechEncoder(Protocol):
    """CNHubert: a reference recording → features that the quantizer turns into semantic tokens."""

    @property
    def sha256(self) -> str:
        """Of the weights: a voice names by it the encoder that its tokens were made with."""
        ...

    def __call__(self, samples: np.ndarray) -> mx.array:
        """(samples,) at 16 kHz → (1, T, width) at 50 Hz."""
        ...


class CharacterEncoder(Protocol):
    """RoBERTa: Chinese text → features for the GPT."""

    @property
    def sha256(self) -> str: ...

    def __call__(self, norm_text: str) -> mx.array:
        """One row for each character of a text of any length: (len(norm_text), width)."""
        ...
