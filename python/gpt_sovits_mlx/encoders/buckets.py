"""The fixed lengths of the Core ML packages, and the inputs that fill one of them.

The Neural Engine wants shapes that never change, so a package holds one function for each length, and what is
shorter is padded and masked. The packages are made and run with the same code here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import AudioError, TextError

Inputs = dict[str, np.ndarray]
SAMPLE_RATE = 16000
HOP, OVERLAP = 320, 80
"""Samples from one frame of CNHubert to the next, and how many more than that its convolutions look at."""
ROW_FRAMES = 50
"""Frames that are cut into a row of their own: a second of audio in one row would be too wide for the engine."""
FIRST_STRIDE, FIRST_KERNEL = 5, 10
"""Of CNHubert's first convolution, whose outputs its normalisation counts."""
OUT_OF_SIGHT = -1e4
"""Added to the scores of padding: far below any score, and still a float16."""
LOUDEST_GAIN = 128.0


@dataclass(frozen=True)
class TextBucket:
    """A length in tokens, [CLS] and [SEP] included."""

    length: int

    @property
    def function(self) -> str:
        return f"tokens_{self.length}"

    @property
    def frames(self) -> int:
        return self.length


@dataclass(frozen=True)
class AudioBucket:
    """A length in 16 kHz samples, the appended silence included, computed in rows of `ROW_FRAMES` frames."""

    length: int

    @property
    def function(self) -> str:
        return f"samples_{self.length}"

    @property
    def rows(self) -> int:
        return math.ceil(self.length / (HOP * ROW_FRAMES))

    @property
    def frames(self) -> int:
        return self.rows * ROW_FRAMES


TEXT_BUCKETS = tuple(TextBucket(n) for n in (32, 64, 128, 256, 512))
AUDIO_BUCKETS = tuple(AudioBucket(round(seconds * SAMPLE_RATE)) for seconds in (4, 6, 8, 10.6))
Bucket = TypeVar("Bucket", TextBucket, AudioBucket)


def smallest(buckets: Sequence[Bucket], length: int) -> Bucket | None:
    """The smallest bucket that holds `length`, `None` where none does."""
    return next((b for b in sorted(buckets, key=lambda b: b.length) if b.length >= length), None)


def text_bucket(tokens: int, buckets: Sequence[TextBucket] = TEXT_BUCKETS) -> TextBucket:
    """The smallest bucket that holds so many tokens; `CharacterVocabulary.parts` leaves no more than fit.

    Raises:
        TextError: no bucket is long enough.
    """
    bucket = smallest(buckets, tokens)
    if bucket is None:
        longest = max(b.length for b in buckets)
        raise TextError(f"{tokens} tokens are too many for RoBERTa on Core ML, which reads {longest}: split the text")
    return bucket


def audio_bucket(samples: int, buckets: Sequence[AudioBucket] = AUDIO_BUCKETS) -> AudioBucket:
    """The smallest bucket that holds so many samples.

    Raises:
        AudioError: no bucket is long enough, or the recording is too short for a single frame.
    """
    bucket = smallest(buckets, samples)
    if bucket is None or samples < HOP + OVERLAP:
        longest = max(b.length for b in buckets) / SAMPLE_RATE
        raise AudioError(
            f"a recording of {samples / SAMPLE_RATE:.2f} s with the silence behind it is too"
            f" {'long' if bucket is None else 'short'} for CNHubert on Core ML, which hears 0.03 to {longest:.1f} s:"
            " give one of 3 to 10 s"
        )
    return bucket


def text_inputs(embeddings: np.ndarray, padding: np.ndarray, bucket: TextBucket) -> Inputs:
    """What a function of RoBERTa's package takes.

    Args:
        embeddings: (T, width), the sum of the three embeddings before their normalisation.
        padding: (width,), put in the places behind: any embedding that is not constant, since the
            normalisation of a constant row divides by zero in float16.
        bucket: T tokens fit in it.

    Returns:
        embeddings (1, width, 1, S) and key_mask (1, S, 1, 1), float32.
    """
    count, width = embeddings.shape
    filled = np.empty((bucket.length, width), np.float32)
    filled[:count], filled[count:] = embeddings, padding
    return {"embeddings": filled.T[None, :, None], "key_mask": _key_mask(count, bucket.length)}


def audio_inputs(samples: np.ndarray, bucket: AudioBucket) -> tuple[Inputs, int]:
    """What a function of CNHubert's package takes, and how many of its frames are real.

    The samples are doubled as long as their peak stays within 1: the first normalisation removes the gain again,
    given its square, and quiet audio stays clear of the numbers that float16 rounds coarsely or flushes to zero.

    Args:
        samples: (T,) at 16 kHz.
        bucket: T samples fit in it.

    Returns:
        audio (1, 1, rows, row samples), its rows overlapping by 80 samples; power (1, 1, 1, 1), the square of
        the gain; count_scale (1, 1, 1, 1), all outputs of the first convolution ÷ those of real samples;
        count_mask (1, 1, rows, outputs), 1 where they are; frame_mask (1, 1, 1, S); key_mask (1, S, 1, 1).
    """
    count = len(samples)
    frames = (count - HOP - OVERLAP) // HOP + 1
    outputs = (count - FIRST_KERNEL) // FIRST_STRIDE + 1
    peak = float(np.abs(samples).max(initial=0))
    gain = min(2.0 ** -math.ceil(math.log2(peak)), LOUDEST_GAIN) if peak > 0 else 1.0
    row, overlapping = HOP * ROW_FRAMES, HOP * ROW_FRAMES + OVERLAP
    padded = np.zeros(row * bucket.rows + OVERLAP, np.float32)
    padded[:count] = samples * gain
    rows = np.lib.stride_tricks.sliding_window_view(padded, overlapping)[::row]
    all_outputs = row * bucket.rows // FIRST_STRIDE
    inputs = {
        "audio": rows[None, None].copy(),
        "power": np.full((1, 1, 1, 1), gain * gain, np.float32),
        "count_scale": np.full((1, 1, 1, 1), all_outputs / outputs, np.float32),
        "count_mask": _first(outputs, all_outputs).reshape(1, 1, bucket.rows, -1),
        "frame_mask": _first(frames, bucket.frames).reshape(1, 1, 1, -1),
        "key_mask": _key_mask(frames, bucket.frames),
    }
    return inputs, frames


def _first(count: int, length: int) -> np.ndarray:
    return (np.arange(length) < count).astype(np.float32)


def _key_mask(count: int, length: int) -> np.ndarray:
    return ((1 - _first(count, length)) * OUT_OF_SIGHT).reshape(1, length, 1, 1)
