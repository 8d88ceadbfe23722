"""The GPT against the reference's outputs: tokens identical, logits within 1e-4, on real and tiny sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

from gpt_sovits_mlx.convert import convert_gpt
from gpt_sovits_mlx.decoding.cache import KVCache
from gpt_sovits_mlx.decoding.decoder import DecodeRequest
from gpt_sovits_mlx.decoding.generation import decode_steps, generate
from gpt_sovits_mlx.decoding.plain import PlainDecoder
from gpt_sovits_mlx.decoding.sampling import NoiseStream
from gpt_sovits_mlx.decoding.state import prefill
from gpt_sovits_mlx.errors import WeightsError
from gpt_sovits_mlx.models.t2s import TABLE_POSITIONS, TextToSemantic
from gpt_sovits_mlx.settings import Sampling
from gpt_sovits_mlx.weights import load_model, model_of, read_config

FILES = sorted(path.stem for path in (Path(__file__).parent.parent / "golden").glob("gpt_*.npz"))


class RecordedNoise:
    """The reference's exponential variates."""

    BLOCK = 64

    def __init__(self, steps: np.ndarray):
        self.steps = np.maximum(steps, 1e-10)  # the column that the first 11 steps do not use is stored as 0

    def block(self, number: int, width: int) -> mx.array:
        noise = np.ones((self.BLOCK, width), np.float32)
        part = self.steps[number * self.BLOCK : (number + 1) * self.BLOCK]
        noise[: len(part)] = part
        return mx.array(noise)


