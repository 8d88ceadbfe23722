"""The decode step in numpy against the plain form in MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.decoding import forms
from gpt_sovits_mlx.decoding.cache import STEP
from gpt_sovits_mlx.decoding.decoder import DecodeRequest, padded_ids
from gpt_sovits_mlx.decoding.generation import generate
from gpt_sovits_mlx.decoding.numpy_step import NumpyDecoder, NumpyStep, numpy_rows
from gpt_sovits_mlx.decoding.plain import PlainDecoder
from gpt_sovits_mlx.decoding.sampling import NoiseStream
from gpt_sovits_mlx.decoding.state import DecodeState, prefill
from gpt_sovits_mlx.models.t2s import TABLE_POSITIONS, TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.settings import Sampling
from random_gpt import ODD, SHALLOW, SMALL, models

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="it is for CPUs")


def requests(
    gpt: TextToSemantic, texts: list[int], prompts: list[int], sampling: Sampling | None = None
) -> list[DecodeRequest]:
    random = np.random.default_rng(3)
    phones, tokens = gpt.config.phoneme_vocab_size, gpt.config.EOS
    made = []
    for text, prompt in zip(texts, prompts, strict=True):
        read = random.integers(0, phones, text).tolist(), random.integers(0, tokens, prompt).tolist()
        made.append(DecodeRequest(*read, NoiseStream(4, len(made)), sampling or Sampling()))
    return made


@pytest.mark.parametrize(
    ("sizes", "bits", "texts", "prompts"),
    [
        (SHALLOW, 0, [30], [12]),
        (SHALLOW, 0, [30, 11, 45, 9, 20], [12, 0, 7, 30, 3]),
        (SMALL, 8, [30, 9], [12, 30]),
        (ODD, 0, [4, 50, 8], [STEP - 6, 5, 9]),  # the first fills its room to the last place
    ],
)
def test_logits_equal_the_plain_forms(sizes, bits, texts, prompts):
    gpt = models(sizes, mx.float32, bits)[0]
    given, step = requests(gpt, texts, prompts), step_of(gpt)
    phones, phone_counts = padded_ids([r.phones for r in given])
    prompt, prompt_counts = padded_ids([r.prompt for r in given])
    _, state = prefill(gpt, phones, None, prompt, phone_counts, prompt_counts)
    rows, worst = numpy_rows(state, texts, prompts), 0.0
    for turn in range(12):
        tokens = (np.arange(len(given)) * 37 + turn * 11) % gpt.config.EOS
        expected = np.array(plain_step(gpt, tokens, state))
        worst = max(worst, float(np.abs(np.array(step(tokens, rows)) - expected).max()))
    assert [row.length for row in rows] == [t + p + 12 for t, p in zip(texts, prompts, strict=True)]
    assert worst < 1e-4


def step_of(gpt: TextToSemantic) -> NumpyStep:
    step = forms.step_of(gpt)
    assert isinstance(step, NumpyStep)
    return step


def plain_step(gpt: TextToSemantic, tokens: np.ndarray, state: DecodeState) -> mx.array:
    positions = state.positions
    return gpt.step(mx.array(tokens), positions, state.advance(), state.caches)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    "sampling", [Sampling(top_k=1, max_tokens=60), Sampling(top_k=1000, temperature=50.0, max_tokens=60)]
)
def test_tokens_are_the_plain_forms(rows, sampling, monkeypatch):
    """One row grows beyond the room that it began with; more sentences than rows wait for their places."""
    gpt = models(SMALL, mx.float32)[0]
    given = requests(gpt, [12, 30, 9, 41, 22, 17], [STEP - 20, 9, 0, 25, 4, 12], sampling)
    found = generate(gpt, given, rows)
    monkeypatch.setattr("gpt_sovits_mlx.decoding.generation.decoder_for", PlainDecoder)
    assert found == generate(gpt, given, rows)


def test_a_position_beyond_the_table():
    gpt = models(SMALL, mx.float32)[0]
    [given] = requests(gpt, [5], [3])
    _, state = prefill(gpt, mx.array([given.phones]), None, mx.array([given.prompt]))
    rows, far = numpy_rows(state, [5], [3]), TABLE_POSITIONS - 1
    state.positions, rows[0].position = [far], far
    for token in (7, 8):
        expected = np.array(plain_step(gpt, np.array([token]), state))
        assert np.abs(np.array(step_of(gpt)(np.array([token]), rows)) - expected).max() < 1e-4


def test_weights_are_held_once():
    gpt = models(SMALL, mx.float32)[0]
    for layer, in_numpy in zip(gpt.h.layers, step_of(gpt).layers, strict=True):
        for linear, product in ((layer.self_attn.in_proj, in_numpy.qkv), (layer.linear2, in_numpy.second)):
            assert np.shares_memory(product.weight, np.array(linear.weight, copy=False))


def test_rows_that_have_ended_are_not_computed(monkeypatch):
    gpt = models(SMALL, mx.float32)[0]
    step, counts = step_of(gpt), []
    given = requests(gpt, [12, 9, 7], [4, 6, 5], Sampling(max_tokens=20))
    decoder = NumpyDecoder(gpt, step)
    monkeypatch.setattr(decoder, "step", lambda tokens, rows: (counts.append(len(rows)), step(tokens, rows))[1])
    decoder.join(dict(enumerate(given)))
    for _ in range(3):
        decoder.advance()
    decoder.leave([1])
    decoder.advance()
    assert counts == [3, 3, 3, 2] and [row.number for row in decoder.rows] == [0, 2]


def test_other_types_are_decoded_in_the_plain_form():
    gpt = models(SMALL, mx.float32)[0]
    table = gpt.ar_audio_embedding.word_embeddings
    table.weight = table.weight.astype(mx.float16)
    assert isinstance(forms.decoder_for(gpt), PlainDecoder)
