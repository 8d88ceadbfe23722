"""Recordings in and out: reading, resampling, the reference spectrogram, writing."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np

from .errors import AudioError
from .files import written_whole

ENCODER_RATE = 16000
"""Sample rate that CNHubert hears."""
REFERENCE_SECONDS = (3.0, 10.0)
"""How long a reference may be: the models were trained to continue prompts of such lengths."""


def read(path: str | Path) -> tuple[np.ndarray, int]:
    """Read a recording as (samples,) float32, channels averaged, and its sample rate.

    Raises:
        AudioError: see `read_channels`.
    """
    frames, rate, _ = read_channels(path)
    return frames.mean(axis=1, dtype=np.float32), rate


def read_channels(path: str | Path) -> tuple[np.ndarray, int, str]:
    """Read a recording as (frames, channels) float32, its sample rate in Hz, and libsndfile's name of its encoding.

    Raises:
        AudioError: the file is missing, empty, damaged or in a format that libsndfile does not read.
    """
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise AudioError(f"no recording at {path}")
    try:
        with soundfile.SoundFile(str(path)) as file:
            frames, rate, subtype = file.read(dtype="float32", always_2d=True), file.samplerate, file.subtype
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise AudioError(f"{path} is not a recording that can be read ({reason}): convert it to WAV") from None
    if not len(frames):
        raise AudioError(f"{path} holds no samples")
    if not np.isfinite(frames).all():
        raise AudioError(f"{path} is damaged, it holds what is no number: use another recording")
    return frames, rate, subtype


def write(path: str | Path, samples: np.ndarray, rate: int, subtype: str | None = "PCM_16") -> None:
    """Write (samples,) float within ±1 in the format that the name's ending says; a WAV holds 16 bits.

    Raises:
        AudioError: the format is unknown or the folder cannot be written.
    """
    import soundfile

    path = Path(path)
    kind = path.suffix[1:].upper() or "WAV"
    if kind not in soundfile.available_formats():
        raise AudioError(
            f"cannot write {path}: {path.suffix or 'no ending'} is no known format; use .wav, .flac or .ogg"
        )
    fitting = subtype if subtype and soundfile.check_format(kind, subtype) else None
    try:
        with written_whole(path) as temporary:
            soundfile.write(str(temporary), np.clip(samples, -1, 1), rate, format=kind, subtype=fitting)
    except (OSError, soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(f"cannot write {path}: {error}") from None


def pcm16(samples: np.ndarray) -> bytes:
    """(samples,) float within ±1 as 16-bit little-endian integers."""
    return (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()


def wave_header(rate: int) -> bytes:
    """The head of a mono 16-bit WAV of unknown length, for `pcm16` to follow in a stream."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + form + struct.pack("<4sI", b"data", unknown)


def resample_for_encoder(samples: np.ndarray, rate: int) -> np.ndarray:
    """Resample to 16 kHz as librosa.load does (soxr, high quality)."""
    if rate == ENCODER_RATE:
        return samples
    import soxr

    out = soxr.resample(samples, rate, ENCODER_RATE, quality="HQ")
    length = math.ceil(len(samples) * ENCODER_RATE / rate)
    return np.pad(out[:length], (0, max(0, length - len(out)))).astype(np.float32)


def resample_sinc(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Resample with a Hann-windowed sinc of width 6 and roll-off 0.99.

    The style vector of a reference depends on it: torchaudio's default resampler, which the reference uses,
    is this one (Smith, "Digital Audio Resampling"), and soxr's result differs from it.
    """
    if rate == to:
        return samples
    common = math.gcd(rate, to)
    old, new = rate // common, to // common
    lobes = 6
    cutoff = min(old, new) * 0.99
    width = math.ceil(lobes * old / cutoff)
    time = (np.arange(-width, width + old) / old)[None] - (np.arange(new) / new)[:, None]
    time = np.clip(time * cutoff, -lobes, lobes)
    window = np.cos(time * np.pi / lobes / 2) ** 2
    kernels = (np.sinc(time) * window * (cutoff / old)).astype(np.float32)
    padded = np.pad(samples.astype(np.float32), (width, width + old))
    frames = np.lib.stride_tricks.sliding_window_view(padded, kernels.shape[1])[::old]
    length = math.ceil(new * len(samples) / old)
    return np.ascontiguousarray((frames @ kernels.T).reshape(-1)[:length])


def limit(samples: np.ndarray) -> np.ndarray:
    """Divide a recording that exceeds ±1 by its peak (by 2 at most), as the reference does before the spectrogram."""
    peak = float(np.abs(samples).max(initial=0))
    return samples / min(2.0, peak) if peak > 1 else samples


def spectrogram(samples: mx.array, n_fft: int, hop: int) -> mx.array:
    """Magnitude spectrogram (1, frames, n_fft/2 + 1) of (samples,): Hann window, reflected edges, not centred.

    Raises:
        AudioError: the recording is shorter than the reflected edge.
    """
    edge = (n_fft - hop) // 2
    if samples.shape[0] <= edge:
        raise AudioError(f"a recording of {samples.shape[0]} samples is too short for a spectrogram")
    left, right = samples[1 : edge + 1][::-1], samples[-edge - 1 : -1][::-1]
    padded = mx.contiguous(mx.concatenate([left, samples, right]))
    count = (padded.shape[0] - n_fft) // hop + 1
    frames = mx.as_strided(padded, (count, n_fft), (hop, 1))
    window = mx.array(np.hanning(n_fft + 1)[:-1].astype(np.float32))
    # on the CPU: MLX has no Fourier transform for CUDA, and this runs once a reference
    spectrum = mx.fft.rfft(frames * window, stream=mx.cpu)
    return mx.sqrt(mx.real(spectrum) ** 2 + mx.imag(spectrum) ** 2 + 1e-8)[None]
