"""Enrolment: a reference recording → what a voice is conditioned on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np

from .. import audio
from ..encoders import CharacterEncoder, SpeechEncoder
from ..errors import AudioError
from ..models.sovits import SoVITS
from ..text import Utterance
from .format import Reference
from .voice import Conditioning

PAUSES = str.maketrans("￥^", ",,")
"""The signs for longer pauses: RoBERTa reads commas in their place, as in the reference."""
APPENDED_SILENCE = 9600
"""Zeros behind the reference before CNHubert hears it: 0.3 s of 32 kHz samples in the reference, so 0.6 s here."""


def enrol(
    reference: Reference,
    transcript: Utterance | None,
    sovits: SoVITS,
    bert_dim: int,
    speech_encoder: Callable[[], SpeechEncoder],
    character_encoder: Callable[[Utterance], CharacterEncoder | None],
    heard: Conditioning | None = None,
) -> Conditioning:
    """Compute what a reference yields.

    Args:
        reference: the recordings.
        transcript: how its text is read; `None` where it has none.
        sovits: the model whose tokens and style are wanted.
        bert_dim: of the GPT's features.
        speech_encoder, character_encoder: called only where one is needed.
        heard: what the same recordings yielded with the same text read otherwise; only the text is read again.

    Raises:
        AudioError: a recording cannot be used.
        DependencyError, VoiceError: an encoder cannot be used.
    """
    style = heard.style if heard else style_of(sovits, reference)
    if transcript is None:
        return Conditioning((), (), None, style)
    tokens = heard.tokens if heard else prompt_tokens(sovits, speech_encoder(), reference)
    bert = character_features(transcript, character_encoder(transcript), bert_dim)
    return Conditioning(tokens, tuple(transcript.phone_ids), bert, style)


def prompt_tokens(sovits: SoVITS, encoder: SpeechEncoder, reference: Reference) -> tuple[int, ...]:
    """Semantic tokens of a reference, the silence behind it included.

    Raises:
        AudioError: it cannot be read, or is shorter than 3 s or longer than 10 s.
    """
    samples, rate = read_reference(reference.audio)
    heard = audio.resample_for_encoder(samples, rate)
    features = encoder(np.concatenate([heard, np.zeros(APPENDED_SILENCE, np.float32)]))
    return tuple(np.array(sovits.tokens(features))[0].tolist())


def style_of(sovits: SoVITS, reference: Reference) -> mx.array:
    """Mean style (1, 1, gin) of a reference's recordings.

    Raises:
        AudioError: one cannot be read, or the main one is shorter than 3 s or longer than 10 s.
    """
    config = sovits.config
    spectrograms = []
    for path in reference.files():
        samples, rate = read_reference(path) if path == reference.audio else audio.read(path)
        samples = audio.limit(audio.resample_sinc(samples, rate, config.sampling_rate))
        spectrograms.append(audio.spectrogram(mx.array(samples), config.filter_length, config.hop_length))
    style = sovits.style(spectrograms).astype(mx.float32)
    mx.eval(style)
    return style


def read_reference(path: Path) -> tuple[np.ndarray, int]:
    """The main recording of a reference, (samples,) float32, and its sample rate.

    Raises:
        AudioError: it cannot be read, or is shorter than 3 s or longer than 10 s.
    """
    samples, rate = audio.read(path)
    check_length(path, len(samples) / rate)
    return samples, rate


def check_length(path: Path, seconds: float) -> None:
    """Raises `AudioError` for the main recording of a reference that is shorter than 3 s or longer than 10 s."""
    least, most = audio.REFERENCE_SECONDS
    if not least <= seconds <= most:
        raise AudioError(f"{path} is {seconds:.2f} s long: a reference must be {least:.0f} to {most:.0f} s")


def character_features(utterance: Utterance, encoder: CharacterEncoder | None, width: int) -> mx.array | None:
    """BERT features of each phone (n, width): a Chinese character's for all its phones, zeros elsewhere.

    `None` where all would be zero: no Chinese in it, or `encoder` is `None` for a voice trained without.
    """
    if encoder is None or not any(segment.language == "zh" for segment in utterance.segments):
        return None
    parts = []
    for segment in utterance.segments:
        if segment.language == "zh" and segment.word2ph:
            rows = np.repeat(np.arange(len(segment.word2ph)), segment.word2ph)
            parts.append(encoder(segment.norm_text.translate(PAUSES))[mx.array(rows)].astype(mx.float32))
        else:
            parts.append(mx.zeros((len(segment.phones), width)))
    features = mx.concatenate(parts)
    mx.eval(features)
    return features
