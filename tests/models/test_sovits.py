"""SoVITS v1 and v2 against the reference's audio, within 1e-4."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx import audio
from gpt_sovits_mlx.convert import convert_sovits
from gpt_sovits_mlx.models.sovits import SoVITS, synthesizer
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.weights import load_model


@pytest.fixture(scope="module", params=["v1", "v2"])
def case(request, checkpoint, golden, tmp_path_factory):
    """The model, the reference's data, the styles of both references and of their mean."""
    name = f"sovits_{request.param}"
    path = convert_sovits(checkpoint(name, 3), tmp_path_factory.mktemp(name) / "sovits.safetensors").weights
    model = load_model(SoVITS, path, mx.float32)
    data = golden(name)
    spectrograms = [
        audio.spectrogram(mx.array(data[f"ref{i}_pcm32k"].astype(np.float32) / 32768), 2048, 640) for i in (0, 1)
    ]
    corner = data["refer0_spec_corner"]
    ours = np.array(spectrograms[0]).swapaxes(1, 2)[:, : corner.shape[1], : corner.shape[2]]
    assert np.abs(ours - corner).max() < 1e-4 * np.abs(corner).max()
    return model, data, model.style(spectrograms[:1]), model.style(spectrograms)


@pytest.mark.parametrize("variant", ["audio", "audio_2refs", "audio_speed125", "audio_noise05"])
def test_audio_equals_the_references(case, variant):
    model, data, one, both = case
    noise = mx.array(data["noise"]).swapaxes(1, 2) if variant == "audio_noise05" else None
    samples = model.decode(
        mx.array(data["codes"][0].astype(np.int32)),
        mx.array(data["phones"].astype(np.int32)),
        both if variant == "audio_2refs" else one,
        1.25 if variant == "audio_speed125" else 1.0,
        noise,
    )
    expected = data[variant].reshape(1, -1)
    assert samples.shape == expected.shape
    assert np.abs(np.array(samples) - expected).max() < 1e-4


def test_semantic_codes_equal_the_references(case):
    model, data, *_ = case
    tokens = model.tokens(mx.array(data["ssl"].astype(np.float32)).swapaxes(1, 2))
    assert np.array_equal(np.array(tokens), data["ssl_codes"][0])


def test_rows_of_a_batch_do_not_touch_each_other(case):
    model, data, style, _ = case
    codes, phones = mx.array(data["codes"][0].astype(np.int32)), mx.array(data["phones"].astype(np.int32))
    pair = mx.concatenate([codes, codes[:, ::-1]]), mx.concatenate([phones, phones[:, ::-1]])
    together = model.decode(*pair, style)
    alone = [model.decode(codes, phones, style), model.decode(codes[:, ::-1], phones[:, ::-1], style)]
    assert np.abs(np.array(together) - np.array(mx.concatenate(alone))).max() < 1e-5


@pytest.mark.parametrize("window", [480, 7])
@pytest.mark.parametrize("pads", [False, True])
def test_rows_of_other_lengths_sound_as_they_do_alone(case, pads, window, monkeypatch):
    """Padding to a common length, and to one of few as on CUDA, changes nothing before a row's end; nor does it that
    the samples of a long sentence are made piece by piece."""
    model, data, style, _ = case
    codes, phones = data["codes"][0].astype(np.int32), data["phones"].astype(np.int32)
    lengths, phone_lengths = [codes.shape[1], 9, 1], [3, phones.shape[1], 5]
    noise = mx.random.normal((3, model.latent_frames(codes.shape[1]), model.latent_width), key=mx.random.key(1))
    alone = [
        model.decode(mx.array(codes[:, :n]), mx.array(phones[:, :x]), style, noise=noise[i : i + 1, : 2 * n])
        for i, (n, x) in enumerate(zip(lengths, phone_lengths, strict=True))
    ]
    mx.eval(alone)
    monkeypatch.setattr(model, "pads", pads)
    monkeypatch.setattr(synthesizer, "WINDOW_FRAMES", window)
    rows = [mx.array(np.repeat(ids, 3, axis=0)) for ids in (codes, phones)]
    together = model.decode(*rows, style, noise=noise, lengths=lengths, phone_lengths=phone_lengths)
    assert together.shape == (3, alone[0].shape[1])
    for row, own in zip(np.array(together), alone, strict=True):
        assert np.abs(row[: own.shape[1]] - np.array(own[0])).max() < 1e-5
    single = model.decode(mx.array(codes[:, :9]), mx.array(phones), style, noise=noise[1:2, :18])
    assert np.abs(np.array(single) - np.array(alone[1])).max() < 1e-5


def test_latent_frames_are_those_of_the_audio(case):
    model, data, style, _ = case
    codes, phones = mx.array(data["codes"][0].astype(np.int32)), mx.array(data["phones"].astype(np.int32))
    for speed in (0.5, 0.8, 1.0, 1.3):
        frames = model.latent_frames(codes.shape[1], speed)
        noise = mx.random.normal((1, frames, model.latent_width))
        assert model.decode(codes, phones, style, speed, noise).shape[1] == frames * 640


def test_reach_is_what_a_frames_samples_depend_on(case):
    """A frame changes nothing beyond its reach, and the generator's reach is tight."""
    model, _, style, _ = case
    middle = model.reach + 2
    z = mx.random.normal((1, 2 * middle + 1, model.latent_width), key=mx.random.key(1))
    other = z + (mx.arange(z.shape[1]) == middle)[None, :, None] * 10.0
    for run, reach, tight in ((model.dec, model.dec.reach, True), (model.vocode, model.reach, False)):
        change = np.abs(np.array(run(other, style) - run(z, style))).reshape(z.shape[1], -1).max(axis=1)
        # a GPU may round otherwise at other places, and the outermost frames change little
        exact = backend() == "cpu"
        first, *_, last = np.nonzero(change > (0 if exact else 1e-6 * change.max()))[0]
        assert middle - reach <= first and last <= middle + reach
        assert not (tight and exact) or (first, last) == (middle - reach, middle + reach)
