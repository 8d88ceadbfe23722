"""Speculative decoding draws the tokens of plain decoding, and a draft that does not belong to the GPT is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from gpt_sovits_mlx import GPTSoVITSEngine, WeightsError, speculation
from gpt_sovits_mlx.batch import PlainBatch
from gpt_sovits_mlx.files import file_sha256
from gpt_sovits_mlx.generation import Generation, Request, batch_of, decode_steps, generate
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.sampling import NoiseStream, Sampling
from gpt_sovits_mlx.speculation import SpeculativeBatch
from gpt_sovits_mlx.voice import Voice
from small_voice import GPT, make_model_folder, write

pytestmark = pytest.mark.skipif(backend() != "cpu", reason="drafts are for CPUs")
SENTENCES = ("The train to the city leaves at seven in the morning.", "Thank you.", "She sings, but nobody listens.")
GREEDY = Sampling(top_k=1, repetition_penalty=1.0)


def draft_shapes(width: int, inner: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    return {
        "tokens.weight": (vocabulary, width),
        "linear1.weight": (inner, 2 * width),
        "linear1.bias": (inner,),
        "linear2.weight": (width, inner),
        "linear2.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "predict.weight": (vocabulary, width),
    }


def write_draft(gpt: Path, width: int = GPT["hidden_dim"], sha256: str | None = None) -> Path:
    """A random draft beside a GPT."""
    path = gpt.with_name("draft.safetensors")
    stated = {"gpt_sha256": sha256 or file_sha256(gpt)}
    write(path, draft_shapes(width, 48, GPT["vocab_size"]), stated, 7)
    return path


@pytest.fixture(scope="module")
def demo() -> Voice:
    return GPTSoVITSEngine().load_voice("demo")


@pytest.fixture
def small_gpt(tmp_path) -> Path:
    """Weights of a small random GPT with a small random draft."""
    path = make_model_folder(tmp_path) / "voices" / "small" / "gpt.safetensors"
    write_draft(path)
    return path


def load(gpt: Path) -> TextToSemantic:
    return GPTSoVITSEngine(gpt.parent.parent.parent).load_voice("small").gpt


def requests(voice: Voice, *texts: str) -> list[Request]:
    prompt = voice.conditioning
    found = [u for text in texts for u in voice.frontend.utterances(text, "en", "cut0")]
    return [Request([*prompt.phones, *u.phone_ids], prompt.tokens, NoiseStream(1, 0)) for u in found]


def plain(model: TextToSemantic, request: Request, sampling: Sampling) -> Generation:
    without = copy.copy(model)
    without.draft = None
    return generate(without, [request], sampling)[0]


def count_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all blocks that are decoded from now on."""
    sizes, decode = [], TextToSemantic.decode_block

    def counted(self, tokens, state):
        sizes.append(len(tokens))
        return decode(self, tokens, state)

    monkeypatch.setattr(TextToSemantic, "decode_block", counted)
    return sizes


@pytest.mark.parametrize("penalty", [1.0, 1.35])
def test_tokens_are_those_of_plain_decoding(penalty, demo, monkeypatch):
    sampling = Sampling(top_k=1, repetition_penalty=penalty)
    for request in requests(demo, *SENTENCES):
        with monkeypatch.context() as patch:
            sizes = count_blocks(patch)
            found = generate(demo.gpt, [request], sampling)[0]
        assert found == plain(demo.gpt, request, sampling) and found.ended
        assert penalty != 1 or len(sizes) < 0.7 * len(found.tokens)


def test_the_limit_cuts_a_block(demo):
    [request] = requests(demo, SENTENCES[0])
    whole = plain(demo.gpt, request, GREEDY).tokens
    for limit in (1, 2, *range(20, 28), len(whole)):
        found = generate(demo.gpt, [request], Sampling(top_k=1, repetition_penalty=1.0, max_tokens=limit))[0]
        assert found.tokens == whole[:limit] and not found.ended


def test_a_stream_says_what_the_whole_does(demo, monkeypatch):
    engine = GPTSoVITSEngine()
    sizes = count_blocks(monkeypatch)
    whole = engine.synthesize(SENTENCES[0], "en", demo, seed=1)
    alone = sizes.copy()
    chunks = list(engine.stream(SENTENCES[0], "en", demo, seed=1))
    assert sizes == 2 * alone and len(chunks) > 2
    assert chunks[-1].sentence == whole.sentences[0]
    assert sum(len(chunk.audio) for chunk in chunks) == len(whole.audio)
    [request] = requests(demo, SENTENCES[0])
    assert all(len(events) == 1 for events in decode_steps(demo.gpt, [request], GREEDY))


@pytest.mark.parametrize("credit", [speculation.CREDIT, 1e9])
@pytest.mark.parametrize("penalty", [1.0, 1.35])
def test_wrong_guesses_change_nothing_and_soon_end(credit, penalty, small_gpt, monkeypatch):
    """A random draft is never right: guessing ends when its credit is spent, or goes on to the end of the sentence."""
    monkeypatch.setattr(speculation, "CREDIT", credit)
    sizes = count_blocks(monkeypatch)
    model, random = load(small_gpt), np.random.default_rng(3)
    request = Request(random.integers(0, 732, 12).tolist(), random.integers(0, 1024, 9).tolist(), NoiseStream(1, 0))
    sampling = Sampling(top_k=1, repetition_penalty=penalty, max_tokens=60)
    assert generate(model, [request], sampling)[0] == plain(model, request, sampling)
    assert sizes[0] == 1 and set(sizes[1:]) == {speculation.GUESSES + 1}
    assert len(sizes) > 30 if credit > 60 else 4 < len(sizes) < 20


def test_company_and_sampling_decode_plainly(demo):
    first, second = requests(demo, *SENTENCES[:2])
    assert isinstance(batch_of(demo.gpt, {0: first}, GREEDY, alone=True), SpeculativeBatch)
    for given, sampling, alone in (({0: first}, Sampling(top_k=2), True), ({0: first, 1: second}, GREEDY, False)):
        assert type(batch_of(demo.gpt, given, sampling, alone)) is PlainBatch


def test_two_sentences_are_decoded_together(demo, monkeypatch):
    sizes = count_blocks(monkeypatch)
    generate(demo.gpt, requests(demo, *SENTENCES[:2]), Sampling(top_k=1, max_tokens=3))
    assert not sizes


def test_a_voice_without_a_draft_and_a_draft_that_comes_later(small_gpt):
    path = small_gpt.with_name("draft.safetensors")
    aside = path.rename(path.with_suffix(".aside"))
    engine = GPTSoVITSEngine(small_gpt.parent.parent.parent)
    assert engine._store.gpt(small_gpt).draft is None
    aside.rename(path)
    assert engine._store.gpt(small_gpt).draft is not None


def test_a_draft_that_does_not_fit_is_refused(small_gpt):
    path = small_gpt.with_name("draft.safetensors")

    def refused(*parts: str) -> None:
        with pytest.raises(WeightsError) as caught:
            load(small_gpt)
        message = str(caught.value)
        assert "\n" not in message and all(part in message for part in (*parts, f"delete {path}", "train it again"))

    write_draft(small_gpt, sha256="0" * 64)
    refused("another GPT (000000000000…)", file_sha256(small_gpt)[:12])
    write_draft(small_gpt, width=16)
    refused("tokens.weight", "1025×16", "1025×32")
    path.write_bytes(b"no weights")
    refused("not a safetensors file")
    path.with_name("draft_config.json").write_text(json.dumps(["?"]))
    refused("draft_config.json is damaged")
