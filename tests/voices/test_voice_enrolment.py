"""References: what they yield, and the cache that keeps it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from gpt_sovits_mlx import AudioError, DependencyError, GPTSoVITSEngine, VoiceError
from gpt_sovits_mlx.files import file_sha256
from gpt_sovits_mlx.runtime import user_cache_dir
from gpt_sovits_mlx.voices.cache import ConditioningCache
from gpt_sovits_mlx.voices.enrolment import check_length
from gpt_sovits_mlx.voices.format import VoiceFolder
from gpt_sovits_mlx.voices.loader import VoiceLoader
from small_voice import make_model_folder, tone

LEXICON = {"今天": "jin4 tian4"}
"""It has a word of the small voice's transcript read otherwise."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return GPTSoVITSEngine(make_model_folder(tmp_path_factory.mktemp("models"), ("one", "two")))


@pytest.fixture
def own_dir(tmp_path):
    return make_model_folder(tmp_path / "models")


@pytest.fixture
def folder(own_dir):
    return VoiceFolder.read(own_dir / "voices" / "small")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT_SOVITS_MLX_HOME", str(tmp_path / "home"))


def test_cache_spares_the_encoders_and_is_keyed_by_content(own_dir):
    expected = GPTSoVITSEngine(own_dir).load_voice("small").conditioning
    cache = own_dir / "voices" / "small" / "cache.safetensors"
    assert cache.is_file() and not list(cache.parent.glob(".*"))
    shutil.move(own_dir / "encoders", own_dir / "elsewhere")
    loaded = GPTSoVITSEngine(own_dir).load_voice("small").conditioning
    assert loaded.tokens == expected.tokens and loaded.phones == expected.phones
    assert np.array_equal(np.array(loaded.style), np.array(expected.style))
    assert np.array_equal(np.array(loaded.bert), np.array(expected.bert))
    # another recording under the same name: the cache does not fit any more, and the encoder is missed
    tone(cache.with_name("reference.wav"), 4.0, 250)
    with pytest.raises(DependencyError, match=r"cnhubert\.safetensors is missing"):
        GPTSoVITSEngine(own_dir).load_voice("small")
    shutil.move(own_dir / "elsewhere", own_dir / "encoders")
    assert GPTSoVITSEngine(own_dir).load_voice("small").conditioning.tokens != expected.tokens


def test_other_references(engine, tmp_path):
    own = engine.load_voice("one")
    short, long = tone(tmp_path / "short.wav", 2.5, 200), tone(tmp_path / "long.wav", 10.5, 200)
    with pytest.raises(AudioError, match=r"short\.wav is 2\.50 s long: a reference must be 3 to 10 s"):
        engine.load_voice("one", short, "今天", "zh")
    with pytest.raises(AudioError, match=r"long\.wav is 10\.50 s long"):
        engine.load_voice("one", long, "今天", "zh")
    other = engine.load_voice("one", tone(tmp_path / "a.wav", 4, 300, 44100), "今天天气很好", "zh")
    assert other.conditioning.tokens != own.conditioning.tokens
    mixed = engine.load_voice("one", tmp_path / "a.wav", "今天天气很好", "zh", [tone(tmp_path / "b.wav", 1.5, 90)])
    assert mixed.conditioning.tokens == other.conditioning.tokens
    assert not np.allclose(np.array(mixed.conditioning.style), np.array(other.conditioning.style))
    timbre = engine.load_voice("one", tmp_path / "a.wav")
    assert timbre.conditioning.tokens == () and timbre.conditioning.phones == ()
    assert engine.synthesize("今天天气很好。", seed=1).duration > 0.4
    with pytest.raises(AudioError, match="no recording"):
        engine.load_voice("one", tmp_path / "nothing.wav", "今天", "zh")


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_limits_of_the_length_are_allowed(seconds):
    check_length(Path("a.wav"), seconds)


