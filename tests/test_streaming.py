"""Streaming says what `synthesize` says, in chunks that cannot be told apart where they meet."""

from __future__ import annotations

import inspect
import json
import threading
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx import (
    AudioChunk,
    GPTSoVITSEngine,
    GPTSoVITSError,
    SynthesisResult,
    TextError,
    VoiceError,
    streaming,
    vocoder,
)
from gpt_sovits_mlx.decoding.cuda_step import CudaDecoder
from gpt_sovits_mlx.decoding.forms import decoder_for
from gpt_sovits_mlx.decoding.numpy_step import NumpyStep
from gpt_sovits_mlx.decoding.plain import PlainDecoder
from gpt_sovits_mlx.decoding.sampling import NoiseStream
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.streaming import FIRST_CHUNK
from gpt_sovits_mlx.vocoder import HELD_FRAMES, OVERLAP_FRAMES
from small_voice import make_model_folder

RATE, HOP, PAUSE = 32000, 640, 0.1
SILENCE = np.zeros(int(RATE * PAUSE), np.float32)
SMALL = "今天天气很好，我们去公园散步吧。Let us go to the park."
DEMO = (
    "The train to the city leaves at seven in the morning and comes back at night. "
    "My sister bought a small red car last week."
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(model_dir):
    return GPTSoVITSEngine(model_dir, dtype="float32")


@dataclass
class Case:
    """A text spoken whole and streamed, with the calls of `SoVITS.latent`: one a sentence, one a chunk."""

    sovits: SoVITS
    whole: SynthesisResult
    whole_calls: list[tuple]
    chunks: list[AudioChunk]
    calls: list[tuple]

    @property
    def final_calls(self) -> list[tuple]:
        return [call for call, chunk in zip(self.calls, self.chunks, strict=True) if chunk.sentence]

    def joints(self) -> np.ndarray:
        """First samples of the chunks that go on with a sentence."""
        inside = [b for a, b in zip(self.chunks, self.chunks[1:], strict=False) if a.sentence is None]
        return np.array([round(chunk.start * RATE) for chunk in inside])

    def naive(self) -> np.ndarray:
        """Each chunk's tokens vocoded alone, with the noise of their places."""
        parts, start = [], 0
        for (tokens, phones, style, _, noise, *_), chunk in zip(self.calls, self.chunks, strict=True):
            new = mx.array([tokens[start:]])
            if new.size:  # nothing is left where a sentence ended with a chunk
                z = self.sovits.latent(new, phones, style, 1.0, noise[:, 2 * start :])
                parts.append(np.array(self.sovits.vocode(z, style)[0]))
            start = len(tokens)
            if chunk.sentence:
                parts.append(SILENCE)
                start = 0
        return np.concatenate(parts)


@pytest.fixture(scope="module", params=["small", "demo"])
def case(request, engine) -> Case:
    text, settings = {
        "small": (SMALL, {"voice": "small", "max_tokens": 90}),
        "demo": (DEMO, {"voice": "demo", "split_method": "cut4"}),
    }[request.param]
    settings = {**settings, "seed": 5, "pause": PAUSE}
    with pytest.MonkeyPatch.context() as patch:
        calls = watch(patch)
        result = engine.synthesize(text, **settings)
        whole_calls = calls.copy()
        calls.clear()
        chunks = list(engine.stream(text, **settings))
    return Case(engine.load_voice(settings["voice"]).sovits, result, whole_calls, chunks, calls)


def watch(patch: pytest.MonkeyPatch) -> list[tuple]:
    """The arguments of all calls of `SoVITS.latent` from now on: tokens, phones, style, speed, noise, steady."""
    calls, latent = [], SoVITS.latent

    def watched(self, tokens, phones, *rest, **lengths):
        calls.append((np.array(tokens)[0].tolist(), phones, *rest))
        return latent(self, tokens, phones, *rest, **lengths)

    patch.setattr(SoVITS, "latent", watched)
    return calls


def joined(chunks) -> np.ndarray:
    return np.concatenate([chunk.audio for chunk in chunks])


def log_mel(samples: np.ndarray) -> np.ndarray:
    """(frames, 80) mel amplitudes in dB of full scale, not below -100."""
    mel = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 82) / 2595) - 1)
    hertz, low, mid, high = np.linspace(0, RATE / 2, 513), mel[:-2, None], mel[1:-1, None], mel[2:, None]
    bands = np.clip(np.minimum((hertz - low) / (mid - low), (high - hertz) / (high - mid)), 0, None)
    bands /= np.maximum(bands.sum(1, keepdims=True), 1e-9)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, 512), 1024)[::256]
    amplitude = np.abs(np.fft.rfft(frames * np.hanning(1024) / 256)) @ bands.T
    return 20 * np.log10(np.maximum(amplitude, 1e-5))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of log-mels in dB."""
    return float(np.abs(log_mel(a) - log_mel(b)).mean())


def test_tokens_length_and_sentences_are_those_of_the_whole(case):
    assert len(case.whole_calls) >= 2
    assert [call[0] for call in case.final_calls] == [call[0] for call in case.whole_calls]
    assert joined(case.chunks).shape == case.whole.audio.shape
    assert tuple(c.sentence for c in case.chunks if c.sentence) == case.whole.sentences
    position = 0
    for chunk in case.chunks:
        assert chunk.audio.dtype == np.float32 and np.abs(chunk.audio).max() <= 1
        assert chunk.start == position / RATE and chunk.sample_rate == RATE and chunk.seed == 5
        position += len(chunk.audio)


def test_chunks_grow(case):
    """Within a sentence and from one sentence to the next."""
    assert (
        len(case.calls[0][0]) == FIRST_CHUNK == 16
        and len(case.chunks[0].audio) == (2 * FIRST_CHUNK - HELD_FRAMES) * HOP
    )
    sizes, start = [], 0
    for (tokens, *_), chunk in zip(case.calls, case.chunks, strict=True):
        if chunk.sentence is None:  # the rest of a sentence is as long as it is
            sizes.append(len(tokens) - start)
        start = 0 if chunk.sentence else len(tokens)
    assert len(sizes) >= 4 and np.all(np.diff(sizes) > 0)


def test_it_sounds_like_the_whole(case):
    streamed, alone = distance(joined(case.chunks), case.whole.audio), distance(case.naive(), case.whole.audio)
    print(f"log-mel distance to the whole: streamed {streamed:.2f} dB, chunks alone {alone:.2f} dB")
    assert streamed < 0.5 and alone > 1.5 * streamed


def test_joints_do_not_click(case):
    samples, joints = joined(case.chunks), case.joints()
    # where the fade begins, and where the chunk goes on alone
    places = np.concatenate([joints, joints + OVERLAP_FRAMES * HOP])
    jumps = np.abs(np.diff(samples, prepend=0))
    limit = 1.5 * np.quantile(np.delete(jumps, places), 0.999)
    print(f"largest jump at a joint: {jumps[places].max() / limit:.2f} of the limit")
    assert len(joints) >= 3 and jumps[places].max() <= limit


def test_chunks_get_all_the_context_that_they_see(engine, monkeypatch):
    """Were the latents known from the start, and held back as far as they reach, the whole would come out."""
    settings = {"voice": "small", "seed": 5, "max_tokens": 200, "pause": 0, "split_method": "cut0"}
    reach = engine.load_voice("small").sovits.reach
    whole = engine.synthesize(SMALL, **settings).audio
    calls = watch(monkeypatch)
    engine.synthesize(SMALL, **settings)
    z = engine.load_voice("small").sovits.latent(mx.array([calls[0][0]]), *calls[0][1:])
    monkeypatch.setattr(SoVITS, "latent", lambda self, tokens, *_, **__: z[:, : 2 * tokens.shape[1]])
    monkeypatch.setattr(vocoder, "HELD_FRAMES", reach)
    monkeypatch.setattr(streaming, "FIRST_CHUNK", reach)
    chunks = list(engine.stream(SMALL, **settings))
    assert len(chunks) >= 3 and np.abs(joined(chunks) - whole).max() < 1e-5


def test_closing_ends_the_work(engine, monkeypatch):
    steps, advance = [], streaming.decode_steps
    monkeypatch.setattr(streaming, "decode_steps", lambda *a: (steps.append(1) or step for step in advance(*a)))
    decodes = []
    for kind, name in ((TextToSemantic, "step"), (NumpyStep, "__call__")):
        step = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *a, step=step: (decodes.append(1), step(*a))[1])
    calls = watch(monkeypatch)
    in_a_kernel = isinstance(decoder_for(engine.load_voice("small").gpt), CudaDecoder)
    expected = 0 if in_a_kernel else FIRST_CHUNK
    chunks = engine.stream(SMALL, voice="small", seed=5, max_tokens=90)
    assert not steps
    next(chunks)
    assert len(steps) == FIRST_CHUNK and len(calls) == 1
    assert len(decodes) == expected
    chunks.close()
    assert next(chunks, None) is None
    assert len(steps) == FIRST_CHUNK and len(calls) == 1
    assert len(decodes) == expected


@pytest.mark.parametrize("speed", [0.7, 1.3, 3.0])
def test_speed(engine, monkeypatch, speed):
    """As long as the whole, and like a whole whose frames lie at their steady places."""
    settings = {"voice": "small", "seed": 5, "max_tokens": 90, "speed": speed, "pause": PAUSE}
    sovits = engine.load_voice("small").sovits
    whole = engine.synthesize(SMALL, **settings)
    calls = watch(monkeypatch)
    chunks = list(engine.stream(SMALL, **settings))
    assert tuple(c.sentence for c in chunks if c.sentence) == whole.sentences
    assert len(joined(chunks)) == len(whole.audio)
    parts = []
    for (tokens, phones, style, *rest), chunk in zip(calls.copy(), chunks, strict=True):
        if chunk.sentence:
            z = sovits.latent(mx.array([tokens]), phones, style, *rest)
            parts += [np.array(sovits.vocode(z, style)[0]), SILENCE]
    assert distance(joined(chunks), np.concatenate(parts)) < 0.5


def test_short_sentences_are_those_of_the_whole(engine):
    """A sentence that ends within its first chunk is vocoded as `synthesize` does it, at any speed."""
    for speed in (1.0, 1.3):
        settings = {"voice": "small", "seed": 5, "max_tokens": FIRST_CHUNK - 1, "speed": speed}
        whole = engine.synthesize(SMALL, **settings)
        chunks = list(engine.stream(SMALL, **settings))
        assert len(chunks) == len(whole.sentences) and not any(s.ended for s in whole.sentences)
        assert np.array_equal(joined(chunks), whole.audio)


@pytest.mark.skipif(backend() == "cuda", reason="MLX 0.32 may crash there when a thread that used it ends")
@pytest.mark.parametrize("plain", [False, True])
def test_chunks_may_be_taken_by_any_thread(engine, monkeypatch, plain):
    if plain:  # as on Metal, where a CPU has a step of its own
        monkeypatch.setattr("gpt_sovits_mlx.decoding.generation.decoder_for", PlainDecoder)
    settings = {"voice": "small", "seed": 5, "max_tokens": 60}
    expected = joined(engine.stream(SMALL, **settings))
    chunks, taken = engine.stream(SMALL, **settings), []
    while True:
        thread = threading.Thread(target=lambda: taken.append(next(chunks, None)))
        thread.start()
        thread.join()
        if taken[-1] is None:
            break
    assert len(taken) > 4 and np.array_equal(joined(taken[:-1]), expected)


def test_companions_speak_their_language(tmp_path):
    folder = make_model_folder(tmp_path, ("small", "other"))
    file = folder / "voices" / "small" / "voice.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "companions": {"zh": "other"}}))
    engine = GPTSoVITSEngine(folder)
    settings = {"voice": "small", "seed": 1, "max_tokens": FIRST_CHUNK - 1}
    text = "My friend went home. 今天天气很好。"
    assert np.array_equal(joined(engine.stream(text, **settings)), engine.synthesize(text, **settings).audio)


def test_errors_come_at_once(engine):
    for text in ("", "。。。"):
        with pytest.raises(TextError):
            engine.stream(text, voice="small")
    with pytest.raises(VoiceError, match="no voice 'nobody'"):
        engine.stream("今天", voice="nobody")
    for settings, match in (({"speed": 0}, "speed"), ({"top_k": 0}, "top_k"), ({"pause": -1}, "pause")):
        with pytest.raises(GPTSoVITSError, match=match):
            engine.stream("今天", voice="small", **settings)


def test_a_missing_encoder_is_missed_at_once(tmp_path):
    folder = make_model_folder(tmp_path)
    GPTSoVITSEngine(folder).load_voice("small")
    (folder / "encoders" / "roberta.safetensors").unlink()
    with pytest.raises(GPTSoVITSError, match=r"roberta\.safetensors is missing"):
        GPTSoVITSEngine(folder).stream("Let us go. 今天", voice="small")


def test_arguments_are_those_of_synthesize():
    whole, streamed = (inspect.signature(f).parameters for f in (GPTSoVITSEngine.synthesize, GPTSoVITSEngine.stream))
    assert {**streamed, "progress": whole["progress"]} == dict(whole)


def test_noise_depends_on_the_place_alone():
    noise = NoiseStream(3, 1)
    long = np.array(noise.latent(200, 12))
    for frames in (1, 64, 65, 150):
        assert np.array_equal(np.array(noise.latent(frames, 12)), long[:, :frames])
    assert abs(long.mean()) < 0.1 and abs(long.std() - 1) < 0.1
    assert not np.allclose(long[:, :64], long[:, 64:128])
    assert not np.allclose(long, np.array(NoiseStream(3, 2).latent(200, 12)))
