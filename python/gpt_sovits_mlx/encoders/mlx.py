"""The encoders on MLX."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np

from ..errors import DependencyError, WeightsError
from ..files import file_sha256
from ..models.cnhubert import CNHubert
from ..models.roberta import Roberta
from ..weights import load_model
from .characters import CharacterVocabulary


class _Encoder:
    """Finds an encoder's weights and hashes them."""

    command: str

    def __init__(self, path: Path):
        if not path.is_file():
            raise DependencyError(
                f"{path} is missing: make it with gpt-sovits-mlx encoders --fetch, or from a folder that you"
                f" have with scripts/{self.command} --input FOLDER --output {path}"
            )
        self.sha256 = file_sha256(path)


class MLXSpeechEncoder(_Encoder):
    """CNHubert on MLX, from `cnhubert.safetensors` and the configuration beside it.

    Raises:
        DependencyError: the weights are missing.
        WeightsError: they are damaged or of another model.
    """

    command = "convert_cnhubert_weights.py"

    def __init__(self, path: Path, dtype: mx.Dtype | None = None):
        super().__init__(path)
        self.model = load_model(CNHubert, path, dtype)

    def __call__(self, samples: np.ndarray) -> mx.array:
        features = self.model(mx.array(samples.astype(np.float32))[None])
        mx.eval(features)
        return features


class MLXCharacterEncoder(_Encoder):
    """RoBERTa on MLX, from `roberta.safetensors`, its configuration and `roberta_vocab.txt` beside it.

    Raises:
        DependencyError: the weights are missing.
        WeightsError: they are damaged or of another model.
    """

    command = "convert_roberta_weights.py"

    def __init__(self, path: Path, dtype: mx.Dtype | None = None):
        super().__init__(path)
        self.model = load_model(Roberta, path, dtype)
        vocabulary = path.with_name(f"{path.stem}_vocab.txt")
        if not vocabulary.is_file():
            raise WeightsError(f"no {vocabulary.name} beside {path}: convert the encoder again")
        tokens = vocabulary.read_text(encoding="utf-8").split("\n")
        self.vocabulary = CharacterVocabulary(tokens, self.model.max_tokens)

    def __call__(self, norm_text: str) -> mx.array:
        return self.vocabulary.encode(norm_text, lambda ids: self.model(mx.array([ids]))[0])
