"""A voice folder made from official files and a recording: complete, or not there at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_models import gpt_parts, sovits_state, write_gpt, write_sovits

from gpt_sovits_mlx.convert import VoiceConversion, convert_voice
from gpt_sovits_mlx.errors import AudioError, GPTSoVITSError, VoiceError, WeightsError
from gpt_sovits_mlx.text import LANGUAGES

FILES = {
    "voice.json",
    "reference.wav",
    "gpt.safetensors",
    "gpt_config.json",
    "sovits.safetensors",
    "sovits_config.json",
}
RATE = 22050


def tone(seconds: float, channels: int = 1, level: float = 0.5) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    return level * np.stack([np.sin(2 * np.pi * 200 * (c + 1) * times) for c in range(channels)], axis=1)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    folder = tmp_path / "official"
    folder.mkdir()
    write_gpt(folder / "x.ckpt", *gpt_parts())
    write_sovits(folder / "x.pth", sovits_state())
    soundfile.write(folder / "speech.wav", tone(4.0, 2), RATE, subtype="PCM_16")
    return folder


def convert(official: Path, output: Path, **changes: Any) -> VoiceConversion:
    given: dict[str, Any] = {
        "gpt": official / "x.ckpt",
        "sovits": official / "x.pth",
        "reference": official / "speech.wav",
        "text": " The quick brown fox. ",
        "language": "en",
        "output": output,
        **changes,
    }
    return convert_voice(**given)


def test_complete_voice(tmp_path: Path, official: Path):
    encoders = {"cnhubert": "a" * 64, "roberta": None}
    done = convert(
        official,
        tmp_path / "voices" / "fox",
        encoders=encoders,
        defaults={"top_k": 5},
        licence="CC0",
        card="Recorded at home.",
    )
    assert {path.name for path in done.folder.iterdir()} == FILES
    assert [path.name for path in (tmp_path / "voices").iterdir()] == ["fox"]
    assert json.loads((done.folder / "voice.json").read_text()) == done.voice
    assert done.voice == {
        "format": 1,
        "name": "fox",
        "version": "v2",
        "sample_rate": 32000,
        "reference": {"text": "The quick brown fox.", "language": "en", "auxiliary": []},
        "languages": list(LANGUAGES),
        "defaults": {"top_k": 5},
        "encoders": encoders,
        "licence": "CC0",
        "card": "Recorded at home.",
    }
    assert done.gpt.weights == done.folder / "gpt.safetensors" and done.gpt.weights.is_file()
    assert done.sovits.config_path.is_file()
    original, rate = soundfile.read(official / "speech.wav", dtype="int16")
    written, written_rate = soundfile.read(done.folder / "reference.wav", dtype="int16")
    assert rate == written_rate == RATE
    np.testing.assert_array_equal(written, original)


def test_auxiliary_recordings_and_other_formats(tmp_path: Path, official: Path):
    soundfile.write(official / "more.flac", tone(1.0), RATE, subtype="PCM_24")
    soundfile.write(official / "loud.wav", tone(5.0, level=1.6), RATE, subtype="FLOAT")
    done = convert(official, tmp_path / "fox", reference=official / "loud.wav", auxiliary=[official / "more.flac"])
    assert done.voice["reference"]["auxiliary"] == ["auxiliary_0.wav"]
    loud, _ = soundfile.read(done.folder / "reference.wav")
    assert soundfile.info(done.folder / "reference.wav").subtype == "PCM_24"
    np.testing.assert_allclose(loud, tone(5.0, level=1.0)[:, 0], atol=2e-4)
    more, _ = soundfile.read(done.folder / "auxiliary_0.wav")
    np.testing.assert_array_equal(more, soundfile.read(official / "more.flac")[0])


def refused(official: Path, output: Path, kind: type[GPTSoVITSError], named: str, **changes: Any) -> None:
    before = sorted(output.parent.rglob("*"))
    with pytest.raises(kind) as error:
        convert(official, output, **changes)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(output.parent.rglob("*")) == before


@pytest.mark.parametrize("seconds", [2.99, 10.01])
def test_length_of_the_reference(tmp_path: Path, official: Path, seconds: float):
    soundfile.write(official / "other.wav", tone(seconds), RATE)
    refused(official, tmp_path / "fox", AudioError, "between 3 and 10 s", reference=official / "other.wav")


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_limits_of_the_length_are_allowed(tmp_path: Path, official: Path, seconds: float):
    soundfile.write(official / "other.wav", tone(seconds), RATE)
    assert convert(official, tmp_path / "fox", reference=official / "other.wav").folder.is_dir()


def test_refusals_leave_nothing(tmp_path: Path, official: Path):
    fox = tmp_path / "fox"
    (official / "noise.wav").write_bytes(b"RIFF")
    soundfile.write(official / "nan.wav", np.full(RATE * 4, np.nan), RATE, subtype="FLOAT")
    write_sovits(official / "v1.pth", sovits_state("v1"))
    refused(official, fox, AudioError, "cannot read the recording", reference=official / "noise.wav")
    refused(official, fox, AudioError, "cannot read the recording", reference=official / "absent.wav")
    refused(official, fox, AudioError, "empty or damaged", reference=official / "nan.wav")
    refused(official, fox, VoiceError, "transcript", text="  ")
    refused(official, fox, VoiceError, "'xx' is unknown", language="xx")
    refused(official, fox, VoiceError, "'yy' is unknown", languages=["en", "yy"])
    refused(official, fox, WeightsError, "it is a SoVITS file", gpt=official / "x.pth")
    refused(official, fox, WeightsError, "it is a GPT file", sovits=official / "x.ckpt")


def test_files_that_do_not_belong_together(tmp_path: Path, official: Path):
    state, config = gpt_parts()
    name = "model.ar_text_embedding.word_embeddings.weight"
    config["model"]["phoneme_vocab_size"] = 512
    write_gpt(official / "v1.ckpt", {**state, name: state[name][:512].clone()}, config)
    write_sovits(official / "v1.pth", sovits_state("v1"))
    refused(official, tmp_path / "fox", VoiceError, "trained together", gpt=official / "v1.ckpt")
    done = convert(official, tmp_path / "old", gpt=official / "v1.ckpt", sovits=official / "v1.pth")
    assert done.voice["version"] == "v1"


def test_existing_folders(tmp_path: Path, official: Path):
    fox = tmp_path / "fox"
    convert(official, fox)
    (fox / "cache.safetensors").write_bytes(b"old")
    refused(official, fox, VoiceError, "exists already")
    done = convert(official, fox, overwrite=True, text="Another text.")
    assert {path.name for path in fox.iterdir()} == FILES
    assert done.voice["reference"]["text"] == "Another text."
    refused(official, fox, WeightsError, "it is a GPT file", sovits=official / "x.ckpt", overwrite=True)
    other = tmp_path / "documents"
    other.mkdir()
    refused(official, other, VoiceError, "is no voice", overwrite=True)
