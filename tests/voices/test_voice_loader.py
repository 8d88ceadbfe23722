"""Voices that are loaded: each model once, side by side, and no more of them than `keep` allows."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlx.core as mx
import pytest

from gpt_sovits_mlx import GPTSoVITSEngine, GPTSoVITSError
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.voices import loader
from gpt_sovits_mlx.voices.format import VoiceFolder
from gpt_sovits_mlx.voices.loaded import bytes_of
from gpt_sovits_mlx.voices.loader import VoiceLoader
from small_voice import make_model_folder

PATIENCE = 60


@pytest.fixture
def models(tmp_path):
    return make_model_folder(tmp_path / "models", ("one", "two"))


def folder(models: Path, name: str) -> VoiceFolder:
    return VoiceFolder.read(models / "voices" / name)


def test_loading_one_voice_does_not_hold_up_another(models, monkeypatch):
    one, two = folder(models, "one"), folder(models, "two")
    voices, begun, go, loads = VoiceLoader(models), threading.Event(), threading.Event(), []
    load = loader.load_model

    def slow(kind, path, dtype):
        if kind is TextToSemantic:
            loads.append(path)
        if path == one.gpt_file:
            begun.set()
            assert go.wait(PATIENCE)
        return load(kind, path, dtype)

    monkeypatch.setattr(loader, "load_model", slow)
    with ThreadPoolExecutor(9) as pool:
        first = [pool.submit(voices.voice, one) for _ in range(8)]
        assert begun.wait(PATIENCE)
        assert pool.submit(voices.voice, two).result(PATIENCE).name == "two"
        assert not any(future.done() for future in first)
        go.set()
        made = [future.result(PATIENCE) for future in first]
    assert loads == [one.gpt_file, two.gpt_file]
    for part in ("gpt", "sovits", "frontend", "conditioning"):
        assert len({id(getattr(voice, part)) for voice in made}) == 1


def test_a_voice_that_could_not_be_loaded_can_be_once_it_is_mended(models):
    one, voices = folder(models, "one"), VoiceLoader(models)
    whole = one.gpt_file.read_bytes()
    one.gpt_file.write_bytes(b"not weights")
    for _ in range(2):
        with pytest.raises(GPTSoVITSError, match="is not a safetensors file"):
            voices.voice(one)
    one.gpt_file.write_bytes(whole)
    assert voices.voice(one).name == "one"


def test_what_changed_on_disk_is_loaded_again(models):
    one, two, voices = folder(models, "one"), folder(models, "two"), VoiceLoader(models)
    before = voices.voice(one)
    assert voices.voice(one).gpt is before.gpt
    shutil.copy(two.gpt_file, one.gpt_file)
    os.utime(one.gpt_file, (1, 1))
    after = voices.voice(one)
    assert after.gpt is not before.gpt and after.sovits is before.sovits
    file = one.path / "voice.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "defaults": {"top_k": 3}}))
    assert voices.voice(folder(models, "one")).folder.defaults == {"top_k": 3}


def test_companions_are_loaded_once_and_two_may_name_each_other(models):
    for name, other in (("one", "two"), ("two", "one")):
        file = models / "voices" / name / "voice.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "companions": {"zh": other}}))
    voices = VoiceLoader(models)
    together = threading.Barrier(2)

    def load(name: str):
        together.wait(PATIENCE)
        return voices.voice(folder(models, name))

    with ThreadPoolExecutor(2) as pool:
        one, two = (future.result(PATIENCE) for future in [pool.submit(load, name) for name in ("one", "two")])
    assert one.companions["zh"].gpt is two.gpt and two.companions["zh"].sovits is one.sovits
    assert not one.companions["zh"].companions
    shared = one.frontend  # and two encoders, which enrolled both references
    encoders = [voices.speech_encoder(one.folder), voices.character_encoder(one.folder, shared.piece("今天", "zh"))]
    parts = [one.gpt, one.sovits, two.gpt, two.sovits, shared, one.conditioning, two.conditioning, *encoders]
    assert voices.loaded.bytes == sum(map(bytes_of, parts))


def test_memory_is_flat_over_a_hundred_voices(models):
    """All that MLX holds, with what Python has not collected yet: an eighth of what is kept, and a voice."""
    one = folder(models, "one")
    voices = VoiceLoader(models)
    before = mx.get_active_memory()
    voice = voices.voice(one)
    held = mx.get_active_memory() - before  # of one voice and the encoders
    each = bytes_of([voice.gpt, voice.sovits, voice.conditioning])
    del voice, voices
    keep = 40 * each
    voices, most = VoiceLoader(models, keep=keep), 0
    before = mx.get_active_memory()
    for number in range(100):
        path = models / "voices" / f"copy-{number}"
        path.mkdir()
        for file in one.path.iterdir():
            os.link(file, path / file.name)
        voices.voice(VoiceFolder.read(path))
        assert voices.loaded.bytes <= keep
        most = max(most, mx.get_active_memory() - before)
    assert voices.loaded.bytes > keep - each
    assert 0 < most < keep * 9 / 8 + 2 * held


def test_a_voice_that_is_held_speaks_on_when_it_is_let_go(models):
    engine = GPTSoVITSEngine(models, keep=0)
    one = engine.load_voice("one")
    audio = engine.synthesize("今天天气很好。", voice=one, seed=1, max_tokens=5).audio
    again = engine.load_voice("one")
    assert again.gpt is one.gpt and again.sovits is one.sovits  # not a second copy beside it
    engine.load_voice("two")
    assert (engine.synthesize("今天天气很好。", voice=one, seed=1, max_tokens=5).audio == audio).all()
    assert (engine.synthesize("今天天气很好。", voice="one", seed=1, max_tokens=5).audio == audio).all()


def test_keep_is_a_number_of_bytes(models):
    with pytest.raises(GPTSoVITSError, match="keep is -1: give it in bytes, 0 or more"):
        GPTSoVITSEngine(models, keep=-1)
