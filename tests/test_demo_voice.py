"""The voices in the box: whole, small enough, quick to load, and understood by a recogniser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soxr
from scripts.train_demo_voice.scoring import median_pitch, word_error_rate

from gpt_sovits_mlx import GPTSoVITSEngine
from gpt_sovits_mlx.voices.cache import ConditioningCache
from gpt_sovits_mlx.voices.format import VoiceFolder
from gpt_sovits_mlx.voices.library import shipped_voices

VOICES = ("demo", "demo-female", "demo-mandarin")
# spoken by no training sentence
SENTENCES = (
    "The train to the city leaves at seven in the morning.",
    "My sister bought a small red car last week.",
    "We walked along the river and talked about the summer.",
    "He closed the door and turned off the light.",
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return GPTSoVITSEngine(tmp_path_factory.mktemp("empty"))


def test_sizes():
    files = [path for path in shipped_voices().rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) <= 15e6
    assert sum(path.stat().st_size for path in files) <= 30e6


@pytest.mark.parametrize("name", VOICES)
def test_the_cache_that_ships_is_valid_and_spares_the_encoder(name, engine, tmp_path):
    folder = VoiceFolder.read(shipped_voices() / name)
    cache = ConditioningCache(folder, folder.reference)
    cache.paths = [folder.cache_file]
    assert cache.load() is not None
    assert folder.licence and folder.card
    copy = Path(shutil.copytree(shipped_voices(), tmp_path / "voices"))
    for encoder in copy.rglob("cnhubert*"):
        encoder.unlink()
    assert GPTSoVITSEngine(tmp_path).load_voice(copy / name).conditioning.tokens


def test_enrolling_the_reference_again_gives_the_same_prompt(engine, tmp_path):
    shipped = engine.load_voice("demo")
    reference = Path(shutil.copy(shipped.reference.audio, tmp_path / "again.wav"))
    again = engine.load_voice("demo", reference, shipped.reference.text, shipped.reference.language)
    agreement = np.mean(np.array(again.conditioning.tokens) == np.array(shipped.conditioning.tokens))
    assert agreement >= 0.98
    assert np.allclose(np.array(again.conditioning.style), np.array(shipped.conditioning.style), atol=1e-3)


def test_a_recogniser_understands_it(engine):
    voice = engine.load_voice("demo")
    spoken = []
    for seed, sentence in enumerate(SENTENCES):
        result = engine.synthesize(sentence, "en", voice, seed=seed)
        assert all(s.ended for s in result.sentences)
        spoken.append(soxr.resample(result.audio, result.sample_rate, 16000))
    assert word_error_rate(spoken, SENTENCES)[0] <= 0.15


@pytest.mark.parametrize("text", ["Yes.", "好。", "Thank you, 谢谢你。", "今天的天气很好，我们一起去公园散步吧。"])
def test_short_and_mixed_texts_end_in_time(engine, text):
    result = engine.synthesize(text, voice="demo", seed=1, pause=0)
    assert all(s.ended for s in result.sentences)
    assert 0.3 < result.duration < 1.5 + 0.5 * len(re.findall(r"[一-龥]|[A-Za-z]+", text))
    assert np.abs(result.audio).max() > 0.05


def test_the_reference_decides_the_timbre(engine):
    """The same sentence by a man and by a woman: her pitch is clearly higher."""
    pitches = {}
    for name in ("demo", "demo-female"):
        result = engine.synthesize(SENTENCES[0], "en", engine.load_voice(name), seed=1)
        pitches[name] = median_pitch(soxr.resample(result.audio, result.sample_rate, 16000))
    assert pitches["demo-female"] > 1.3 * pitches["demo"]
