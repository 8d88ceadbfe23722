"""From semantic tokens to samples: sentences, of whatever requests, alone, together or as their tokens arrive."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import mlx.core as mx
import numpy as np

from .decoding.decoder import padded_ids
from .request import Sentence

HELD_FRAMES = 8
"""Held back: with fewer the sound near a joint differs more from the whole decode's, with more hardly less."""
OVERLAP_FRAMES = 1
"""Over which a chunk fades into the next."""
GROUP_SIZES = (8, 16)
"""Sentences that CUDA vocodes together, four times as fast as one by one: few numbers, so that they share its plans."""
SMALLEST_GROUP, LONGEST_OF_GROUP = 4, 160
"""Fewer sentences, or longer ones (in tokens), gain nothing from company."""
NOTHING = [0]
"""What a sentence that ended at once gets vocoded, as in the reference."""


class SentenceVocoder:
    """Vocodes a sentence, whole or as its tokens arrive.

    A chunk's latent is computed from all tokens so far, its samples from the frames that they depend on. The last few
    frames are held back until the tokens behind them are known; where a chunk begins, it is faded over from what the
    one before said there. Frames keep their place and their noise, so both say it in phase.
    """

    def __init__(self, sentence: Sentence):
        self.sovits, self.style = sentence.voice.sovits, sentence.voice.conditioning.style
        self.phones = sentence.utterance.phone_ids
        self.speed, self.noise = sentence.speed, sentence.noise
        self.hop = self.sovits.config.samples_per_frame
        # a slowed token spans more frames
        self.held = math.ceil(HELD_FRAMES / min(self.speed, 1))
        self.done = 0
        self.tail = np.zeros(0, np.float32)

    def __call__(self, tokens: Sequence[int], last: bool) -> np.ndarray:
        """All tokens so far, and whether they are all there will be → the next samples, float32.

        In sum as many as `SoVITS.decode` gives for all tokens, and those very samples if there is but one call.
        """
        if last and self.done == 0:
            return _together([self], [tokens])[0]
        z = self._latent(tokens, steady=True)
        frames, first = z.shape[1], max(0, self.done - self.sovits.reach)
        samples = np.array(self.sovits.vocode(z[:, first:], self.style)[0, (self.done - first) * self.hop :])
        rise = np.linspace(0, 1, len(self.tail) + 2, dtype=np.float32)[1:-1]
        samples[: len(rise)] = self.tail + rise * (samples[: len(rise)] - self.tail)
        end = frames if last else max(self.done, frames - self.held)
        count = (end - self.done) * self.hop
        self.done, self.tail = end, samples[count : count + OVERLAP_FRAMES * self.hop]
        return samples[:count]

    def draw(self, count: int) -> mx.array:
        """The noise of a latent for so many tokens, (1, frames, inter)."""
        return self.noise.latent(self.sovits.latent_frames(count, self.speed), self.sovits.latent_width)

    def _latent(self, tokens: Sequence[int], steady: bool) -> mx.array:
        ids = mx.array([tokens or NOTHING])
        return self.sovits.latent(ids, mx.array([self.phones]), self.style, self.speed, self.draw(ids.shape[1]), steady)


def vocode_sentences(
    sentences: Sequence[Sentence], tokens: Sequence[Sequence[int]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Vocode sentences, and yield each with its number: in order, or as it suits the device.

    Those of voices that share a vocoder's weights are vocoded together where that is faster, whoever asked for them.
    """
    vocoders = [SentenceVocoder(sentence) for sentence in sentences]
    for group in _groups(vocoders, tokens):
        yield from zip(group, _together([vocoders[i] for i in group], [tokens[i] for i in group]), strict=True)


def _groups(vocoders: Sequence[SentenceVocoder], tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Numbers of sentences to vocode together: those of one vocoder, of like length."""
    left = range(len(tokens))
    short = [
        i for i in left if vocoders[i].sovits.pads and vocoders[i].speed == 1 and len(tokens[i]) <= LONGEST_OF_GROUP
    ]
    for sovits in {id(vocoders[i].sovits) for i in short}:
        own = sorted((i for i in short if id(vocoders[i].sovits) == sovits), key=lambda i: len(tokens[i]))
        groups = [own[at : at + GROUP_SIZES[-1]] for at in range(0, len(own), GROUP_SIZES[-1])]
        for group in groups:
            if len(group) >= SMALLEST_GROUP:
                yield group
                left = [i for i in left if i not in group]
    yield from ([i] for i in left)


def _together(vocoders: Sequence[SentenceVocoder], tokens: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The samples of sentences of one vocoder, float32."""
    first = vocoders[0]
    given = [list(row or NOTHING) for row in tokens]
    phones = [list(v.phones) for v in vocoders]
    noises = [v.draw(len(row)) for v, row in zip(vocoders, given, strict=True)]
    if len(given) == 1:
        audio = first.sovits.decode(mx.array(given), mx.array(phones), first.style, first.speed, noises[0])
        return [np.array(audio[0])]
    spare = next(n for n in GROUP_SIZES if n >= len(given)) - len(given)
    given += given[-1:] * spare
    phones += phones[-1:] * spare
    noises += noises[-1:] * spare
    (ids, lengths), (phone_ids, widths) = padded_ids(given), padded_ids(phones)
    frames = [noise.shape[1] for noise in noises]
    noise = mx.concatenate([mx.pad(n, [(0, 0), (0, max(frames) - n.shape[1]), (0, 0)]) for n in noises])
    style = mx.concatenate([v.style for v in vocoders] + [first.style] * spare)
    audio = first.sovits.decode(ids, phone_ids, style, 1.0, noise, lengths, widths)
    made = np.array(audio)
    return [made[row, : frames[row] * first.hop] for row in range(len(vocoders))]
