"""Models as MLX users know them: what is loaded is saved again, adapters train, and their merge is heard."""

from __future__ import annotations

import dataclasses
import gc
import json
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import numpy as np
import pytest
from safetensors.numpy import load_file

from gpt_sovits_mlx import tuning
from gpt_sovits_mlx.convert import Quantization, convert_gpt, convert_sovits
from gpt_sovits_mlx.decoding.cuda_step import CudaStep, kernel_rows
from gpt_sovits_mlx.decoding.forms import step_of
from gpt_sovits_mlx.decoding.numpy_step import NumpyStep, numpy_rows
from gpt_sovits_mlx.decoding.plain import FoldedStep
from gpt_sovits_mlx.decoding.sampling import MIN_TOKENS
from gpt_sovits_mlx.decoding.state import prefill
from gpt_sovits_mlx.kernels.decode_steps import Draw
from gpt_sovits_mlx.layers.derived import arrays_of
from gpt_sovits_mlx.models.cnhubert import CNHubert
from gpt_sovits_mlx.models.model import Model, parameters_of
from gpt_sovits_mlx.models.roberta import Roberta
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.weights import load_model, load_stored, prepare_to_speak, quantize, read_config, save_model
from small_voice import CNHUBERT, ROBERTA, SOVITS_CONFIG, write

Make = Callable[[Callable[..., Path], Path], Path]


def converted_gpt(quantization: Quantization | None = None, dtype: str | None = None) -> Make:
    return lambda checkpoint, folder: (
        convert_gpt(checkpoint("gpt_tiny", 1), folder / "gpt.safetensors", dtype, quantization=quantization).weights
    )


def small(kind: type[Model], config: dict[str, Any], name: str) -> Make:
    def make(_: Callable[..., Path], folder: Path) -> Path:
        write(folder / f"{name}.safetensors", kind, config, 3)
        return folder / f"{name}.safetensors"

    return make


def quantized_roberta(checkpoint: Callable[..., Path], folder: Path) -> Path:
    path = small(Roberta, ROBERTA, "roberta")(checkpoint, folder)
    model, how = load_stored(Roberta, path), Quantization(8, 32)
    quantize(model, how)
    save_model(model, path, read_config(path) | {"quantization": dataclasses.asdict(how)})
    return path


FILES: dict[str, tuple[Any, Make]] = {
    "GPT": (TextToSemantic, converted_gpt()),
    "GPT in float16": (TextToSemantic, converted_gpt(dtype="float16")),
    "GPT in 8 bits": (TextToSemantic, converted_gpt(Quantization(8))),
    "GPT in 4 bits": (TextToSemantic, converted_gpt(Quantization(4, 32))),
    "SoVITS v1": (
        SoVITS,
        lambda checkpoint, folder: convert_sovits(checkpoint("sovits_v1", 3), folder / "sovits.safetensors").weights,
    ),
    "SoVITS v2": (SoVITS, small(SoVITS, SOVITS_CONFIG, "sovits")),
    "CNHubert": (CNHubert, small(CNHubert, CNHUBERT, "cnhubert")),
    "RoBERTa": (Roberta, small(Roberta, ROBERTA, "roberta")),
    "RoBERTa in 8 bits": (Roberta, quantized_roberta),
}
SIZES = ("linear_units", "bert_dim", "max_sec", "phonemes", "codes", "ssl_channels", "style_bins", "style_channels")
"""What earlier converters did not state, or not always."""


@pytest.mark.parametrize("name", FILES)
def test_what_is_loaded_is_saved_again(name, checkpoint, tmp_path):
    """Names, shapes, types and bits."""
    kind, make = FILES[name]
    path, again = make(checkpoint, tmp_path / "before"), tmp_path / "after" / "again.safetensors"
    model = load_stored(kind, path)
    save_model(model, again, read_config(path))
    before, after = load_file(path), load_file(again)
    assert before.keys() == after.keys()
    for tensor, values in before.items():
        assert after[tensor].dtype == values.dtype and np.array_equal(after[tensor], values), tensor
    assert json.loads(again.with_name("again_config.json").read_text()) == read_config(path)
    assert parameters_of(load_model(kind, again)).keys() <= parameters_of(model).keys()


