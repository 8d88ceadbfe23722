"""The decode kernel against the plain form in float32, on whatever CUDA device there is."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.decoding.cache import KVCache
from gpt_sovits_mlx.decoding.cuda_step import LAUNCH_STEPS, CudaStep, draw_of, kernel_rows
from gpt_sovits_mlx.decoding.decoder import DecodeRequest
from gpt_sovits_mlx.decoding.forms import step_of
from gpt_sovits_mlx.decoding.generation import decode_steps, generate
from gpt_sovits_mlx.decoding.plain import PlainDecoder
from gpt_sovits_mlx.decoding.sampling import MIN_TOKENS, BatchSampling, NoiseStream, sample
from gpt_sovits_mlx.decoding.state import DecodeState, prefill
from gpt_sovits_mlx.kernels import decode_layout
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.settings import Sampling
from random_gpt import ODD, OFFICIAL, SHALLOW, SMALL, models

pytestmark = pytest.mark.skipif(backend() != "cuda", reason="there is no CUDA device")

PROMPTS = (9, 30, 0, 17, 4, 25, 12, 8)


class RoundedCache(KVCache):
    """Float32, but nothing that the other type could not hold."""

    def __init__(self, cache: KVCache, dtype: mx.Dtype):
        super().__init__()
        self.dtype, self.length = dtype, cache.length
        assert cache.kept is not None
        self.kept = self.rounded(cache.kept)

    def rounded(self, x: mx.array) -> mx.array:
        return x.astype(self.dtype).astype(mx.float32)

    def append(self, keys_and_values: mx.array) -> tuple[mx.array, mx.array]:
        return super().append(self.rounded(keys_and_values))


def request(model: TextToSemantic, at: int, sampling: Sampling) -> DecodeRequest:
    random = np.random.default_rng(at)
    phones = random.integers(0, model.config.phoneme_vocab_size, 12 + 5 * at).tolist()
    prompt = random.integers(0, model.config.EOS, PROMPTS[at % len(PROMPTS)]).tolist()
    return DecodeRequest(phones, prompt, NoiseStream(3, at), sampling)


class Beside:
    """A row in the plain form, whose next logits and tokens the kernel must give."""

    def __init__(self, plain: TextToSemantic, given: DecodeRequest, dtype: mx.Dtype):
        self.plain, self.step, self.ended = plain, 0, False
        self.settings = BatchSampling.of([given.sampling])
        prompt = mx.array(np.array([given.prompt], np.int32))
        self.logits, self.state = prefill(plain, mx.array([given.phones]), None, prompt)
        self.seen = np.zeros((1, plain.config.vocab_size), bool)
        self.seen[0, given.prompt] = True
        self.noise = mx.concatenate([given.noise.block(n, plain.config.vocab_size) for n in range(4)])
        caches = [_cast(cache, dtype) for cache in self.state.caches]
        state = DecodeState(caches, self.state.positions, self.state.starts, None)
        (self.place,) = kernel_rows(state, [len(given.phones)], [len(given.prompt)])
        self.state.caches = [RoundedCache(cache, dtype) for cache in self.state.caches]

    @property
    def bits(self) -> np.ndarray:
        """(words,) uint32: the tokens that have occurred."""
        padded = np.pad(self.seen[0], (0, -self.seen.shape[1] % 32))
        return np.packbits(padded, bitorder="little").view(np.uint32)

    def next(self) -> int:
        token, ended = sample(self.logits, mx.array(self.seen), self.noise[None, self.step], [self.step], self.settings)
        self.step += 1
        if ended.item():
            self.ended = True
            return -1
        drawn = int(np.array(token)[0])
        self.seen[0, drawn] = True
        positions = self.state.positions
        self.logits = self.plain.step(token, positions, self.state.advance(), self.state.caches)
        return drawn


def cuda_step(model: TextToSemantic) -> CudaStep:
    step = step_of(model)
    assert isinstance(step, CudaStep)
    return step


def steps_of_both(
    model: TextToSemantic,
    plain: TextToSemantic,
    dtype: mx.Dtype,
    samplings: list[Sampling],
    turns: int,
) -> float:
    """The greatest difference between logits; the tokens must be equal. Each row is drawn in its own way."""
    step, rows = cuda_step(model), len(samplings)
    beside = [Beside(plain, request(model, at, sampling), dtype) for at, sampling in enumerate(samplings)]
    now, known = mx.concatenate([row.logits for row in beside]), mx.array(np.stack([row.bits for row in beside]))
    how, worst = [draw_of(sampling) for sampling in samplings], 0.0
    for turn in range(turns):
        for row in beside:
            row.place.make_room(LAUNCH_STEPS, 256)
        places, noises = [None if row.ended else row.place for row in beside], [row.noise for row in beside]
        offsets, positions = [turn * LAUNCH_STEPS] * rows, step.positions(1000)
        drawn, now, known = step.kernel.steps(
            places, now, known, noises, offsets, positions, how, MIN_TOKENS, LAUNCH_STEPS
        )
        for at, row in enumerate(beside):
            for place in range(LAUNCH_STEPS):
                if not row.ended:
                    assert row.next() == drawn[at, place]
            if not row.ended:
                worst = max(worst, float(np.abs(np.array(now[at] - row.logits[0])).max()))
    assert not all(row.ended for row in beside) and np.isfinite(worst)
    return worst


def _cast(cache: KVCache, dtype: mx.Dtype) -> KVCache:
    made = KVCache()
    assert cache.kept is not None
    made.kept, made.length = cache.kept.astype(dtype), cache.length
    return made


DRAWN = Sampling(top_k=15, temperature=1.0, repetition_penalty=1.35)


@pytest.mark.parametrize(
    ("sizes", "dtype", "bits", "rows"),
    [
        (OFFICIAL, mx.float16, 0, 1),
        (OFFICIAL, mx.float16, 0, 8),
        (OFFICIAL, mx.float16, 0, 32),
        (SHALLOW, mx.bfloat16, 0, 1),
        (SHALLOW, mx.bfloat16, 0, 16),
        (SHALLOW, mx.float16, 8, 1),
        (SHALLOW, mx.float16, 8, 16),
        (SHALLOW, mx.float32, 0, 2),
        (SMALL, mx.float16, 4, 4),
        (SMALL, mx.float32, 0, 1),
        (SMALL, mx.float32, 0, 32),
        (ODD, mx.float16, 0, 1),
        (ODD, mx.bfloat16, 8, 2),
    ],
)
def test_logits_and_tokens_equal_the_plain_forms(sizes, dtype, bits, rows):
    model, plain = models(sizes, dtype, bits)
    worst = steps_of_both(model, plain, dtype, [DRAWN] * rows, 3)
    print(f"{sizes} {dtype} {bits} bits {rows} rows: logits differ by {worst:.1e} at most")
    assert worst < 1e-3


@pytest.mark.parametrize(("rows", "multiprocessors"), [(1, 80), (8, 80), (1, 28)])
def test_a_smaller_gpu_gives_the_same(rows, multiprocessors, monkeypatch):
    whole = decode_layout.device()
    smaller = decode_layout.Device(multiprocessors, whole.shared_memory, whole.generation)
    monkeypatch.setattr(decode_layout, "device", lambda: smaller)
    model, plain = models(SHALLOW, mx.float16)
    if rows not in cuda_step(model).kernel.layouts:
        pytest.skip("so few multiprocessors cannot hold so many rows")
    worst = steps_of_both(model, plain, mx.float16, [DRAWN] * rows, 2)
    print(f"{multiprocessors} multiprocessors, {rows} rows: logits differ by {worst:.1e} at most")
    assert worst < 1e-3


WAYS = [
    Sampling(top_k=1),
    Sampling(top_k=1, repetition_penalty=1.0),
    Sampling(top_k=5, top_p=0.8, temperature=0.6),
    Sampling(top_k=2000, top_p=0.5, repetition_penalty=1.0),
    Sampling(top_k=50, temperature=2.0, repetition_penalty=2.0),
]


@pytest.mark.parametrize("sampling", WAYS, ids=str)
def test_every_way_to_draw(sampling):
    model, plain = models(SMALL, mx.float32)
    assert steps_of_both(model, plain, mx.float32, [sampling] * 4, 3) < 1e-3


@pytest.mark.parametrize("rows", [2, 8])
def test_every_row_is_drawn_in_its_own_way(rows):
    model, plain = models(SMALL, mx.float32)
    assert steps_of_both(model, plain, mx.float32, [WAYS[at % len(WAYS)] for at in range(rows)], 3) < 1e-3


def test_long_past_the_first_room():
    """The cache grows, and every position is attended to."""
    model, plain = models(SMALL, mx.float16)
    assert steps_of_both(model, plain, mx.float16, [DRAWN] * 2, 15) < 1e-3


@pytest.mark.parametrize("rows", [1, 3, 12])
def test_sentences_get_the_same_tokens_alone_and_in_any_company(rows, monkeypatch):
    """Rows that end make room for the next, among them prompts of other lengths and other settings."""
    model, plain = models(SMALL, mx.float32)
    drawn = [
        Sampling(top_k=1000, temperature=50.0, max_tokens=400),
        Sampling(top_k=1, max_tokens=70),
        Sampling(top_k=20, temperature=5.0, repetition_penalty=1.0, max_tokens=41),
    ]
    queue = [request(model, at, drawn[at % 3]) for at in range(12)]
    found, busy = generate(model, queue, rows), [len(events) for events in decode_steps(model, queue, rows)]
    monkeypatch.setattr("gpt_sovits_mlx.decoding.generation.decoder_for", PlainDecoder)
    expected = [generate(plain, [given])[0] for given in queue]
    assert found == expected
    assert any(r.ended for r in expected) and any(not r.ended for r in expected)
    assert sum(busy) == sum(len(r.tokens) + r.ended for r in expected)
