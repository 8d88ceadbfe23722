"""The host's decode step against the plain form in MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.batch import PlainBatch, Request, padded_ids
from gpt_sovits_mlx.generation import generate
from gpt_sovits_mlx.models.cache import KVCache
from gpt_sovits_mlx.models.decode_host import host_decoder, host_rows
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.sampling import NoiseStream, Sampling
from random_gpt import ODD, SHALLOW, SMALL, models

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="it is for CPUs")


def requests(gpt: TextToSemantic, texts: list[int], prompts: list[int]) -> list[Request]:
    random = np.random.default_rng(3)
    phones, tokens = gpt.config.phoneme_vocab_size, gpt.config.EOS
    made = []
    for text, prompt in zip(texts, prompts, strict=True):
        read = random.integers(0, phones, text).tolist(), random.integers(0, tokens, prompt).tolist()
        made.append(Request(*read, NoiseStream(4, len(made))))
    return made


@pytest.mark.parametrize(
    ("sizes", "bits", "texts", "prompts"),
    [
        (SHALLOW, 0, [30], [12]),
        (SHALLOW, 0, [30, 11, 45, 9, 20], [12, 0, 7, 30, 3]),
        (SMALL, 8, [30, 9], [12, 30]),
        (ODD, 0, [4, 50, 8], [KVCache.STEP - 6, 5, 9]),  # the first fills its room to the last place
    ],
)
def test_logits_equal_the_plain_forms(sizes, bits, texts, prompts):
    gpt = models(sizes, mx.float32, bits)[0]
    assert gpt.host is not None
    given = requests(gpt, texts, prompts)
    phones, phone_counts = padded_ids([r.phones for r in given])
    prompt, prompt_counts = padded_ids([r.prompt for r in given])
    _, state = gpt.prefill(phones, None, prompt, phone_counts, prompt_counts)
    host, worst = host_rows(state, texts, prompts), 0.0
    for step in range(12):
        tokens = (np.arange(len(given)) * 37 + step * 11) % gpt.config.EOS
        expected = np.array(gpt.decode(mx.array(tokens), state))
        worst = max(worst, float(np.abs(np.array(gpt.host.decode(tokens, host)) - expected).max()))
    assert [row.length for row in host] == [t + p + 12 for t, p in zip(texts, prompts, strict=True)]
    assert worst < 1e-4


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize(
    "sampling", [Sampling(top_k=1, max_tokens=60), Sampling(top_k=1000, temperature=50.0, max_tokens=60)]
)
def test_tokens_are_the_plain_forms(rows, sampling):
    """One row grows beyond the room that it began with; more sentences than rows wait for their places."""
    gpt, plain = models(SMALL, mx.float32)
    given = requests(gpt, [12, 30, 9, 41, 22, 17], [KVCache.STEP - 20, 9, 0, 25, 4, 12])
    assert generate(gpt, given, sampling, rows) == generate(plain, given, sampling, rows)


def test_a_position_beyond_the_table():
    gpt = models(SMALL, mx.float32)[0]
    assert gpt.host is not None
    [given] = requests(gpt, [5], [3])
    _, state = gpt.prefill(mx.array([given.phones]), None, mx.array([given.prompt]))
    host = host_rows(state, [5], [3])
    far = gpt.audio_positions.LENGTH - 1
    state.positions, host[0].position = [far], far
    for token in (7, 8):
        expected = np.array(gpt.decode(mx.array([token]), state))
        assert np.abs(np.array(gpt.host.decode(np.array([token]), host)) - expected).max() < 1e-4


def test_weights_are_held_once():
    gpt = models(SMALL, mx.float32)[0]
    assert gpt.host is not None
    for layer, of_host in zip(gpt.layers, gpt.host.layers, strict=True):
        for linear, product in ((layer.qkv, of_host.qkv), (layer.linear2, of_host.second)):
            assert np.shares_memory(product.weight, np.array(linear.weight, copy=False))


def test_rows_that_have_ended_are_not_computed(monkeypatch):
    gpt = models(SMALL, mx.float32)[0]
    assert gpt.host is not None
    given, counts, decode = requests(gpt, [12, 9, 7], [4, 6, 5]), [], gpt.host.decode
    monkeypatch.setattr(gpt.host, "decode", lambda tokens, rows: (counts.append(len(rows)), decode(tokens, rows))[1])
    batch = PlainBatch(gpt, dict(enumerate(given)), Sampling(max_tokens=20))
    for _ in range(3):
        batch.advance()
    batch.going.discard(1)
    batch.advance()
    assert counts == [3, 3, 3, 2] and batch.rows == [0, 2]


def test_other_types_are_decoded_in_the_plain_form():
    gpt = models(SMALL, mx.float32)[0]
    gpt.audio_embedding.weight = gpt.audio_embedding.weight.astype(mx.float16)
    assert host_decoder(gpt.layers, gpt.audio_embedding, gpt.audio_positions, gpt.predict) is None
