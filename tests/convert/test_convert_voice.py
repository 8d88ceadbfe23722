"""A voice folder made from official files and a recording: complete, or not there at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors import safe_open
from small_models import gpt_parts, sovits_state, write_gpt, write_sovits

from gpt_sovits_mlx.cli import main
from gpt_sovits_mlx.convert import VoiceConversion, VoiceRecipe, convert_voice
from gpt_sovits_mlx.errors import AudioError, GPTSoVITSError, TextError, VoiceError, WeightsError
from gpt_sovits_mlx.files import file_sha256
from gpt_sovits_mlx.models.cnhubert import CNHubert
from gpt_sovits_mlx.models.roberta import Roberta
from gpt_sovits_mlx.text import LANGUAGES
from gpt_sovits_mlx.voices.cache import ConditioningCache
from small_voice import CNHUBERT, ROBERTA, write

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
        **changes,
    }
    overwrite = given.pop("overwrite", False)
    return convert_voice(VoiceRecipe(**given), output=output, overwrite=overwrite)


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
    assert {path.name for path in done.voice.path.iterdir()} == FILES
    assert [path.name for path in (tmp_path / "voices").iterdir()] == ["fox"]
    assert json.loads((done.voice.path / "voice.json").read_text()) == {
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
    assert done.gpt.weights == done.voice.path / "gpt.safetensors" and done.gpt.weights.is_file()
    assert done.sovits.config_path.is_file()
    original, rate = soundfile.read(official / "speech.wav", dtype="int16")
    written, written_rate = soundfile.read(done.voice.path / "reference.wav", dtype="int16")
    assert rate == written_rate == RATE
    np.testing.assert_array_equal(written, original)


def test_auxiliary_recordings_and_other_formats(tmp_path: Path, official: Path):
    soundfile.write(official / "more.flac", tone(1.0), RATE, subtype="PCM_24")
    soundfile.write(official / "loud.wav", tone(5.0, level=1.6), RATE, subtype="FLOAT")
    done = convert(official, tmp_path / "fox", reference=official / "loud.wav", auxiliary=[official / "more.flac"])
    assert [path.name for path in done.voice.reference.auxiliary] == ["auxiliary_0.wav"]
    loud, _ = soundfile.read(done.voice.path / "reference.wav")
    assert soundfile.info(done.voice.path / "reference.wav").subtype == "PCM_24"
    np.testing.assert_allclose(loud, tone(5.0, level=1.0)[:, 0], atol=2e-4)
    more, _ = soundfile.read(done.voice.path / "auxiliary_0.wav")
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
    refused(official, tmp_path / "fox", AudioError, "must be 3 to 10 s", reference=official / "other.wav")


@pytest.mark.parametrize("seconds", [3.0, 10.0])
def test_limits_of_the_length_are_allowed(tmp_path: Path, official: Path, seconds: float):
    soundfile.write(official / "other.wav", tone(seconds), RATE)
    assert convert(official, tmp_path / "fox", reference=official / "other.wav").voice.path.is_dir()


def test_refusals_leave_nothing(tmp_path: Path, official: Path):
    fox = tmp_path / "fox"
    (official / "noise.wav").write_bytes(b"RIFF")
    soundfile.write(official / "nan.wav", np.full(RATE * 4, np.nan), RATE, subtype="FLOAT")
    write_sovits(official / "v1.pth", sovits_state("v1"))
    refused(official, fox, AudioError, "is not a recording that can be read", reference=official / "noise.wav")
    refused(official, fox, AudioError, "no recording at", reference=official / "absent.wav")
    refused(official, fox, AudioError, "nan.wav is damaged", reference=official / "nan.wav")
    refused(official, fox, VoiceError, "transcript", text="  ")
    refused(official, fox, VoiceError, "'xx' is unknown", language="xx")
    refused(official, fox, VoiceError, "'yy' is unknown", languages=["en", "yy"])
    refused(official, fox, VoiceError, "is no name of a voice", name="../fox")
    refused(official, fox, WeightsError, "bits 5 is unknown", bits=5)
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
    assert done.voice.version == "v1"


def test_existing_folders(tmp_path: Path, official: Path):
    fox = tmp_path / "fox"
    convert(official, fox)
    (fox / "cache.safetensors").write_bytes(b"old")
    refused(official, fox, VoiceError, "exists already")
    done = convert(official, fox, overwrite=True, text="Another text.")
    assert {path.name for path in fox.iterdir()} == FILES
    assert done.voice.reference.text == "Another text."
    refused(official, fox, WeightsError, "it is a GPT file", sovits=official / "x.ckpt", overwrite=True)
    other = tmp_path / "documents"
    other.mkdir()
    refused(official, other, VoiceError, "is no voice", overwrite=True)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A model folder with encoders, CNHubert as wide as the small SoVITS wants it."""
    cnhubert = {**CNHUBERT, "hidden_size": 10, "num_conv_pos_embedding_groups": 2}
    folder = tmp_path / "models"
    write(folder / "encoders" / "cnhubert.safetensors", CNHubert, cnhubert, 1)
    write(folder / "encoders" / "roberta.safetensors", Roberta, ROBERTA, 2)
    return folder


