"""The Core ML packages at real size: equal to the reference in float32 at every length, close to it in float16.

The reference is the MLX encoder, which `tests/models/test_encoders.py` holds to the reference's own outputs, and
these outputs themselves in the functions that hold them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

from gpt_sovits_mlx.convert import convert_cnhubert, convert_roberta
from gpt_sovits_mlx.convert.coreml import convert_cnhubert_package, convert_roberta_package
from gpt_sovits_mlx.convert.coreml.cnhubert import CNHubertNetwork
from gpt_sovits_mlx.convert.coreml.interpreter import Interpreter
from gpt_sovits_mlx.convert.coreml.package import Network, convert_function
from gpt_sovits_mlx.convert.coreml.roberta import RobertaNetwork
from gpt_sovits_mlx.convert.coreml.suitability import unsuitable
from gpt_sovits_mlx.encoders.buckets import (
    AUDIO_BUCKETS,
    TEXT_BUCKETS,
    AudioBucket,
    TextBucket,
    audio_bucket,
    audio_inputs,
    text_bucket,
)
from gpt_sovits_mlx.encoders.coreml import CoreMLCharacterEncoder, CoreMLSpeechEncoder, read_metadata
from gpt_sovits_mlx.encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from gpt_sovits_mlx.errors import AudioError
from gpt_sovits_mlx.verify.models import excess
from gpt_sovits_mlx.weights import read_config

EXACT = 1e-4
SIMILAR = 0.9999


class Case:
    """An encoder at real size, brought in by the package's own converters."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.weights = folder / "weights.safetensors"
        self.package = folder / "x_ane.mlpackage"


