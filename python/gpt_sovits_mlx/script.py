"""What is to be said, by whom and how: a text and its settings, checked and ready to decode."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from .errors import GPTSoVITSError, VoiceError
from .generation import Generation, Request
from .result import Sentence
from .sampling import NoiseStream, Sampling
from .text import Utterance
from .voices.voice import Voice


@dataclass(frozen=True)
class Script:
    """The sentences of a text with who speaks each of them.

    Attributes:
        voice: the one that was asked for.
        utterances, speakers: the sentences; the voice, or a companion, that speaks each.
        sampling: how the tokens are drawn.
        speed: above 1 is faster.
        pause: seconds of silence behind each sentence.
        seed: of all randomness.
    """

    voice: Voice
    utterances: Sequence[Utterance]
    speakers: Sequence[Voice]
    sampling: Sampling
    speed: float
    pause: float
    seed: int

    @classmethod
    def of(
        cls,
        voice: Voice,
        text: str,
        language: str,
        split_method: str,
        speed: float,
        pause: float,
        seed: int | None,
        sampling: Mapping[str, float | None],
    ) -> Script:
        """Split a text; `sampling` holds settings of `Sampling`, `None` for what the voice recommends.

        Raises:
            TextError: the text cannot be spoken.
            VoiceError: the voice recommends settings that there are not.
            GPTSoVITSError: a setting is out of its range.
        """
        if not 0.3 <= speed <= 3:
            raise GPTSoVITSError(f"speed is {speed}: it must be from 0.3 to 3")
        if not 0 <= pause <= 60:
            raise GPTSoVITSError(f"pause is {pause} s: it must be from 0 to 60")
        drawn = replace(_recommended(voice), **{k: v for k, v in sampling.items() if v is not None})
        utterances = voice.frontend.utterances(text, language, split_method)
        speakers = [voice.speaker(u) for u in utterances]
        return cls(voice, utterances, speakers, drawn, speed, pause, secrets.randbits(32) if seed is None else seed)

    def noise(self, index: int) -> NoiseStream:
        """The variates of a sentence."""
        return NoiseStream(self.seed, index)

    def request(self, index: int, features: mx.array | None) -> Request:
        """What to decode for a sentence: the prompt's phones and features, then its own."""
        voice, phones = self.speakers[index], self.utterances[index].phone_ids
        prompt = voice.conditioning
        bert = None
        if features is not None or prompt.bert is not None:
            width = voice.gpt.bert_width
            parts = [
                mx.zeros((count, width)) if part is None else part
                for part, count in ((prompt.bert, len(prompt.phones)), (features, len(phones)))
            ]
            bert = mx.concatenate(parts)
        return Request([*prompt.phones, *phones], prompt.tokens, self.noise(index), bert)

    def silence(self) -> np.ndarray:
        """The samples behind each sentence."""
        return np.zeros(int(self.voice.sample_rate * self.pause), np.float32)

    def sentence(self, index: int, first: int, samples: int, generation: Generation) -> Sentence:
        """A sentence as it was spoken in so many samples from the sample `first` on."""
        rate = self.voice.sample_rate
        text = self.utterances[index].text
        return Sentence(text, first / rate, (first + samples) / rate, len(generation.tokens), generation.ended)


def _recommended(voice: Voice) -> Sampling:
    """What the voice recommends, else the reference's defaults."""
    known = Sampling.__dataclass_fields__
    unknown = set(voice.folder.defaults) - set(known)
    if unknown:
        raise VoiceError(f"{voice.folder.path / 'voice.json'}: unknown defaults {', '.join(sorted(unknown))}")
    return Sampling(**voice.folder.defaults)
