"""Streaming: audio in chunks while the GPT still decodes.

A chunk's latent is computed from all tokens so far, its samples from the frames that they depend on. The last few
frames are held back until the tokens behind them are known; where a chunk begins, it is faded over from what the one
before said there. Frames keep their place and their noise, so both say it in phase.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence

import mlx.core as mx
import numpy as np

from .encoders import CharacterEncoder
from .generation import Generation, Request, decode_steps
from .models.t2s import TextToSemantic
from .result import AudioChunk
from .sampling import Sampling
from .script import Script
from .voice import character_features

FIRST = 16
"""Tokens of the first chunk."""
LONGEST = 128
"""Tokens of the longest chunk."""
HELD = 8
"""Frames held back: with fewer the sound near a joint differs more from the whole decode's, with more hardly less."""
OVERLAP = 1
"""Frames over which a chunk fades into the next."""


class SentenceVocoder:
    """Vocodes a sentence of a script, whole or as its tokens arrive."""

    def __init__(self, script: Script, index: int):
        speaker = script.speakers[index]
        self.sovits, self.style = speaker.sovits, speaker.conditioning.style
        self.phones = mx.array([script.utterances[index].phone_ids])
        self.speed, self.noise = script.speed, script.noise(index)
        self.hop = self.sovits.config.samples_per_frame
        # a slowed token spans more frames
        self.held = math.ceil(HELD / min(self.speed, 1))
        self.done = 0
        self.tail = np.zeros(0, np.float32)

    def __call__(self, tokens: Sequence[int], last: bool) -> np.ndarray:
        """All tokens so far, and whether they are all there will be → the next samples, float32.

        In sum as many as `SoVITS.decode` gives for all tokens, and those very samples if there is but one call.
        """
        if last and self.done == 0:
            return np.array(self.whole(tokens))
        z = self._latent(tokens, steady=True)
        frames, first = z.shape[1], max(0, self.done - self.sovits.reach)
        samples = np.array(self.sovits.vocode(z[:, first:], self.style)[0, (self.done - first) * self.hop :])
        rise = np.linspace(0, 1, len(self.tail) + 2, dtype=np.float32)[1:-1]
        samples[: len(rise)] = self.tail + rise * (samples[: len(rise)] - self.tail)
        end = frames if last else max(self.done, frames - self.held)
        count = (end - self.done) * self.hop
        self.done, self.tail = end, samples[count : count + OVERLAP * self.hop]
        return samples[:count]

    def whole(self, tokens: Sequence[int]) -> mx.array:
        """All samples of the sentence, float32, yet to be computed."""
        return self.sovits.vocode(self._latent(tokens, steady=False), self.style)[0]

    def _latent(self, tokens: Sequence[int], steady: bool) -> mx.array:
        # a sentence that ended at once still gets a frame to vocode, as in the reference
        tokens = tokens or [0]
        noise = self.noise.latent(self.sovits.latent_frames(len(tokens), self.speed), self.sovits.latent_width)
        return self.sovits.latent(mx.array([tokens]), self.phones, self.style, self.speed, noise, steady)


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
