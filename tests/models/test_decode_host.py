"""The host's decode step against the plain form in MLX."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.batch import Request, padded_ids
from gpt_sovits_mlx.generation import generate
from gpt_sovits_mlx.models.cache import KVCache
from gpt_sovits_mlx.models.decode_host import host_rows
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.sampling import NoiseStream, Sampling
from random_gpt import ODD, SHALLOW, SMALL, models

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="it is for CPUs")


def model(sizes: dict[str, int], bits: int = 0) -> TextToSemantic:
    return models(sizes, mx.float32, bits)[0]


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
    gpt = model(sizes, bits)
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
    gpt, plain = model(SMALL), model(SMALL)
    plain.host = None
    given = requests(gpt, [12, 30, 9, 41, 22, 17], [KVCache.STEP - 20, 9, 0, 25, 4, 12])
    assert generate(gpt, given, sampling, rows) == generate(plain, given, sampling, rows)
