"""The folded step equals the model's own, in every type and bits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.decoding.plain import FoldedStep
from gpt_sovits_mlx.decoding.state import prefill
from gpt_sovits_mlx.layers import linear
from gpt_sovits_mlx.runtime import backend
from random_gpt import ODD, SHALLOW, SMALL, model


@pytest.mark.parametrize(
    ("sizes", "bits", "limit"), [(SHALLOW, 0, 1.1e-5), (ODD, 0, 1.1e-5), (SMALL, 8, 1.1e-5), (SMALL, 4, 1.1e-5)]
)
def test_logits_are_those_of_the_models_own_step(sizes, bits, limit, monkeypatch):
    if bits and backend() == "cpu":  # whose matrices would be unpacked
        monkeypatch.setattr(linear, "backend", lambda: "metal")
    gpt = model(sizes, mx.float32, mx.float32, bits)
    folded, random, worst = FoldedStep.of(gpt), np.random.default_rng(1), 0.0
    assert folded is not None
    phones = mx.array(random.integers(0, gpt.config.phoneme_vocab_size, (3, 20)))
    prompt = mx.array(random.integers(0, gpt.config.EOS, (3, 9)))
    states = [prefill(gpt, phones, None, prompt, [20, 7, 12], [9, 3, 0])[1] for _ in range(2)]
    for turn in range(8):
        if turn == 6:  # beyond the table of positions
            for state in states:
                state.positions = [position + 4000 for position in state.positions]
        tokens = mx.array(random.integers(0, gpt.config.EOS, 3))
        logits = []
        for step, state in zip((gpt.step, folded), states, strict=True):
            positions = state.positions
            logits.append(np.array(step(tokens, positions, state.advance(), state.caches)))
        scale = np.abs(logits[0]).max()
        worst = max(worst, float(np.abs(logits[0] - logits[1]).max() / max(1, scale)))
    print(f"logits differ by {worst:.1e} of the largest")
    assert worst < limit


def test_half_precision_stays_half_precision():
    gpt = model(SMALL, mx.float16, mx.float32)
    for layer in gpt.h.layers:
        layer.set_dtype(mx.float16)
    gpt.ar_audio_embedding.set_dtype(mx.float16)
    folded = FoldedStep.of(gpt)
    assert folded is not None and folded.positions.dtype == mx.float16
    arrays = [x for one in folded.layers for x in (one.in_bias, one.inner_bias, one.shift1, one.shift2)]
    assert {array.dtype for array in arrays} == {mx.float16}
