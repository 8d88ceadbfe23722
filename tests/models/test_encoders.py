"""CNHubert and RoBERTa against the reference, within 1e-4 beyond the rounding of what is stored as float16."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.convert import convert_cnhubert, convert_roberta
from gpt_sovits_mlx.encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from gpt_sovits_mlx.errors import DependencyError
from gpt_sovits_mlx.voices.enrolment import APPENDED_SILENCE


def excess(ours: mx.array, stored: np.ndarray) -> float:
    """Largest difference beyond half a unit in the last place of `stored`'s type."""
    difference = np.abs(np.array(ours) - stored.astype(np.float32))
    rounding = np.spacing(np.abs(stored)).astype(np.float32) / 2 if stored.dtype == np.float16 else 0
    return float((difference - rounding).max())


def test_cnhubert_equals_the_reference(checkpoint, golden, tmp_path):
    path = convert_cnhubert(checkpoint("hubert", 1), tmp_path / "cnhubert.safetensors").weights
    data = golden("hubert")
    samples = np.concatenate([data["pcm16k"].astype(np.float32) / 32768, np.zeros(APPENDED_SILENCE, np.float32)])
    features = MLXSpeechEncoder(path, mx.float32)(samples)
    assert features.shape == data["last_hidden_state"].shape
    assert excess(features, data["last_hidden_state"]) < 1e-4


def test_roberta_equals_the_reference(checkpoint, golden, tmp_path):
    folder = checkpoint("roberta", 1)
    path = convert_roberta(folder, tmp_path / "roberta.safetensors").weights
    encoder = MLXCharacterEncoder(path, mx.float32)
    for name in ("roberta_7", "roberta_30"):
        data = golden(name)
        features = encoder.model(mx.array(data["input_ids"].reshape(1, -1)))
        assert excess(features, data["hidden_m3"].reshape(features.shape)) < 1e-4
    assert encoder("三一二,").shape == (4, 1024)
    # one row a character, whatever stands around it; unknown characters share one token
    ids = [encoder.vocabulary.by_token[c] for c in ("[CLS]", "三", "[UNK]", "[SEP]")]
    assert mx.allclose(encoder("三☃"), encoder.model(mx.array([ids]))[0, 1:-1], atol=1e-5)


def test_a_missing_encoder_says_what_mends_it(tmp_path):
    with pytest.raises(DependencyError, match=r"cnhubert\.safetensors is missing: make it with"):
        MLXSpeechEncoder(tmp_path / "cnhubert.safetensors")
