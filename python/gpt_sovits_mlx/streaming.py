"""Streaming: audio in chunks while the GPT still decodes.

A chunk takes `FIRST` tokens and half as many as have been said; `SentenceVocoder` says them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np

from .encoders import CharacterEncoder
from .generation import Generation, Request, decode_steps
from .models.t2s import TextToSemantic
from .result import AudioChunk
from .sampling import Sampling
from .script import Script
from .vocoder import SentenceVocoder
from .voices.enrolment import character_features

FIRST = 16
"""Tokens of the first chunk."""
LONGEST = 128
"""Tokens of the longest chunk."""


def stream(script: Script, encoders: Sequence[CharacterEncoder | None]) -> Generator[AudioChunk, None, None]:
    """Speak sentence by sentence; `encoders` holds who reads the Chinese characters of each.

    A chunk takes `FIRST` tokens and half as many as have been said: the more there is to listen to, the longer may the
    next one take.
    """
    rate, silence = script.voice.sample_rate, script.silence()
    said = position = 0
    for index, (speaker, utterance, encoder) in enumerate(
        zip(script.speakers, script.utterances, encoders, strict=True)
    ):
        features = character_features(utterance, encoder, speaker.gpt.bert_width)
        vocoder, start = SentenceVocoder(script, index), position
        for generation, last in _growing(speaker.gpt, script.request(index, features), script.sampling, said):
            samples, sentence = vocoder(generation.tokens, last), None
            if last:
                sentence = script.sentence(index, start, position + len(samples) - start, generation)
                samples = np.concatenate([samples, silence])
                said += len(generation.tokens)
            yield AudioChunk(samples, rate, position / rate, script.seed, sentence)
            position += len(samples)


def _growing(
    model: TextToSemantic, request: Request, sampling: Sampling, said: int
) -> Iterator[tuple[Generation, bool]]:
    """Decode a sentence, `said` tokens behind others: what it has at the end of each chunk, and whether it is all."""
    generation = Generation()

    def due() -> int:
        count = len(generation.tokens)
        return count + min(FIRST + (said + count) // 2, LONGEST)

    target = due()
    for ((_, token),) in decode_steps(model, [request], sampling):
        generation.take(token)
        if token is not None and len(generation.tokens) == target:
            yield generation, False
            target = due()
    yield generation, True
