"""Streaming: audio in chunks while the GPT still decodes.

A chunk takes `FIRST_CHUNK` tokens and half as many as have been said; `SentenceVocoder` says them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np

from .decoding.decoder import DecodeRequest
from .decoding.generation import Generation, decode_steps
from .encoders import CharacterEncoder
from .models.t2s import TextToSemantic
from .request import Request
from .result import AudioChunk, SpokenSentence
from .vocoder import SentenceVocoder
from .voices.enrolment import character_features

FIRST_CHUNK, LONGEST_CHUNK = 16, 128
"""Tokens."""


def stream(request: Request, encoders: Sequence[CharacterEncoder | None]) -> Generator[AudioChunk, None, None]:
    """Speak sentence by sentence; `encoders` holds who reads the Chinese characters of each.

    A chunk takes `FIRST_CHUNK` tokens and half as many as have been said: the more there is to listen to, the longer
    may the next one take.
    """
    rate, silence = request.sample_rate, np.zeros(request.silence, np.float32)
    said = position = 0
    for sentence, encoder in zip(request.sentences, encoders, strict=True):
        gpt = sentence.voice.gpt
        features = character_features(sentence.utterance, encoder, gpt.config.bert_dim)
        vocoder, start = SentenceVocoder(sentence), position
        for generation, last in _growing(gpt, sentence.to_decode(features), said):
            samples, spoken = vocoder(generation.tokens, last), None
            if last:
                spoken = SpokenSentence.of(sentence, start, position + len(samples), generation, rate)
                samples = np.concatenate([samples, silence])
                said += len(generation.tokens)
            yield AudioChunk(samples, rate, position / rate, request.seed, spoken)
            position += len(samples)


def _growing(model: TextToSemantic, request: DecodeRequest, said: int) -> Iterator[tuple[Generation, bool]]:
    """Decode a sentence, `said` tokens behind others: what it has at the end of each chunk, and whether it is all."""
    generation = Generation()

    def due() -> int:
        count = len(generation.tokens)
        return count + min(FIRST_CHUNK + (said + count) // 2, LONGEST_CHUNK)

    target = due()
    for ((_, token),) in decode_steps(model, [request]):
        generation.take(token)
        if token is not None and len(generation.tokens) == target:
            yield generation, False
            target = due()
    yield generation, True
