"""The Core ML encoders behind the engine, on small models and through the interpreter: chosen, right, and refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coremltools as ct
import mlx.core as mx
import numpy as np
import pytest
from coremltools.proto import FeatureTypes_pb2

from gpt_sovits_mlx import GPTSoVITSEngine
from gpt_sovits_mlx.convert.coreml import convert_cnhubert_package, convert_roberta_package
from gpt_sovits_mlx.convert.coreml.interpreter import Interpreter
from gpt_sovits_mlx.encoders.characters import CharacterVocabulary
from gpt_sovits_mlx.encoders.coreml import (
    CoreMLCharacterEncoder,
    CoreMLProgram,
    CoreMLSpeechEncoder,
    embeddings_beside,
    package_beside,
    read_spec,
    runs_here,
)
from gpt_sovits_mlx.encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from gpt_sovits_mlx.errors import DependencyError, GPTSoVITSError, VoiceError, WeightsError
from gpt_sovits_mlx.models.cnhubert import CNHubert
from gpt_sovits_mlx.voices import loader
from gpt_sovits_mlx.voices.format import OFFICIAL, VoiceFolder
from gpt_sovits_mlx.voices.loader import VoiceLoader
from small_voice import CNHUBERT, make_model_folder, write

ARRAY: Any = FeatureTypes_pb2.ArrayFeatureType


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model folder with the packages of its small encoders."""
    folder = make_model_folder(tmp_path_factory.mktemp("models"))
    for name, convert in (("cnhubert", convert_cnhubert_package), ("roberta", convert_roberta_package)):
        weights = folder / "encoders" / f"{name}.safetensors"
        convert(weights, package_beside(weights))
    return folder


