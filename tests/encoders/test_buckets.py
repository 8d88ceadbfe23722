"""Which length serves what, and the inputs that fill it."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_sovits_mlx.encoders.buckets import (
    AUDIO_BUCKETS,
    TEXT_BUCKETS,
    audio_bucket,
    audio_inputs,
    text_bucket,
    text_inputs,
)
from gpt_sovits_mlx.errors import AudioError, TextError


def test_lengths_are_those_of_the_design():
    assert [b.length for b in TEXT_BUCKETS] == [32, 64, 128, 256, 512]
    assert [b.length / 16000 for b in AUDIO_BUCKETS] == [4, 6, 8, 10.6]
    # a row of samples is the longest axis there is
    assert audio_inputs(np.zeros(64000), AUDIO_BUCKETS[0])[0]["audio"].shape[3] < 16384


@pytest.mark.parametrize("buckets", [TEXT_BUCKETS, AUDIO_BUCKETS])
def test_the_smallest_that_fits_serves(buckets):
    choose = text_bucket if buckets is TEXT_BUCKETS else audio_bucket
    for bucket, larger in zip(buckets, [*buckets[1:], None], strict=True):
        assert choose(bucket.length - 1) == choose(bucket.length) == bucket
        if larger:
            assert choose(bucket.length + 1) == larger


def test_what_fits_nowhere_is_refused():
    with pytest.raises(TextError, match="513 tokens are too many for RoBERTa on Core ML, which reads 512"):
        text_bucket(513)
    with pytest.raises(AudioError, match=r"10\.60 s .*too long for .* hears 0\.03 to 10\.6 s: give one of 3 to 10 s"):
        audio_bucket(169601)
    with pytest.raises(AudioError, match=r"0\.02 s .*too short for .* hears 0\.03 to 10\.6 s"):
        audio_bucket(399)


def test_text_is_padded_and_masked():
    embeddings = np.arange(6, dtype=np.float32).reshape(3, 2)
    inputs = text_inputs(embeddings, np.array([7, 8], np.float32), TEXT_BUCKETS[0])
    assert inputs["embeddings"].shape == (1, 2, 1, 32)
    np.testing.assert_array_equal(inputs["embeddings"][0, :, 0, :3].T, embeddings)
    assert (inputs["embeddings"][0, :, 0, 3:].T == [7, 8]).all()
    assert inputs["key_mask"].reshape(-1).tolist() == [0] * 3 + [-1e4] * 29


@pytest.mark.parametrize("count", [64000, 63999, 50001, 400])
def test_audio_is_cut_into_overlapping_rows(count):
    samples = np.random.default_rng(count).uniform(-0.1, 0.1, count).astype(np.float32)
    bucket = AUDIO_BUCKETS[0]
    inputs, frames = audio_inputs(samples, bucket)
    assert frames == (count - 400) // 320 + 1 <= bucket.frames == 200
    rows = inputs["audio"][0, 0]
    assert rows.shape == (4, 16080)
    np.testing.assert_array_equal(rows[:-1, 16000:], rows[1:, :80])
    gain = np.sqrt(inputs["power"].item())
    flat = np.concatenate([rows[:, :16000].reshape(-1), rows[-1, 16000:]])
    np.testing.assert_array_equal(flat[:count], samples * gain)
    assert not flat[count:].any()
    # outputs of the first convolution (10 taps, stride 5) that see real samples only
    assert inputs["count_mask"].sum() == (count - 10) // 5 + 1
    assert inputs["count_mask"].shape == (1, 1, 4, 3200)
    assert inputs["count_scale"].item() == pytest.approx(12800 / inputs["count_mask"].sum())
    assert inputs["frame_mask"].sum() == frames == (inputs["key_mask"] == 0).sum()


@pytest.mark.parametrize(("peak", "gain"), [(1.0, 1.0), (0.6, 1.0), (0.5, 2.0), (0.3, 2.0), (0.005, 128.0), (0, 1.0)])
def test_quiet_audio_is_raised_by_a_power_of_two(peak, gain):
    samples = np.full(1000, peak, np.float32)
    inputs, _ = audio_inputs(samples, AUDIO_BUCKETS[0])
    assert inputs["audio"].max() == np.float32(peak) * gain
    assert inputs["power"].item() == gain * gain
