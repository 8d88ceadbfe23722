"""A decoder that serves: sentences come and go between steps, each with settings of its own, in every form."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gpt_sovits_mlx.decoding import forms
from gpt_sovits_mlx.decoding.decoder import Decoder, DecodeRequest
from gpt_sovits_mlx.decoding.generation import Generation
from gpt_sovits_mlx.decoding.plain import FoldedStep, PlainDecoder
from gpt_sovits_mlx.decoding.sampling import BatchSampling, NoiseStream, sample
from gpt_sovits_mlx.errors import GPTSoVITSError
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.settings import Sampling
from random_gpt import SMALL, model

DRAWN = [
    Sampling(top_k=1, max_tokens=40),
    Sampling(top_k=1000, temperature=50.0, max_tokens=60),
    Sampling(top_k=5, top_p=0.8, temperature=0.6, max_tokens=25),
    Sampling(top_k=2000, top_p=0.5, repetition_penalty=1.0, max_tokens=50),
    Sampling(top_k=50, temperature=2.0, repetition_penalty=2.0, max_tokens=30),
    Sampling(top_k=15, temperature=0.0, max_tokens=20),
]


@pytest.fixture(scope="module")
def gpt() -> TextToSemantic:
    return model(SMALL, mx.float32, mx.float32)


@pytest.fixture(params=["usual", "folded", "plain"])
def decoder(request, gpt) -> Decoder:
    """The form that is usual here, that which is Metal's, and the model's own steps."""
    if request.param == "usual":
        return forms.decoder_for(gpt)
    return PlainDecoder(gpt, FoldedStep.of(gpt) if request.param == "folded" else None)


def sentences(gpt: TextToSemantic) -> dict[int, DecodeRequest]:
    """Of several lengths, with prompts of several lengths, each drawn in its own way."""
    random, made = np.random.default_rng(5), {}
    for number, (text, prompt) in enumerate([(12, 9), (30, 0), (7, 25), (22, 3), (12, 9), (40, 14)]):
        phones = random.integers(0, gpt.config.phoneme_vocab_size, text).tolist()
        tokens = random.integers(0, gpt.config.EOS, prompt).tolist()
        made[number] = DecodeRequest(phones, tokens, NoiseStream(4, number), DRAWN[number])
    return made


def take(decoder: Decoder, results: dict[int, Generation]) -> None:
    for step in decoder.advance():
        for number, token in step:
            results[number].take(token)


@pytest.fixture(scope="module")
def alone(gpt) -> dict[int, Generation]:
    """What each sentence gets when nobody else is there."""
    results = {number: Generation() for number in sentences(gpt)}
    for number, given in sentences(gpt).items():
        single = PlainDecoder(gpt)
        single.join({number: given})
        while len(single):
            take(single, results)
    assert len({tuple(result.tokens) for result in results.values()}) == len(results)
    return results


def test_sentences_join_whenever_they_come(gpt, decoder, alone):
    results, given = {number: Generation() for number in alone}, sentences(gpt)
    for number, request in given.items():
        decoder.join({number: request})
        assert len(decoder) >= 1
        for _ in range(3):
            take(decoder, results)
    while len(decoder):
        take(decoder, results)
    assert results == alone


def test_a_sentence_that_is_taken_out_is_gone_and_the_others_go_on(gpt, decoder, alone):
    results, given = {number: Generation() for number in alone}, sentences(gpt)
    decoder.join(given)
    take(decoder, results)
    heard = {number: len(results[number].tokens) for number in (1, 3)}
    decoder.leave([1, 3])
    assert len(decoder) == 4 and [row.number for row in decoder.rows] == [0, 2, 4, 5]
    while len(decoder):
        take(decoder, results)
    for number, result in results.items():
        if number in heard:
            assert len(result.tokens) == heard[number] and result.tokens == alone[number].tokens[: heard[number]]
        else:
            assert result == alone[number]
    # the same decoder serves on
    again = {number: Generation() for number in alone}
    decoder.join({3: given[3], 1: given[1]})
    while len(decoder):
        take(decoder, again)
    assert again[1] == alone[1] and again[3] == alone[3]


def test_all_may_leave(gpt, decoder, alone):
    decoder.join(sentences(gpt))
    decoder.leave(range(6))
    assert not len(decoder) and not decoder.rows and decoder.advance() == []
    results = {number: Generation() for number in alone}
    decoder.join({2: sentences(gpt)[2]})
    while len(decoder):
        take(decoder, results)
    assert results[2] == alone[2]


def test_a_newcomer_costs_its_own_prefill_and_nothing_else_is_read(gpt, decoder, monkeypatch):
    read, hidden_states = [], TextToSemantic.hidden_states
    monkeypatch.setattr(
        TextToSemantic, "hidden_states", lambda *a: (read.append(tuple(a[1].shape)), hidden_states(*a))[1]
    )
    given = sentences(gpt)
    decoder.join({number: given[number] for number in (0, 1, 2)})
    decoder.advance()
    decoder.join({5: given[5]})
    assert read == [(3, 30), (1, 40)]


def test_too_many_are_refused(gpt, monkeypatch):
    decoder = PlainDecoder(gpt)
    monkeypatch.setattr(type(decoder), "most_rows", 2)
    with pytest.raises(ValueError, match="a decoder of 2 rows cannot take 6 beside its 0"):
        decoder.join(sentences(gpt))


@pytest.mark.parametrize("step", [0, 20])
def test_rows_are_drawn_alike_alone_and_with_others_settings(step):
    random = np.random.default_rng(1)
    logits, noise = (random.standard_normal((len(DRAWN), 1025)).astype(np.float32) for _ in range(2))
    seen: Any = random.random((len(DRAWN), 1025)) < 0.05
    logits[2, :20] = 3.0  # ties at the k-th place
    noise, steps = np.maximum(np.abs(noise), 1e-6), [step] * len(DRAWN)
    together = sample(mx.array(logits), mx.array(seen), mx.array(noise), steps, BatchSampling.of(DRAWN))
    for row, settings in enumerate(DRAWN):
        one = slice(row, row + 1)
        tokens, ended = sample(
            mx.array(logits[one]), mx.array(seen[one]), mx.array(noise[one]), [step], BatchSampling.of([settings])
        )
        assert tokens.item() == together[0][row].item() and ended.item() == together[1][row].item()


def test_settings_out_of_range_are_refused():
    for settings in ({"top_k": 0}, {"top_p": 0}, {"temperature": -1}, {"repetition_penalty": 0}, {"max_tokens": 0}):
        with pytest.raises(GPTSoVITSError, match=next(iter(settings))):
            Sampling(**settings)