@pytest.fixture
def models(made, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(made, tmp_path / "models")


def packages(models: Path) -> tuple[Path, Path]:
    return models / "encoders/cnhubert_ane.mlpackage", models / "encoders/roberta_ane.mlpackage"


def test_both_encoders_equal_their_mlx_forms(made):
    speech, characters = packages(made)
    samples = np.random.default_rng(3).uniform(-0.3, 0.3, 70000).astype(np.float32)
    expected = np.array(MLXSpeechEncoder(made / "encoders/cnhubert.safetensors")(samples))
    features = np.array(CoreMLSpeechEncoder(speech, Interpreter)(samples))
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 0.03
    mlx = MLXCharacterEncoder(made / "encoders/roberta.safetensors")
    coreml = CoreMLCharacterEncoder(characters, Interpreter)
    assert coreml.lengths == [32, 64, 128]
    long = "去公园散步吧,龘" * 100
    assert [len(part) for part in coreml.vocabulary.parts(long)] == [119, 120, 120, 120, 120, 120, 81]
    for text in ("天", "今天天气很好", "今天天气很好" * 8, "去公园散步吧,龘" * 15, "一" * 127, long):
        assert coreml(text).shape == (len(text), 64)
        assert np.abs(np.array(coreml(text)) - np.array(mlx(text))).max() < 0.03


def test_written_out_normalisations_become_one_operation(made):
    """What is left written out is the masked one of CNHubert's first layer."""
    for package, norms, left in zip(packages(made), (2 + 2 * 1, 1 + 2 * 2), (1, 0), strict=True):
        for function in read_spec(package).mlProgram.functions.values():
            operations = [o.type for o in function.block_specializations[function.opset].operations]
            assert (operations.count("layer_norm"), operations.count("rsqrt")) == (norms, left)


def test_packages_are_made_for_macos_15_in_float16(made):
    for package in packages(made):
        spec = read_spec(package)
        assert spec.specificationVersion == ct.target.iOS18.value
        assert {function.opset for function in spec.mlProgram.functions.values()} == {"CoreML8"}
        for function in spec.description.functions:
            types = {item.type.multiArrayType.dataType for item in (*function.input, *function.output)}
            assert types == {ARRAY.FLOAT16}


def test_features_that_are_no_numbers_are_refused(made):
    for value in (np.nan, np.inf):

        def program(function: str, inputs: Mapping[str, np.ndarray], value: float = value) -> dict[str, np.ndarray]:
            features = np.zeros((1, 32, 1, inputs["key_mask"].shape[1]), np.float32)
            features[0, 3, 0, 5] = value
            return {"features": features}

        encoder = CoreMLSpeechEncoder(packages(made)[0], lambda _, program=program: program)
        with pytest.raises(WeightsError, match=r"makes numbers that are not finite: choose encoder_backend='mlx'"):
            encoder(np.zeros(16000, np.float32))
        # what padding makes is nobody's
        assert encoder(np.zeros(400 + 4 * 320, np.float32)).shape == (1, 5, 32)


def test_a_text_is_cut_behind_marks_where_there_are_some():
    vocabulary = CharacterVocabulary(["[UNK]", "[CLS]", "[SEP]", *"一二,"], 12)
    assert vocabulary.parts("") == [""]
    assert vocabulary.parts("一" * 10) == ["一" * 10]
    assert vocabulary.parts("一" * 11) == ["一" * 10, "一"]
    assert vocabulary.parts("一一一一一一一,二二二二二") == ["一一一一一一一,", "二二二二二"]
    # not where a mark would leave a crumb
    assert vocabulary.parts("一," + "二" * 12) == ["一," + "二" * 8, "二二二二"]
    assert vocabulary.ids("二三") == [1, 4, 0, 2]
    rows = vocabulary.encode("一二" * 9 + ",", lambda ids: mx.array(ids)[:, None])
    assert rows.tolist() == [[3], [4]] * 9 + [[5]]


def test_a_voice_is_the_same_on_either_back_end(models):
    folder = VoiceFolder.read(models / "voices/small")
    loaded = {}
    for backend in ("mlx", "coreml"):
        (models / "voices/small/cache.safetensors").unlink(missing_ok=True)
        loaded[backend] = VoiceLoader(models, None, None, backend, Interpreter).voice(folder, folder.reference)
    mlx, coreml = (loaded[backend].conditioning for backend in ("mlx", "coreml"))
    same = np.mean([a == b for a, b in zip(mlx.tokens, coreml.tokens, strict=True)])
    assert same >= 0.98
    assert np.abs(np.array(mlx.bert) - np.array(coreml.bert)).max() < 0.03


def test_auto_takes_core_ml_on_a_mac_where_a_package_lies(models, monkeypatch):
    folder = VoiceFolder.read(models / "voices/small")
    assert (
        isinstance(VoiceLoader(models, None, None, "auto").speech_encoder(folder), MLXSpeechEncoder) is not runs_here()
    )
    monkeypatch.setattr(loader, "runs_here", lambda: True)
    on_a_mac = VoiceLoader(models, None, None, "auto", Interpreter)
    assert isinstance(on_a_mac.speech_encoder(folder), CoreMLSpeechEncoder)
    shutil.rmtree(packages(models)[0])
    assert isinstance(VoiceLoader(models, None, None, "auto", Interpreter).speech_encoder(folder), MLXSpeechEncoder)
    mlx = VoiceLoader(models, None, None, "mlx", Interpreter)
    assert isinstance(mlx.speech_encoder(folder), MLXSpeechEncoder)


def test_a_package_of_other_weights_is_refused(models):
    file = models / "voices/small/voice.json"
    voice = json.loads(file.read_text(encoding="utf-8"))
    voice["encoders"]["cnhubert"] = "0" * 64
    file.write_text(json.dumps(voice), encoding="utf-8")
    folder = VoiceFolder.read(file.parent)
    with pytest.raises(VoiceError, match=r"made with another cnhubert .* make the package again"):
        VoiceLoader(models, None, None, "coreml", Interpreter).speech_encoder(folder)
    shutil.copytree(packages(models)[0], packages(models)[1], dirs_exist_ok=True)
    with pytest.raises(WeightsError, match="is not a Core ML package of roberta"):
        CoreMLCharacterEncoder(packages(models)[1], Interpreter)


def test_a_voice_for_the_published_encoder_takes_a_package_of_the_weights_beside_it(models):
    file = models / "voices/small/voice.json"
    voice = json.loads(file.read_text(encoding="utf-8"))
    voice["encoders"]["cnhubert"] = OFFICIAL
    file.write_text(json.dumps(voice), encoding="utf-8")
    folder = VoiceFolder.read(file.parent)
    coreml = VoiceLoader(models, None, None, "coreml", Interpreter)
    assert coreml.speech_encoder(folder) is coreml.speech_encoder(folder)
    write(models / "encoders/cnhubert.safetensors", CNHubert, CNHUBERT, 77)
    with pytest.raises(VoiceError, match=r"made with another cnhubert .* make the package again"):
        coreml.speech_encoder(folder)
    # without the weights there is nothing to compare it with
    (models / "encoders/cnhubert.safetensors").unlink()
    assert isinstance(coreml.speech_encoder(folder), CoreMLSpeechEncoder)


def test_missing_and_damaged_parts_are_named(models):
    speech, characters = packages(models)
    tables = embeddings_beside(characters)
    with pytest.raises(DependencyError, match=r"absent\.mlpackage is missing: make it with scripts/convert_cnhubert_c"):
        CoreMLSpeechEncoder(models / "absent.mlpackage", Interpreter)
    (speech / "Data/com.apple.CoreML/model.mlmodel").write_bytes(b"\xff" * 100)
    with pytest.raises(WeightsError, match="no sound Core ML package"):
        CoreMLSpeechEncoder(speech, Interpreter)
    tables.write_bytes(tables.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cannot read .*embeddings\.safetensors .*make both again"):
        CoreMLCharacterEncoder(characters, Interpreter)
    tables.unlink()
    with pytest.raises(WeightsError, match=r"cannot read .*embeddings\.safetensors .*make both again"):
        CoreMLCharacterEncoder(characters, Interpreter)


def test_core_ml_needs_a_mac_and_coremltools(made, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(DependencyError, match="needs a Mac with macOS 15 or later: choose encoder_backend='mlx'"):
        CoreMLSpeechEncoder(packages(made)[0], CoreMLProgram)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "coremltools" else find(name))
    with pytest.raises(DependencyError, match=r"needs coremltools, which is missing: pip install"):
        CoreMLSpeechEncoder(packages(made)[0], Interpreter)


def test_the_engine_knows_its_back_ends(tmp_path):
    for backend in ("auto", "mlx", "coreml"):
        GPTSoVITSEngine(tmp_path, encoder_backend=backend)
    with pytest.raises(GPTSoVITSError, match="choose one of auto, mlx, coreml"):
        GPTSoVITSEngine(tmp_path, encoder_backend="ane")
