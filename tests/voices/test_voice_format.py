"""voice.json: what is written is what is read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt_sovits_mlx import VoiceError
from gpt_sovits_mlx.voices.format import Reference, VoiceFolder
from gpt_sovits_mlx.voices.library import find_voice, model_home, shipped_voices, voice_paths, voice_roots
from small_voice import make_model_folder


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    return make_model_folder(tmp_path, ("one", "two")) / "voices"


def change(folder: Path, **entries: Any) -> None:
    file = folder / "voice.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **entries}), encoding="utf-8")


@pytest.mark.parametrize("name", ["demo", "demo-female", "demo-mandarin"])
def test_the_shipped_voices_are_written_as_they_are(name: str, tmp_path: Path):
    copy = Path(shutil.copytree(shipped_voices(), tmp_path / "voices")) / name
    before = json.loads((copy / "voice.json").read_text(encoding="utf-8"))
    read = VoiceFolder.read(copy)
    read.write()
    assert json.loads((copy / "voice.json").read_text(encoding="utf-8")) == before
    assert VoiceFolder.read(copy) == read


def test_everything_there_is_comes_back(voices: Path):
    one = VoiceFolder.read(voices / "one")
    shutil.copy(one.reference.audio, voices / "two" / "more.wav")
    shutil.copy(one.reference.audio, voices / "two" / "other.wav")
    two = replace(
        VoiceFolder.read(voices / "two"),
        name="Two of them",
        reference=Reference(voices / "two/other.wav", None, "en", (voices / "two/more.wav",)),
        encoders={"cnhubert": "own/cnhubert.safetensors", "roberta": None},
        weights=one.path,
        companions={"zh": one.path},
        defaults={"top_k": 3},
        others={"vocoder": "a" * 64, "notes": [1, None]},
    )
    two.write()
    assert VoiceFolder.read(two.path) == two
    assert two.own_encoder("cnhubert") == one.path / "own/cnhubert.safetensors"
    assert not two.uses("roberta") and two.own_encoder("roberta") is None
    assert not [path for path in two.path.iterdir() if path.name.startswith(".")]


def test_what_lies_elsewhere_is_not_written(voices: Path, tmp_path: Path):
    one = VoiceFolder.read(voices / "one")
    before = (one.path / "voice.json").read_bytes()
    for changed, match in (
        (replace(one, reference=Reference(tmp_path / "me.wav")), r"me\.wav lies outside the voice"),
        (replace(one, weights=tmp_path / "elsewhere/two"), "does not lie beside"),
        (replace(one, companions={"zh": tmp_path / "two"}), "does not lie beside"),
    ):
        with pytest.raises(VoiceError, match=match):
            changed.write()
    assert (one.path / "voice.json").read_bytes() == before


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"format": 2}, "has format 2, this version reads 1: update"),
        ({"format": None}, "'format' is missing"),
        ({"name": None}, "'name' is missing"),
        ({"sample_rate": "fast"}, "'sample_rate' is 'fast'"),
        ({"languages": "zh"}, "'languages' is 'zh'"),
        ({"reference": []}, "'reference'"),
        ({"reference": {"text": "x"}}, "'language' is missing"),
        ({"reference": {"text": "x", "language": "en", "audio": "../two/reference.wav"}}, "is no file of the voice"),
        ({"reference": {"text": "x", "language": "en", "audio": "/etc/hosts"}}, "is no file of the voice"),
        ({"reference": {"text": "x", "language": "en", "auxiliary": [""]}}, "is no file of the voice"),
        ({"encoders": {"cnhubert": "../cnhubert.safetensors"}}, "is no file of the voice"),
        ({"encoders": {"cnhubert": 3}}, "an encoder is '3'"),
        ({"weights": "../voices/two"}, "is not the name of a voice beside"),
        ({"weights": ".."}, "is not the name of a voice beside"),
        ({"companions": {"zh": "/two"}}, "is not the name of a voice beside"),
        ({"weights": "three"}, "lacks .*three/gpt.safetensors"),
    ],
)
def test_wrong_entries_are_named(voices: Path, entries: dict[str, Any], match: str):
    change(voices / "one", **entries)
    with pytest.raises(VoiceError, match=match) as error:
        VoiceFolder.read(voices / "one")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_voice(voices: Path):
    (voices / "one" / "voice.json").write_text("[]", encoding="utf-8")
    with pytest.raises(VoiceError, match=r"voice\.json is damaged: it holds no voice"):
        VoiceFolder.read(voices / "one")
    with pytest.raises(VoiceError, match=r"no voice\.json in it"):
        VoiceFolder.read(voices)


def test_voices_are_found_by_name_and_path(voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    roots = voice_roots(tmp_path)
    assert find_voice("two", roots) == voices / "two" == find_voice(voices / "two", [])
    assert find_voice("demo", roots) == shipped_voices() / "demo"
    shutil.copytree(voices / "one", voices / "demo")
    assert find_voice("demo", roots) == voices / "demo"  # the user's own hides the shipped one
    assert [path for path in voice_paths(roots) if path.name == "demo"] == [voices / "demo"]
    with pytest.raises(VoiceError, match=r"no voice 'three': the voices here are demo, .*one, two"):
        find_voice("three", roots)
    monkeypatch.setenv("GPT_SOVITS_MLX_HOME", str(tmp_path / "home"))
    assert model_home() == tmp_path / "home" and model_home(tmp_path) == tmp_path
    monkeypatch.delenv("GPT_SOVITS_MLX_HOME")
    assert model_home().name == "gpt-sovits-mlx"