@pytest.fixture(scope="module")
def load_gpt(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt")
    models: dict[str, TextToSemantic] = {}

    def load(name: str) -> TextToSemantic:
        if name not in models:
            path = convert_gpt(checkpoint(name, 1), folder / f"{name}.safetensors").weights
            models[name] = load_model(TextToSemantic, path, mx.float32)
        return models[name]

    return load


def settings(data: dict[str, np.ndarray]) -> Sampling:
    # early_stop_num is tested after a token was added, with >: it allows one token more
    limit = int(data["early_stop_num"]) + 1 or Sampling.max_tokens
    if "exp_noise" not in data:
        return Sampling(top_k=1, max_tokens=limit)
    return Sampling(
        int(data["top_k"]), float(data["top_p"]), float(data["temperature"]), float(data["repetition_penalty"]), limit
    )


def inputs(data: dict[str, np.ndarray]) -> tuple[mx.array, mx.array, mx.array]:
    bert = mx.array(data["bert"].astype(np.float32)).swapaxes(1, 2)
    return mx.array(data["phones"].astype(np.int32)), bert, mx.array(data["prompt"].astype(np.int32).reshape(1, -1))


@pytest.mark.parametrize("name", FILES)
def test_tokens_equal_the_references(name, golden, load_gpt):
    data = golden(name)
    model = load_gpt(name.rsplit("_", 2)[0])
    _, bert, _ = inputs(data)
    noise = RecordedNoise(data["exp_noise"]) if "exp_noise" in data else NoiseStream(0, 0)
    start = data["prompt"].reshape(-1).tolist()
    request = DecodeRequest(data["phones"][0].tolist(), start, noise, settings(data), bert[0])
    result = generate(model, [request])[0]
    assert start + result.tokens == data["tokens"][0].tolist()


@pytest.mark.parametrize("name", [name for name in FILES if "greedy" in name])
def test_logits_equal_the_references(name, golden, load_gpt):
    data = golden(name)
    model = load_gpt(name.rsplit("_", 2)[0])
    phones, bert, prompt = inputs(data)
    logits, _ = prefill(model, phones, bert, prompt)
    assert np.abs(np.array(logits) - data["step0_logits"]).max() < 1e-4
    # teacher-forced over the whole sequence: prefill up to the last eight tokens, then step by step
    tokens = data["tokens"].astype(np.int32)
    logits, state = prefill(model, phones, bert, mx.array(tokens[:, :-7]))
    steps = [logits]
    for i in range(7, 0, -1):
        positions = state.positions
        steps.append(model.step(mx.array(tokens[:, -i]), positions, state.advance(), state.caches))
    whole = np.array(model(phones, bert, mx.array(tokens)))[0, -8:]
    assert np.abs(whole - np.stack([np.array(s[0]) for s in steps])).max() < 1e-4
    expected = data["forced_logits_last8"]
    assert np.abs(np.stack([np.array(s[0]) for s in steps]) - expected.reshape(8, -1)).max() < 1e-4


def test_float16_weights_stay_close(golden, checkpoint, tmp_path, monkeypatch):
    data = golden("gpt_v2_greedy_0")
    path = convert_gpt(checkpoint("gpt_v2", 1), tmp_path / "gpt.safetensors").weights
    monkeypatch.setattr("gpt_sovits_mlx.weights.backend", lambda: "metal")  # a CPU would compute in float32
    model = load_model(TextToSemantic, path, mx.float16)
    logits, _ = prefill(model, *inputs(data))
    scale = np.abs(data["step0_logits"]).max()
    assert logits.dtype == mx.float32 and model.h.layers[0].linear1.weight.dtype == mx.float16
    assert np.abs(np.array(logits) - data["step0_logits"]).max() < 0.02 * scale


def requests(
    model: TextToSemantic, seed: int, lengths: list[int], prompt: int, sampling: Sampling | None = None
) -> list[DecodeRequest]:
    random = np.random.RandomState(seed)
    config = model.config
    tokens = random.randint(0, config.EOS, prompt).tolist()
    phones = [random.randint(0, config.phoneme_vocab_size, n).tolist() for n in lengths]
    return [DecodeRequest(row, tokens, NoiseStream(seed, i), sampling or Sampling()) for i, row in enumerate(phones)]


@pytest.fixture(params=["usual", "plain"])
def form(request, monkeypatch):
    """The form that is usual here, and that which Metal takes."""
    if request.param == "plain":
        monkeypatch.setattr("gpt_sovits_mlx.decoding.generation.decoder_for", PlainDecoder)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("prompt", [0, 9])
def test_a_sentence_gets_the_same_tokens_alone_and_in_a_batch(load_gpt, prompt):
    model = load_gpt("gpt_tiny")
    sampling = Sampling(top_k=8, top_p=0.95, max_tokens=90)
    batch = requests(model, 5, [3, 17, 8, 17, 30, 11], prompt, sampling)
    together = generate(model, batch)
    assert together == [generate(model, [request])[0] for request in batch]
    assert len({tuple(r.tokens) for r in together}) == len(batch)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_rows_that_end_make_room_for_the_next(load_gpt, rows):
    """More sentences than rows, with prompts of several lengths: those that follow join a batch under way."""
    model = load_gpt("gpt_tiny")
    sampling = Sampling(top_k=1000, temperature=50.0, max_tokens=150)
    lengths = [6, 21, 9, 12, 24, 15, 4, 18, 27, 3]
    queue = [requests(model, 20 + i, [n], (0, 5, 9, 5)[i % 4], sampling)[0] for i, n in enumerate(lengths)]
    alone = [generate(model, [request])[0] for request in queue]
    assert generate(model, queue, rows) == alone
    assert len({len(r.tokens) for r in alone}) > 5
    busy = [len(events) for events in decode_steps(model, queue, rows)]
    assert max(busy) == rows and sum(busy) == sum(len(r.tokens) + r.ended for r in alone)


def test_slots_that_no_row_uses_any_more_are_given_back(load_gpt):
    model = load_gpt("gpt_tiny")
    queue = requests(model, 31, [40, *[5] * 12], 4)
    states = [prefill(model, mx.array([r.phones]), None, mx.array([r.prompt]))[1] for r in queue]
    state = states[0]
    for more in states[1:-1]:
        state.join(more)
        state.select([1])
    state.join(states[-1])
    assert state.length == 9 and state.real is not None and bool(state.real.all())


def test_rows_that_end_early_leave_the_others_untouched(load_gpt):
    """A high temperature ends the rows at different steps."""
    model = load_gpt("gpt_tiny")
    sampling = Sampling(top_k=1000, temperature=50.0, max_tokens=150)
    batch = requests(model, 11, [6, 9, 12, 15, 18, 21, 24, 27], 5, sampling)
    together = generate(model, batch)
    assert together == [generate(model, [request])[0] for request in batch]
    assert sum(r.ended for r in together) > 4 and len({len(r.tokens) for r in together}) > 4
    assert all(len(r.tokens) >= 11 for r in together)


def test_the_limit_loses_no_token(load_gpt):
    """The reference drops the first token of an utterance that reaches its limit; ours keeps it."""
    model = load_gpt("gpt_tiny")
    long = generate(model, requests(model, 3, [12], 6, Sampling(top_k=5, max_tokens=40)))[0].tokens
    short = generate(model, requests(model, 3, [12], 6, Sampling(top_k=5, max_tokens=20)))[0]
    assert short.tokens == long[:20] and not short.ended


def test_seeds_decide(load_gpt):
    model = load_gpt("gpt_tiny")
    request = requests(model, 3, [12], 6, Sampling(max_tokens=40))[0]
    first, again, other = (
        generate(model, [dataclasses.replace(request, noise=NoiseStream(seed, 0))])[0].tokens for seed in (1, 1, 2)
    )
    assert first == again != other


def test_cache_grows_by_steps_and_keeps_what_it_holds():
    cache = KVCache()
    parts = [mx.random.normal((2, 2, 3, n, 4)) for n in (250, 1, 1, 1, 1, 1, 1, 1, 300)]
    capacities = []
    for part in parts[:-1]:
        cache.append(part)
        capacities.append(cache.capacity)
    kept = cache.append(parts[-1])
    assert [*capacities, cache.capacity] == [256] * 7 + [512, 768]
    assert mx.array_equal(mx.stack(list(kept)), mx.concatenate(parts, axis=3))


def test_positions_beyond_the_table(load_gpt):
    model = load_gpt("gpt_tiny")
    positions, width = model.ar_audio_position, model.config.hidden_dim
    inside = positions(mx.zeros((1, 4, width)), TABLE_POSITIONS - 4)
    across = positions(mx.zeros((1, 6, width)), TABLE_POSITIONS - 4)
    assert np.allclose(np.array(inside), np.array(across[:, :4]), atol=1e-6)
    rows = positions.at([7, TABLE_POSITIONS - 3, TABLE_POSITIONS + 1])
    assert np.allclose(np.array(rows[1:]), np.array(across[0, [1, 5]]), atol=1e-6)


def test_a_missing_extra_or_misshapen_tensor_is_named(checkpoint, tmp_path):
    path = convert_gpt(checkpoint("gpt_tiny", 1), tmp_path / "gpt.safetensors").weights
    config = read_config(path)
    tensors = {name: mx.array(values) for name, values in load_file(path).items()}
    name = "h.layers.0.linear1.weight"
    for changed in (
        {k: v for k, v in tensors.items() if k != name},
        {**tensors, "h.layers.99.linear1.weight": tensors[name]},
        {**tensors, "ar_predict_layer.weight": tensors["ar_predict_layer.weight"][:-1]},
    ):
        with pytest.raises(WeightsError, match=r"h\.layers\.(0|99)\.linear1\.weight|ar_predict_layer\.weight"):
            model_of(TextToSemantic, config, changed, "gpt.safetensors")
