"""A request, its settings, and its sentences: the unit that is decoded and vocoded, in whatever company."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from .decoding.decoder import DecodeRequest
from .decoding.sampling import NoiseStream
from .settings import Sampling, Settings
from .text import Utterance
from .voices.voice import Voice


@dataclass(frozen=True)
class Sentence:
    """A sentence to be spoken.

    Attributes:
        utterance: as it is read.
        voice: who speaks it.
        sampling: how its tokens are drawn.
        speed: above 1 is faster.
        noise: all its variates.
    """

    utterance: Utterance
    voice: Voice
    sampling: Sampling
    speed: float
    noise: NoiseStream

    def to_decode(self, features: mx.array | None) -> DecodeRequest:
        """What the GPT reads: the prompt's phones and features, then its own.

        Args:
            features: BERT's of its phones (n, bert_dim); `None` for zeros.
        """
        phones, prompt = self.utterance.phone_ids, self.voice.conditioning
        bert = None
        if features is not None or prompt.bert is not None:
            width = self.voice.gpt.config.bert_dim
            parts = [
                mx.zeros((count, width)) if part is None else part
                for part, count in ((prompt.bert, len(prompt.phones)), (features, len(phones)))
            ]
            bert = mx.concatenate(parts)
        return DecodeRequest([*prompt.phones, *phones], prompt.tokens, self.noise, self.sampling, bert)


@dataclass(frozen=True)
class Request:
    """A text to be spoken, split and read.

    Attributes:
        voice: the one that was asked for; some sentences may be a companion's.
        sentences: in order.
        pause: seconds of silence behind each sentence.
        seed: of all randomness.
    """

    voice: Voice
    sentences: Sequence[Sentence]
    pause: float
    seed: int

    @classmethod
    def of(cls, voice: Voice, text: str, settings: Settings) -> Request:
        """Split a text and decide who speaks what.

        Raises:
            TextError: the text cannot be spoken.
            VoiceError: the voice recommends settings that there are not.
            GPTSoVITSError: a setting is out of its range.
        """
        source = str(voice.folder.path / "voice.json")
        sampling = Sampling.recommended(voice.folder.defaults, settings.sampling, source)
        seed = secrets.randbits(32) if settings.seed is None else settings.seed
        utterances = voice.frontend.utterances(text, settings.language, settings.split_method)
        sentences = [
            Sentence(utterance, voice.speaker(utterance), sampling, settings.speed, NoiseStream(seed, number))
            for number, utterance in enumerate(utterances)
        ]
        return cls(voice, sentences, settings.pause, seed)

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.voice.sample_rate

    @property
    def silence(self) -> int:
        """Samples behind each sentence."""
        return int(self.sample_rate * self.pause)