@pytest.mark.parametrize("name", ["GPT", "GPT in 4 bits", "SoVITS v2"])
def test_files_of_earlier_converters_load(name, checkpoint, tmp_path):
    """Their configurations do not state the sizes that only the tensors have."""
    kind, make = FILES[name]
    path = make(checkpoint, tmp_path)
    expected = load_stored(kind, path).config
    file = path.with_name(f"{path.stem}_config.json")
    config = json.loads(file.read_text())
    for section in (config, config.get("model", {})):
        for size in SIZES:
            section.pop(size, None)
    file.write_text(json.dumps(config))
    assert load_stored(kind, path).config == expected


@pytest.mark.parametrize("back_end", ["cpu", "metal", "cuda"])
@pytest.mark.parametrize("name", ["GPT", "SoVITS v2", "CNHubert"])
def test_a_model_that_only_speaks_holds_each_number_once(name, back_end, checkpoint, tmp_path, monkeypatch):
    kind, make = FILES[name]
    path = make(checkpoint, tmp_path)
    monkeypatch.setattr(tuning, "backend", lambda: back_end)
    numbers = sum(values.size for values in load_file(path).values())
    held = sum({id(array): array.size for array in arrays_of(load_model(kind, path))}.values())
    # kernels are padded to whole strides where products are made of them
    assert numbers <= held <= 1.15 * numbers


class LoRALinear(nn.Module):
    """x Wᵀ + b + scale · x A B (Hu et al. 2021); it is what a training loop would put in the place of a layer."""

    def __init__(self, linear: nn.Linear, rank: int = 4, scale: float = 2.0):
        super().__init__()
        rows, columns = linear.weight.shape
        self.linear, self.scale = linear, scale
        self.lora_a = mx.random.normal((columns, rank), scale=columns**-0.5, key=mx.random.key(1))
        self.lora_b = mx.zeros((rank, rows))

    def __call__(self, x: mx.array) -> mx.array:
        return self.linear(x) + self.scale * (x @ self.lora_a @ self.lora_b)

    def merged(self) -> nn.Linear:
        self.linear.weight = self.linear.weight + self.scale * (self.lora_a @ self.lora_b).T
        return self.linear


@pytest.fixture(scope="module")
def path(checkpoint, tmp_path_factory) -> Path:
    return converted_gpt(dtype="float32")(checkpoint, tmp_path_factory.mktemp("gpt"))


def text(model: TextToSemantic) -> tuple[mx.array, mx.array, mx.array]:
    """Phones (2, 12), BERT features and tokens (2, 20) to learn by heart."""
    random = np.random.default_rng(2)
    phones = random.integers(0, model.config.phoneme_vocab_size, (2, 12))
    bert = random.standard_normal((2, 12, model.config.bert_dim)).astype(np.float32)
    return mx.array(phones), mx.array(bert), mx.array(random.integers(0, model.config.EOS, (2, 20)))


def places(model: TextToSemantic) -> Sequence[tuple[nn.Module, str]]:
    """Where adapters stand: the holder of a layer, and its name there."""
    of_attention: list[tuple[nn.Module, str]] = [(layer.self_attn, "in_proj") for layer in model.h.layers]
    return of_attention + [(layer, name) for layer in model.h.layers for name in ("linear1", "linear2")]


def trained(path: Path) -> tuple[TextToSemantic, list[float]]:
    """A GPT with adapters on all layers, and its loss over ten steps."""
    model = load_model(TextToSemantic, path, mx.float32)
    phones, bert, tokens = text(model)
    model.freeze()
    for holder, name in places(model):
        adapter = LoRALinear(getattr(holder, name))
        setattr(holder, name, adapter)
        adapter.unfreeze(recurse=False)

    def loss(model: TextToSemantic) -> mx.array:
        return nn.losses.cross_entropy(model(phones, bert, tokens[:, :-1]), tokens[:, 1:], reduction="mean")

    step, optimizer = nn.value_and_grad(model, loss), optimizers.Adam(learning_rate=3e-3)
    losses = []
    for _ in range(10):
        value, gradients = step(model)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(value.item())
    return model, losses


