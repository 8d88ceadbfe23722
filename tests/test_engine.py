"""The engine on a small random voice: what it promises whatever the weights say."""

from __future__ import annotations

import json
import shutil
import threading

import numpy as np
import pytest
import soundfile

from gpt_sovits_mlx import (
    AudioError,
    DependencyError,
    GPTSoVITSEngine,
    GPTSoVITSError,
    TextError,
    VoiceError,
    synthesize,
)
from small_voice import make_model_folder, tone

TEXT = "今天天气很好。我们去公园散步吧！Let us go to the park, my friend."


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("models"), ("one", "two"))


@pytest.fixture(scope="module")
def engine(model_dir):
    return GPTSoVITSEngine(model_dir)


@pytest.fixture
def own_dir(tmp_path):
    return make_model_folder(tmp_path / "models")


def test_result_has_what_it_promises(engine, tmp_path):
    engine.load_voice("one")
    result = engine.synthesize(TEXT, seed=1)
    assert result.audio.dtype == np.float32 and np.abs(result.audio).max() <= 1
    assert result.duration == len(result.audio) / 32000 and result.sample_rate == 32000
    assert list(result.timing) == ["text_processing", "bert_encoding", "gpt_generation", "vocoder", "total"]
    assert result.timing["total"] == pytest.approx(sum(list(result.timing.values())[:4]), rel=1e-6)
    assert [s.start for s in result.sentences] == sorted(s.start for s in result.sentences)
    assert result.sentences[-1].end + 0.3 == pytest.approx(result.duration, abs=1e-3)
    result.save(tmp_path / "out.wav")
    samples, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == 32000 and np.abs(samples - result.audio).max() < 1e-4
    result.save(tmp_path / "out.flac")
    assert soundfile.info(tmp_path / "out.flac").frames == len(result.audio)
    with pytest.raises(AudioError, match="no known format"):
        result.save(tmp_path / "out.xyz")
    with pytest.raises(AudioError, match="cannot write"):
        result.save("/proc/nowhere/out.wav")


