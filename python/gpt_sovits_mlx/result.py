"""What comes out of the engine: speech, whole or in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import audio
from .decoding.generation import Generation
from .request import Sentence


@dataclass(frozen=True)
class SpokenSentence:
    """A sentence of a result.

    Attributes:
        text: as it was split from the text.
        start, end: seconds in the result, the pause behind it left out.
        tokens: how many semantic tokens it took (25 a second at speed 1).
        ended: false where it reached `max_tokens` and was cut off.
    """

    text: str
    start: float
    end: float
    tokens: int
    ended: bool

    @classmethod
    def of(cls, sentence: Sentence, first: int, last: int, generation: Generation, rate: int) -> SpokenSentence:
        """A sentence as it was spoken in the samples from `first` to `last`, at `rate` Hz."""
        tokens, ended = len(generation.tokens), generation.ended
        return cls(sentence.utterance.text, first / rate, last / rate, tokens, ended)


@dataclass(frozen=True)
class SynthesisResult:
    """Speech.

    Attributes:
        audio: (samples,) float32 within ±1.
        sample_rate: in Hz.
        duration: in seconds.
        timing: milliseconds by stage: text_processing, bert_encoding, gpt_generation, vocoder, total.
        sentences: where each sentence lies in the audio.
        seed: says the same again with the same settings.
    """

    audio: np.ndarray
    sample_rate: int
    duration: float
    timing: dict[str, float]
    sentences: tuple[SpokenSentence, ...]
    seed: int

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of audio."""
        return self.timing["total"] / 1000 / self.duration if self.duration else 0.0

    def save(self, path: str | Path) -> None:
        """Write the audio in the format that the name's ending says (.wav, .flac, .ogg, …).

        Raises:
            AudioError: the format is unknown or the file cannot be written.
        """
        audio.write(path, self.audio, self.sample_rate)


@dataclass(frozen=True)
class AudioChunk:
    """A stretch of streamed speech; the chunks laid end to end are the whole of it.

    Attributes:
        audio: (samples,) float32 within ±1.
        sample_rate: in Hz, the same for all chunks.
        start: seconds of audio before this chunk.
        seed: says the same again with the same settings.
        sentence: the sentence that ends with this chunk (its pause belongs to the chunk), else `None`.
    """

    audio: np.ndarray
    sample_rate: int
    start: float
    seed: int
    sentence: SpokenSentence | None = None