def said(model: TextToSemantic) -> dict[str, np.ndarray]:
    """Logits (vocab,) of the second token, as each form of the decode step has them."""
    phones, bert, tokens = (array[:1] for array in text(model))
    first = np.array([7])

    def read() -> Any:
        return prefill(model, phones, bert, tokens)

    logits, state = read()
    positions = state.positions
    found = {"plain": model.step(mx.array(first), positions, state.advance(), state.caches)}
    if folded := FoldedStep.of(model):
        logits, state = read()
        positions = state.positions
        found["folded"] = folded(mx.array(first), positions, state.advance(), state.caches)
    step = step_of(model)
    if isinstance(step, NumpyStep):
        found["numpy"] = step(first, numpy_rows(read()[1], [phones.shape[1]], [tokens.shape[1]]))
    if isinstance(step, CudaStep):
        logits, state = read()
        rows = kernel_rows(state, [phones.shape[1]], [tokens.shape[1]])
        forced = mx.where(mx.arange(logits.shape[1]) == 7, 100.0, logits)
        seen, draw = mx.zeros((1, -(-logits.shape[1] // 32)), mx.uint32), Draw(1, 1.0, 1.0, 1.0)
        found["cuda"] = step.kernel.steps(rows, forced, seen, [None], [0], step.positions(100), [draw], MIN_TOKENS, 1)[
            1
        ]
    return {form: np.array(logits)[0] for form, logits in found.items()}


def test_an_adapter_trains_and_every_form_of_the_decode_step_hears_its_merge(path, tmp_path):
    model, losses = trained(path)
    assert losses[-1] < 0.9 * losses[0] and all(np.isfinite(losses))
    adapted = said(model)
    assert adapted.keys() == {"plain"}  # no other form knows adapters, and none takes what stands behind them
    before = said(load_model(TextToSemantic, path, mx.float32))
    for holder, name in places(model):
        setattr(holder, name, getattr(holder, name).merged())
    merged = said(model)
    assert merged.keys() == before.keys() and len(merged) >= 3
    for form, logits in merged.items():
        assert np.abs(logits - adapted["plain"]).max() < 1e-3, form
        assert np.abs(logits - before[form]).max() > 0.05, form
    save_model(model, tmp_path / "gpt.safetensors", read_config(path))
    assert (
        np.abs(said(load_model(TextToSemantic, tmp_path / "gpt.safetensors"))["plain"] - merged["plain"]).max() < 1e-5
    )


def test_steps_are_made_again_only_where_a_weight_has_changed(path):
    model = load_model(TextToSemantic, path, mx.float32)
    first = step_of(model)
    assert step_of(model) is first
    layer = model.h.layers[-1]
    layer.norm2.bias = layer.norm2.bias + 1
    assert step_of(model) is not first


def test_convolutions_follow_their_weights(checkpoint, tmp_path):
    """What a layer makes of its parameters is made again, and where those were let go they are not missed."""
    kind, make = FILES["SoVITS v2"]
    model = load_stored(kind, make(checkpoint, tmp_path))
    prepare_to_speak(model, mx.float32, keep_weights=True)
    z, style = mx.random.normal((1, 9, model.latent_width), key=mx.random.key(1)), mx.ones((1, 1, 32))
    before = np.array(model.vocode(z, style))
    for convolution in (model.dec.resblocks[4].convs1[0], model.dec.ups[2], model.flow.flows[0].enc.in_layers[1]):
        kept = convolution.weight
        convolution.weight = 2 * kept
        assert np.abs(np.array(model.vocode(z, style)) - before).max() > 1e-6
        convolution.weight = kept
        assert np.array_equal(np.array(model.vocode(z, style)), before)
    prepare_to_speak(model)
    assert np.array_equal(np.array(model.vocode(z, style)), before)


def test_a_model_that_nobody_holds_is_gone_at_once(checkpoint, tmp_path):
    """Without a collection of garbage, for which a few large objects give no cause."""
    models = [
        load_model(FILES[name][0], FILES[name][1](checkpoint, tmp_path)) for name in ("GPT", "SoVITS v2", "CNHubert")
    ]
    step_of(models[0])
    models[1].vocode(mx.zeros((1, 9, models[1].latent_width)), mx.zeros((1, 1, 32)))
    alive = [weakref.ref(model) for model in models]
    gc.disable()
    try:
        del models
        assert not any(model() for model in alive)
    finally:
        gc.enable()
