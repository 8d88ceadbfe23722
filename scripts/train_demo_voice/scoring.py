"""Error rates between what was said and what a recogniser hears."""

from __future__ import annotations

import re
from collections.abc import Sequence
from multiprocessing import get_context
from typing import Any

import numpy as np

_decoder: Any = None


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def edit_distance(reference: Sequence[object], heard: Sequence[object]) -> int:
    """Fewest insertions, deletions and substitutions (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]


def hear(pcm: bytes) -> str:
    """pocketsphinx's US English model on 16-bit samples at 16 kHz."""
    global _decoder
    if _decoder is None:
        from pocketsphinx import Decoder

        _decoder = Decoder(samprate=16000, loglevel="FATAL")
    _decoder.start_utt()
    _decoder.process_raw(pcm, full_utt=True)
    _decoder.end_utt()
    found = _decoder.hyp()
    return found.hypstr if found else ""


def word_error_rate(waves: Sequence[np.ndarray], texts: Sequence[str], processes: int = 1) -> tuple[float, list[str]]:
    """Errors over words of the whole set, and what was heard; waves in -1..1 at 16 kHz."""
    pcm = [(np.clip(w, -1, 1) * 32767).astype(np.int16).tobytes() for w in waves]
    if processes > 1:
        with get_context("spawn").Pool(min(processes, len(pcm))) as pool:
            heard = pool.map(hear, pcm, chunksize=max(1, len(pcm) // (4 * processes)))
    else:
        heard = [hear(p) for p in pcm]
    errors = sum(edit_distance(words(t), words(h)) for t, h in zip(texts, heard, strict=True))
    return errors / max(sum(len(words(t)) for t in texts), 1), heard


def median_pitch(audio: np.ndarray, rate: int = 16000) -> float:
    """Median F0 in Hz (62 to 320) of (N,) samples, by autocorrelation over voiced frames; 0 if none is voiced."""
    window = np.hanning(1024)
    found = []
    for start in range(0, len(audio) - 1024, 320):
        frame = audio[start : start + 1024] * window
        power = np.abs(np.fft.rfft(frame, 2048)) ** 2
        r = np.fft.irfft(power)[:300]
        if r[0] < 1e-2:
            continue
        shape = np.fft.irfft(np.abs(np.fft.rfft(window, 2048)) ** 2)[:300]
        r = r / r[0] * shape[0] / shape
        # of two periods and one, equally alike in a steady tone, one: the first lag that comes near the best
        first = 50 + int(np.argmax(r[50:260] >= 0.93 * r[50:260].max()))
        lag = first + int(np.argmax(r[first : first + 12]))
        if r[lag] > 0.55:
            found.append(rate / lag)
    return float(np.median(found)) if found else 0.0