def key_of_earlier_versions(path: Path) -> str:
    """As it was computed before lexicons were part of it, by hand: nothing of the package has a say in it."""
    voice = json.loads((path / "voice.json").read_text(encoding="utf-8"))
    facts = {
        "format": 1,
        "version": "v2",
        "recordings": [hashlib.sha256((path / "reference.wav").read_bytes()).hexdigest()],
        "text": "今天天气很好",
        "language": "zh",
        "sovits": hashlib.sha256((path / "sovits.safetensors").read_bytes()).hexdigest(),
        "encoders": {name: voice["encoders"][name] for name in ("cnhubert", "roberta")},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def test_entries_of_earlier_versions_stay_valid(own_dir, folder):
    entry = {
        "tokens": np.array([7, 8, 9], np.int32),
        "phones": np.array([1, 2], np.int32),
        "style": np.full((1, 1, 32), 0.5, np.float32),
        "bert": np.ones((2, 64), np.float32),
    }
    save_file(entry, folder.cache_file, {"key": key_of_earlier_versions(folder.path), "format": "1"})
    shutil.rmtree(own_dir / "encoders")
    for lexicon in (None, {}, {"重庆": "chong2 qing4"}):  # the last changes nothing of the transcript
        found = VoiceLoader(own_dir, lexicon=lexicon).voice(folder).conditioning
        assert found.tokens == (7, 8, 9) and found.phones == (1, 2)
        assert np.array(found.style).tolist() == entry["style"].tolist() and found.bert is not None


def test_a_lexicon_that_changes_the_prompt_has_an_entry_of_its_own(own_dir, folder):
    plain = VoiceLoader(own_dir).voice(folder).conditioning
    before = file_sha256(folder.cache_file)
    with safe_open(folder.cache_file, framework="np") as file:
        assert file.metadata()["key"] == key_of_earlier_versions(folder.path)
    (own_dir / "encoders" / "cnhubert.safetensors").rename(own_dir / "cnhubert.safetensors")  # the recording is known
    read = VoiceLoader(own_dir, lexicon=LEXICON).voice(folder).conditioning
    assert read.phones != plain.phones and len(read.phones) == len(plain.phones)
    assert read.tokens == plain.tokens and np.array_equal(np.array(read.style), np.array(plain.style))
    assert file_sha256(folder.cache_file) == before
    assert len([*(user_cache_dir() / "references").iterdir()]) == 1
    # both are found again without an encoder, whatever the order
    shutil.rmtree(own_dir / "encoders")
    assert VoiceLoader(own_dir).voice(folder).conditioning.phones == plain.phones
    assert VoiceLoader(own_dir, lexicon=LEXICON).voice(folder).conditioning.phones == read.phones
    with pytest.raises(DependencyError, match="roberta"):
        VoiceLoader(own_dir, lexicon={"天气": "tian4 qi4"}).voice(folder)


def test_a_lexicon_enrols_a_reference_that_was_not_heard_before(own_dir, folder):
    read = VoiceLoader(own_dir, lexicon=LEXICON).voice(folder).conditioning
    assert not folder.cache_file.exists()
    plain = VoiceLoader(own_dir).voice(folder).conditioning
    assert read.tokens == plain.tokens and read.phones != plain.phones


def test_a_lexicon_in_a_file_is_the_same_as_a_mapping(own_dir, folder, tmp_path):
    (tmp_path / "words.txt").write_text("今天\tjin4 tian4\n", encoding="utf-8")
    mapped, written = (
        VoiceLoader(own_dir, lexicon=lexicon).voice(folder).conditioning.phones
        for lexicon in (LEXICON, tmp_path / "words.txt")
    )
    assert mapped == written and len([*(user_cache_dir() / "references").iterdir()]) == 1


def test_what_the_weights_and_encoders_are_is_part_of_the_key(own_dir, folder):
    keys = {ConditioningCache(folder, folder.reference).key}
    file = folder.path / "voice.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**data, "encoders": {**data["encoders"], "roberta": None}}), encoding="utf-8")
    keys.add(ConditioningCache(VoiceFolder.read(folder.path), folder.reference).key)
    shutil.copy(folder.gpt_file, folder.sovits_file)
    keys.add(ConditioningCache(folder, folder.reference).key)
    assert len(keys) == 3


def test_damaged_entries_are_named(own_dir, folder):
    key = ConditioningCache(folder, folder.reference).key
    folder.cache_file.write_bytes(b"nothing")
    with pytest.raises(VoiceError, match=r"cache\.safetensors is damaged .* delete it"):
        VoiceLoader(own_dir).voice(folder)
    save_file({"tokens": np.zeros(1, np.int32)}, folder.cache_file, {"key": key})
    with pytest.raises(VoiceError, match=r"cache\.safetensors is damaged .* delete it"):
        VoiceLoader(own_dir).voice(folder)