def content(folder: Path) -> dict[str, Any]:
    """What all files hold; the order of metadata in a safetensors file is any."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    with safe_open(folder / "cache.safetensors", framework="np") as file:
        tensors = {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118
        return files | {"cache.safetensors": (file.metadata(), tensors)}


def test_python_and_the_command_make_the_same_voice(official: Path, models: Path, tmp_path: Path):
    soundfile.write(official / "more.wav", tone(1.0), RATE)
    recipe = VoiceRecipe(
        gpt=official / "x.ckpt",
        sovits=official / "x.pth",
        reference=official / "speech.wav",
        text="The quick brown fox.",
        language="en",
        auxiliary=[official / "more.wav"],
        name="fox",
        languages=["en", "auto"],
        licence="CC0",
        card="Recorded at home.",
        dtype="float16",
        bits=8,
        group_size=32,
    )
    made = convert_voice(recipe, models)
    assert made.voice.path == models / "voices" / "fox" and made.missing == ()
    assert made.voice.encoders == {
        name: file_sha256(models / "encoders" / f"{name}.safetensors") for name in ("cnhubert", "roberta")
    }
    python = content(made.voice.path)
    assert set(python) == FILES | {"auxiliary_0.wav", "cache.safetensors"}
    assert ConditioningCache(made.voice, made.voice.reference).load() is not None
    options = {
        "gpt": recipe.gpt,
        "sovits": recipe.sovits,
        "reference": recipe.reference,
        "text": recipe.text,
        "language": recipe.language,
        "auxiliary": official / "more.wav",
        "licence": recipe.licence,
        "card": recipe.card,
        "dtype": recipe.dtype,
        "bits": recipe.bits,
        "group-size": recipe.group_size,
        "model-dir": models,
    }
    command = ["convert", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
    command += ["--languages", "en", "auto"]
    assert main([*command, "--name", "fox"]) == 1  # it exists
    assert main([*command, "--name", "fox", "--overwrite"]) == 0
    assert content(models / "voices" / "fox") == python
    assert main([*command, "--output", str(tmp_path / "fox")]) == 0
    assert content(tmp_path / "fox") == python


def test_the_command_has_an_option_for_all_that_a_person_decides(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    shown = capsys.readouterr().out
    for name in set(VoiceRecipe.__dataclass_fields__) - {"defaults", "encoders"}:
        assert f"--{name.replace('_', '-')} " in shown


def test_a_reference_that_cannot_be_enrolled_leaves_nothing(official: Path, models: Path):
    before = sorted(models.rglob("*"))
    recipe = VoiceRecipe(official / "x.ckpt", official / "x.pth", official / "speech.wav", "…", "en", name="fox")
    with pytest.raises(TextError, match="nothing to speak"):
        convert_voice(recipe, models)
    assert [path for path in sorted(models.rglob("*")) if path != models / "voices"] == before


def test_encoders_that_are_not_installed_are_named(official: Path, models: Path):
    (models / "encoders" / "roberta.safetensors").unlink()
    recipe = VoiceRecipe(official / "x.ckpt", official / "x.pth", official / "speech.wav", "Yes, fox.", "en", name="f")
    made = convert_voice(recipe, models)
    assert made.missing == ("roberta",) and made.voice.encoders["roberta"] == "official"
    assert {path.name for path in made.voice.path.iterdir()} == FILES
    with pytest.raises(VoiceError, match="has no name"):
        convert_voice(VoiceRecipe(recipe.gpt, recipe.sovits, recipe.reference, "Yes.", "en"), models)
