"""GPTs of random weights, in any type."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from gpt_sovits_mlx.models.model import shapes_of
from gpt_sovits_mlx.models.t2s import T2SConfig, TextToSemantic
from gpt_sovits_mlx.quantization import Quantization
from gpt_sovits_mlx.weights import model_of, prepare_to_speak, quantize

OFFICIAL = {"hidden_dim": 512, "n_layer": 24, "head": 16}
SHALLOW = {**OFFICIAL, "n_layer": 4}
SMALL = {"hidden_dim": 256, "n_layer": 3, "head": 8}
ODD = {"hidden_dim": 192, "n_layer": 5, "head": 3}


def tensors(sizes: dict[str, int]) -> tuple[T2SConfig, dict[str, np.ndarray]]:
    config = T2SConfig(
        **sizes,
        vocab_size=1025,
        phoneme_vocab_size=732,
        EOS=1024,
        linear_units=4 * sizes["hidden_dim"],
        bert_dim=1024,
    )
    random = np.random.default_rng(7)
    made = {}
    for name, shape in shapes_of(TextToSemantic, vars(config)).items():
        scale = 0.3 if len(shape) == 1 else 1.5 * shape[-1] ** -0.5
        made[name] = (scale * random.standard_normal(shape, np.float32)).astype(np.float16).astype(np.float32)
        if "norm" in name and name.endswith("weight"):
            made[name] += 1
        if name.endswith("alpha"):
            made[name][:] = 1
    return config, made


def models(sizes: dict[str, int], dtype: mx.Dtype, bits: int = 0) -> tuple[TextToSemantic, TextToSemantic]:
    """The model in `dtype`, and in float32 with the very same numbers."""
    return model(sizes, dtype, dtype, bits), model(sizes, dtype, mx.float32, bits)


def model(sizes: dict[str, int], stored: mx.Dtype, dtype: mx.Dtype, bits: int = 0) -> TextToSemantic:
    """A model ready to speak in `dtype`, whose numbers `stored` can hold."""
    config, made = tensors(sizes)
    arrays = {name: mx.array(value) for name, value in made.items()}
    built = model_of(TextToSemantic, vars(config), arrays, "test")
    if bits:
        quantize(built, Quantization(bits, 64))
    # all that is not packed, in numbers of the type
    prepare_to_speak(built, stored, keep_weights=True)
    prepare_to_speak(built, dtype)
    return built