def test_a_seed_says_the_same_again_and_another_does_not(engine):
    voice = engine.load_voice("one")
    first, again, other = (engine.synthesize(TEXT, voice=voice, seed=seed).audio for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.allclose(first, other)
    random = engine.synthesize(TEXT, voice=voice)
    assert np.array_equal(random.audio, engine.synthesize(TEXT, voice=voice, seed=random.seed).audio)


def test_speed_pause_and_split(engine):
    voice = engine.load_voice("one")
    normal = engine.synthesize(TEXT, voice=voice, seed=1, pause=0)
    fast = engine.synthesize(TEXT, voice=voice, seed=1, pause=0, speed=2.0)
    assert fast.duration == pytest.approx(normal.duration / 2, rel=0.05)
    paused = engine.synthesize(TEXT, voice=voice, seed=1, pause=0.5)
    assert paused.duration == pytest.approx(normal.duration + 0.5 * len(normal.sentences))
    assert len(normal.sentences) == 4
    assert len(engine.synthesize(TEXT, voice=voice, split_method="cut0").sentences) == 1


def test_voices_differ_and_threads_never_mix_them(engine):
    one, two = engine.load_voice("one"), engine.load_voice("two")
    expected = {v.name: engine.synthesize(TEXT, voice=v, seed=3).audio for v in (one, two)}
    assert expected["one"].shape != expected["two"].shape or not np.allclose(expected["one"], expected["two"])
    wrong: list[str] = []

    def speak(voice):
        for _ in range(4):
            if not np.array_equal(engine.synthesize(TEXT, voice=voice, seed=3).audio, expected[voice.name]):
                wrong.append(voice.name)

    threads = [threading.Thread(target=speak, args=(voice,)) for voice in (one, two, one)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_voice_loaded_in_one_thread_speaks_in_another(model_dir):
    engine = GPTSoVITSEngine(model_dir)
    voices, results = [], []
    loader = threading.Thread(target=lambda: voices.append(engine.load_voice("one")))
    loader.start()
    loader.join()
    speaker = threading.Thread(target=lambda: results.append(engine.synthesize(TEXT, voice=voices[0], seed=1)))
    speaker.start()
    speaker.join()
    assert np.array_equal(results[0].audio, engine.synthesize(TEXT, voice=voices[0], seed=1).audio)


def test_a_voice_needs_the_encoders_it_was_made_with(own_dir):
    engine = GPTSoVITSEngine(own_dir)
    voice = engine.load_voice("small")
    (own_dir / "encoders" / "roberta.safetensors").rename(own_dir / "roberta.safetensors")
    with pytest.raises(DependencyError, match=r"roberta\.safetensors is missing: make it with"):
        GPTSoVITSEngine(own_dir).synthesize("今天天气很好", voice=voice)
    other = make_model_folder(own_dir.parent / "others")
    path = own_dir / "encoders" / "roberta.safetensors"
    shutil.copy(other / "voices" / "small" / "gpt.safetensors", path)
    with pytest.raises(GPTSoVITSError, match="roberta"):
        GPTSoVITSEngine(own_dir).synthesize("今天天气很好", voice=voice)


def test_a_voice_trained_without_roberta_speaks_chinese_without(own_dir):
    file = own_dir / "voices" / "small" / "voice.json"
    data = json.loads(file.read_text())
    data["encoders"]["roberta"] = None
    file.write_text(json.dumps(data))
    (own_dir / "encoders" / "roberta.safetensors").unlink()
    assert GPTSoVITSEngine(own_dir).synthesize("今天天气很好", voice="small", seed=1).duration > 0.4


def test_errors_name_what_is_wrong(engine, own_dir):
    engine.load_voice("one")
    for text in ("", "   ", "。。。"):
        with pytest.raises(TextError):
            engine.synthesize(text)
    with pytest.raises(TextError, match="ja"):
        engine.synthesize("今天", language="ja")
    with pytest.raises(VoiceError, match=r"no voice 'nobody': the voices here are .*one"):
        engine.load_voice("nobody")
    for settings, match in (
        ({"speed": 0}, "speed"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.5}, "top_p"),
        ({"temperature": -1}, "temperature"),
        ({"pause": -1}, "pause"),
    ):
        with pytest.raises(GPTSoVITSError, match=match):
            engine.synthesize("今天天气很好", **settings)
    with pytest.raises(GPTSoVITSError, match="dtype"):
        GPTSoVITSEngine(own_dir, dtype="int3")
    (own_dir / "voices" / "small" / "gpt.safetensors").write_bytes(b"not weights")
    with pytest.raises(GPTSoVITSError, match=r"gpt\.safetensors is not a safetensors file"):
        GPTSoVITSEngine(own_dir).load_voice("small")
    (own_dir / "voices" / "small" / "voice.json").write_text("{")
    with pytest.raises(VoiceError, match=r"voice\.json is damaged"):
        GPTSoVITSEngine(own_dir).load_voice("small")


def test_one_call(own_dir, tmp_path):
    result = synthesize(
        "今天天气很好。", model_dir=own_dir, voice_name="small", output_path=tmp_path / "out.wav", language="zh"
    )
    assert soundfile.info(tmp_path / "out.wav").frames == len(result.audio)


def test_progress_counts_sentences(engine):
    calls = []
    engine.synthesize(TEXT, voice="one", seed=1, progress=lambda *call: calls.append(call))
    assert calls == [(stage, i, 4) for stage in ("gpt", "vocoder") for i in range(1, 5)]


def test_sentences_vocoded_together_sound_as_they_do_alone(engine, monkeypatch):
    """As CUDA has it: padded to a length of few, sentences of one voice by eights."""
    text = " ".join(
        ["One.", "Here are two of them.", "And a third, which is longer.", "Four.", "Now the fifth of all."]
    )
    settings = {"voice": "one", "seed": 3, "split_method": "cut5", "max_tokens": 70}
    alone = engine.synthesize(text, **settings)
    sovits, calls = engine.load_voice("one").sovits, []
    decode = sovits.decode
    monkeypatch.setattr(sovits, "pads", True)
    monkeypatch.setattr(sovits, "decode", lambda tokens, *rest: (calls.append(len(tokens)), decode(tokens, *rest))[1])
    together = engine.synthesize(text, **settings)
    assert calls == [8] and together.sentences == alone.sentences
    assert np.abs(together.audio - alone.audio).max() < 1e-4


def test_a_companion_speaks_its_language(own_dir):
    """A Chinese sentence sounds exactly as if the companion had been asked, the English ones beside it do not."""
    other = make_model_folder(own_dir, ("small", "other")) / "voices" / "other"
    file = own_dir / "voices" / "small" / "voice.json"
    alone = GPTSoVITSEngine(own_dir).synthesize("My friend went home.", voice="small", seed=1)
    file.write_text(json.dumps({**json.loads(file.read_text()), "companions": {"zh": other.name}}))
    engine = GPTSoVITSEngine(own_dir)
    text = "My friend went home. 今天天气很好。"
    mixed = engine.synthesize(text, voice="small", seed=1)
    whole = engine.synthesize(text, voice="other", seed=1)
    first, second = (round(s.start * 32000) for s in mixed.sentences)
    assert np.array_equal(mixed.audio[first:second], alone.audio)
    assert np.array_equal(mixed.audio[second:], whole.audio[round(whole.sentences[1].start * 32000) :])
    own = engine.load_voice("small", tone(own_dir / "me.wav", 3.5, 200), "今天天气很好", "zh")
    assert not own.companions
