"""A voice that is ready to speak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import mlx.core as mx

from ..models.sovits import SoVITS
from ..models.t2s import TextToSemantic
from ..text import TextFrontend, Utterance
from .format import Reference, VoiceFolder


@dataclass(frozen=True)
class Conditioning:
    """What a reference yields.

    Attributes:
        tokens: semantic tokens of the prompt, empty without a transcript.
        phones: ids of the transcript's phones.
        bert: (len(phones), bert_width) features, or `None` where they are all zero.
        style: (1, 1, gin), float32.
    """

    tokens: tuple[int, ...]
    phones: tuple[int, ...]
    bert: mx.array | None
    style: mx.array


@dataclass(frozen=True)
class Voice:
    """A voice ready to speak. It is immutable: threads may share it."""

    folder: VoiceFolder
    reference: Reference
    gpt: TextToSemantic
    sovits: SoVITS
    frontend: TextFrontend
    conditioning: Conditioning
    companions: Mapping[str, Voice] = field(default_factory=dict)

    def speaker(self, utterance: Utterance) -> Voice:
        """Who speaks a sentence: the companion for the language of most of its phones, else the voice itself."""
        counts: dict[str, int] = {}
        for segment in utterance.segments:
            counts[segment.language] = counts.get(segment.language, 0) + len(segment.phones)
        return self.companions.get(max(counts, key=lambda language: counts[language]), self) if counts else self

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def sample_rate(self) -> int:
        return self.sovits.config.sampling_rate
