"""Recordings in and out."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from gpt_sovits_mlx import AudioError, audio


def sine(frequency: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize(("rate", "to"), [(44100, 32000), (16000, 32000), (48000, 32000), (22050, 32000)])
def test_resampling_keeps_a_tone(rate, to):
    for resampled in (audio.resample_sinc(sine(440, rate), rate, to),):
        assert len(resampled) == to
        middle = slice(to // 10, -to // 10)
        assert np.abs(resampled - sine(440, to))[middle].max() < 2e-3


def test_resampling_for_the_encoder_keeps_a_tone():
    resampled = audio.resample_for_encoder(sine(440, 44100), 44100)
    assert len(resampled) == 16000 and resampled.dtype == np.float32
    assert np.abs(resampled - sine(440, 16000))[1600:-1600].max() < 1e-3
    same = sine(440, 16000)
    assert audio.resample_for_encoder(same, 16000) is same


def test_resampling_removes_what_the_new_rate_cannot_hold():
    assert np.abs(audio.resample_sinc(sine(22000, 48000), 48000, 32000))[1000:-1000].max() < 0.01


def test_spectrogram_shows_a_tone_in_its_bin():
    spectrogram = np.array(audio.spectrogram(mx.array(sine(1000, 32000, 2.0)), 2048, 640))
    assert spectrogram.shape == (1, 100, 1025)
    assert (spectrogram[0, 1:-1].argmax(axis=1) == 64).all()
    # a sine under a Hann window: half its amplitude times half the window's length
    assert spectrogram[0, 50, 64] == pytest.approx(512, rel=1e-3)
    with pytest.raises(AudioError, match="too short"):
        audio.spectrogram(mx.zeros(704), 2048, 640)


def test_files_are_read_as_mono_and_written_whole(tmp_path):
    stereo = np.stack([sine(440, 16000), np.zeros(16000, np.float32)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 16000, subtype="FLOAT")
    samples, rate = audio.read(tmp_path / "stereo.wav")
    assert rate == 16000 and np.allclose(samples, stereo[:, 0] / 2)
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(AudioError, match="not a recording"):
        audio.read(tmp_path / "text.wav")
    with pytest.raises(AudioError, match="no recording"):
        audio.read(tmp_path / "missing.wav")
    audio.write(tmp_path / "loud.wav", 2 * samples, 16000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["loud.wav", "stereo.wav", "text.wav"]


def test_limit_is_the_references():
    assert np.abs(audio.limit(np.array([0.5, -1.5], np.float32))).max() == 1
    assert np.abs(audio.limit(np.array([0.5, -5.0], np.float32))).max() == 2.5
    quiet = np.array([0.5, -0.9], np.float32)
    assert audio.limit(quiet) is quiet