def worst(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Largest difference, and smallest cosine between the rows of two (T, width) features."""
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.abs(ours - theirs).max()), float(((ours * theirs).sum(1) / lengths).min())


def edges(buckets: tuple[TextBucket, ...] | tuple[AudioBucket, ...]) -> dict[int, list[int]]:
    """For each bucket the lengths that it must serve: just over the one below, one under its own, its own."""
    lengths = [bucket.length for bucket in buckets]
    over = [lengths[0] - 2, *(n + 1 for n in lengths[:-1])]
    return {n: [low, n - 1, n] for low, n in zip(over, lengths, strict=True)}


@pytest.fixture(scope="module")
def roberta(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("roberta"))
    convert_roberta(checkpoint("roberta", 1), case.weights)
    convert_roberta_package(case.weights, case.package)
    return case


@pytest.fixture(scope="module")
def cnhubert(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Case:
    case = Case(tmp_path_factory.mktemp("cnhubert"))
    convert_cnhubert(checkpoint("hubert", 1), case.weights)
    convert_cnhubert_package(case.weights, case.package)
    return case


@pytest.fixture(scope="module")
def roberta_network(roberta: Case) -> RobertaNetwork:
    return RobertaNetwork(load_file(roberta.weights), read_config(roberta.weights))


@pytest.fixture(scope="module")
def cnhubert_network(cnhubert: Case) -> CNHubertNetwork:
    return CNHubertNetwork(load_file(cnhubert.weights), read_config(cnhubert.weights))


@pytest.fixture(scope="module")
def texts(roberta: Case) -> dict[int, tuple[list[int], np.ndarray]]:
    """Length → token ids and their features on MLX."""
    random = np.random.default_rng(7)
    encoder = MLXCharacterEncoder(roberta.weights)
    found = {}
    for length in {n for lengths in edges(TEXT_BUCKETS).values() for n in lengths}:
        ids = [101, *random.integers(670, 7000, length - 2).tolist(), 102]
        found[length] = ids, np.array(encoder.model(mx.array([ids]))[0])
    return found


@pytest.fixture(scope="module")
def recordings(cnhubert: Case, golden: Callable) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Samples → a recording with silence behind it, and its features on MLX."""
    encoder = MLXSpeechEncoder(cnhubert.weights)
    found = {}
    for length in {n for lengths in edges(AUDIO_BUCKETS).values() for n in lengths}:
        samples = recording(golden, length)
        found[length] = samples, np.array(encoder(samples)[0])
    return found


def recording(golden: Callable, length: int) -> np.ndarray:
    """The golden recording, again and again, 0.6 s of silence behind it."""
    spoken = golden("hubert")["pcm16k"].astype(np.float32) / 32768
    return np.concatenate([np.resize(spoken, length - 9600), np.zeros(9600, np.float32)])


def float32_twin(network: Network, bucket: TextBucket | AudioBucket, folder: Path) -> Interpreter:
    """The function of one length with nothing rounded."""
    path = folder / "twin.mlpackage"
    convert_function(network, bucket, path, "float32")
    return Interpreter(path, rounded=False)


@pytest.mark.parametrize("bucket", TEXT_BUCKETS, ids=lambda b: b.function)
def test_roberta_float32_twin_equals_the_reference(bucket, roberta, roberta_network, texts, golden, tmp_path):
    twin = float32_twin(roberta_network, bucket, tmp_path)
    tables = CoreMLCharacterEncoder(roberta.package, Interpreter)
    for length in edges(TEXT_BUCKETS)[bucket.length]:
        ids, expected = texts[length]
        assert text_bucket(length) == bucket
        made = twin("main", tables.inputs(ids, bucket))["features"]
        assert worst(made[0, :, 0, :length].T, expected)[0] < EXACT, length
    for data in map(golden, ("roberta_7", "roberta_30")):
        ids, expected = data["input_ids"].reshape(-1).tolist(), data["hidden_m3"]
        if text_bucket(len(ids)) == bucket:
            made = twin("main", tables.inputs(ids, bucket))["features"]
            assert excess(made[0, :, 0, : len(ids)].T, expected.reshape(len(ids), -1)) < EXACT
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("bucket", AUDIO_BUCKETS, ids=lambda b: b.function)
def test_cnhubert_float32_twin_equals_the_reference(bucket, cnhubert_network, recordings, golden, tmp_path):
    twin = float32_twin(cnhubert_network, bucket, tmp_path)
    for length in edges(AUDIO_BUCKETS)[bucket.length]:
        samples, expected = recordings[length]
        assert audio_bucket(length) == bucket
        inputs, frames = audio_inputs(samples, bucket)
        assert frames == len(expected)
        made = twin("main", inputs)["features"]
        assert worst(made[0, :, 0, :frames].T, expected)[0] < EXACT, length
    data = golden("hubert")
    samples = np.concatenate([data["pcm16k"].astype(np.float32) / 32768, np.zeros(9600, np.float32)])
    if audio_bucket(len(samples)) == bucket:
        inputs, frames = audio_inputs(samples, bucket)
        made = twin("main", inputs)["features"]
        assert excess(made[0, :, 0, :frames].T, data["last_hidden_state"][0]) < EXACT
    shutil.rmtree(tmp_path)


def test_roberta_in_float16_is_close(roberta, texts, record_property):
    encoder = CoreMLCharacterEncoder(roberta.package, Interpreter)
    for bucket, lengths in edges(TEXT_BUCKETS).items():
        for length in lengths[::2]:
            ids, expected = texts[length]
            difference, cosine = worst(np.array(encoder.features(ids, text_bucket(length))), expected)
            record_property(f"difference at {length} tokens", f"{difference:.2e}")
            print(f"RoBERTa, {length} tokens in {bucket}: difference {difference:.2e}, cosine {cosine:.6f}")
            assert cosine > SIMILAR


def test_cnhubert_in_float16_is_close(cnhubert, recordings, record_property):
    encoder = CoreMLSpeechEncoder(cnhubert.package, Interpreter)
    for bucket, lengths in edges(AUDIO_BUCKETS).items():
        for length in lengths[::2]:
            samples, expected = recordings[length]
            difference, cosine = worst(np.array(encoder(samples)[0]), expected)
            record_property(f"difference at {length} samples", f"{difference:.2e}")
            print(f"CNHubert, {length} samples in {bucket}: difference {difference:.2e}, cosine {cosine:.6f}")
            assert cosine > SIMILAR


@pytest.mark.parametrize("peak", [0.005, 1.0])
@pytest.mark.parametrize("flushed", [False, True])
def test_cnhubert_hears_quiet_and_loud(peak, flushed, cnhubert, golden):
    samples = recording(golden, AUDIO_BUCKETS[0].length - 777)
    samples *= peak / np.abs(samples).max()
    program = Interpreter(cnhubert.package, flushed=flushed)
    features = np.array(CoreMLSpeechEncoder(cnhubert.package, lambda _: program)(samples)[0])
    difference, cosine = worst(features, np.array(MLXSpeechEncoder(cnhubert.weights)(samples)[0]))
    print(f"peak {peak}, flushed {flushed}: difference {difference:.2e}, cosine {cosine:.6f}")
    assert cosine > SIMILAR
    # the masks' -1e4 is the largest number there is
    assert program.largest < 11000


@pytest.mark.parametrize("name", ["roberta", "cnhubert"])
def test_packages_suit_the_neural_engine(name, request):
    case = request.getfixturevalue(name)
    assert unsuitable(case.package) == []
    lengths = {"roberta": TEXT_BUCKETS, "cnhubert": AUDIO_BUCKETS}[name]
    assert set(Interpreter(case.package).functions) == {bucket.function for bucket in lengths}
    # one set of weights: little more than two bytes a number
    size = sum(file.stat().st_size for file in case.package.rglob("*") if file.is_file())
    assert size < {"roberta": 620e6, "cnhubert": 210e6}[name]
    metadata = read_metadata(case.package)
    assert metadata["model"] == name and len(metadata["weights_sha256"]) == 64
    assert {"torch", "coremltools", "numpy", "gpt-sovits-mlx"} <= metadata.keys()


def test_a_recording_that_is_too_long_is_refused(cnhubert):
    speech = CoreMLSpeechEncoder(cnhubert.package, Interpreter)
    with pytest.raises(AudioError, match=r"too long for CNHubert on Core ML, which hears 0\.03 to 10\.6 s"):
        speech(np.zeros(AUDIO_BUCKETS[-1].length + 1, np.float32))
