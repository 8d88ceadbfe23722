"""Settings are spelled once, and sentences of different requests, voices and settings share their batches."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields

import numpy as np
import pytest

from gpt_sovits_mlx import GPTSoVITSEngine, GPTSoVITSError, VoiceError
from gpt_sovits_mlx.cli import _parser
from gpt_sovits_mlx.decoding.decoder import Decoder
from gpt_sovits_mlx.decoding.generation import generate
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.request import Request, Sentence
from gpt_sovits_mlx.settings import SETTINGS, Sampling, Settings
from gpt_sovits_mlx.vocoder import vocode_sentences
from gpt_sovits_mlx.voices.enrolment import character_features
from small_voice import make_model_folder, tone


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> GPTSoVITSEngine:
    """Two voices over the weights of one, each with a recording of its own."""
    folder = make_model_folder(tmp_path_factory.mktemp("models"), ("one",))
    two = folder / "voices" / "two"
    shutil.copytree(folder / "voices" / "one", two)
    (two / "gpt.safetensors").unlink()
    (two / "sovits.safetensors").unlink()
    description = json.loads((two / "voice.json").read_text()) | {"name": "two", "weights": "one"}
    (two / "voice.json").write_text(json.dumps(description))
    tone(two / "reference.wav", 4.0, 310)
    return GPTSoVITSEngine(folder)


ASKED = [
    ("one", "今天天气很好。我们去公园散步吧！", {"seed": 3, "max_tokens": 40, "top_k": 1}),
    ("two", "Let us go. My friend went home.", {"seed": 4, "max_tokens": 25, "temperature": 1.5, "top_p": 0.9}),
]


def test_texts_in_two_voices_share_their_batches(engine, monkeypatch):
    requests = [Request.of(engine.load_voice(name), text, Settings.of(given)) for name, text, given in ASKED]
    alone = [engine.synthesize(text, voice=name, pause=0, **given) for name, text, given in ASKED]
    sentences: list[Sentence] = [sentence for request in requests for sentence in request.sentences]
    assert len({id(sentence.voice.gpt) for sentence in sentences}) == 1 and len(sentences) == 4
    joined, join = [], Decoder.join
    monkeypatch.setattr(Decoder, "join", lambda self, given: (joined.append(len(given)), join(self, given))[1])
    encoders = [encoder for request in requests for encoder in engine._character_encoders(request)]
    features = [
        character_features(sentence.utterance, encoder, sentence.voice.gpt.config.bert_dim)
        for sentence, encoder in zip(sentences, encoders, strict=True)
    ]
    given = [sentence.to_decode(own) for sentence, own in zip(sentences, features, strict=True)]
    made = generate(sentences[0].voice.gpt, given)
    assert joined == [4]
    spoken = [sentence for result in alone for sentence in result.sentences]
    assert [len(generation.tokens) for generation in made] == [sentence.tokens for sentence in spoken]

    decoded, decode = [], SoVITS.decode
    monkeypatch.setattr(SoVITS, "decode", lambda self, *a: (decoded.append(len(a[0])), decode(self, *a))[1])
    monkeypatch.setattr(sentences[0].voice.sovits, "pads", True)
    heard = dict(vocode_sentences(sentences, [generation.tokens for generation in made]))
    assert decoded == [8]  # four, in the smallest group that CUDA vocodes
    for result, first in zip(alone, (0, 2), strict=True):
        together = np.concatenate([heard[first], heard[first + 1]])
        assert together.shape == result.audio.shape and np.abs(together - result.audio).max() < 1e-4


def test_settings_are_those_of_the_command_line():
    _, commands = _parser()
    options = {action.dest: action for action in commands["speak"]._actions}
    assert set(SETTINGS) <= set(options)
    for field in (*fields(Settings), *fields(Sampling)):
        if field.metadata:
            assert options[field.name].default is None and field.metadata["help"] in str(options[field.name].help)
    made = commands["speak"].parse_args(["x", "--split", "cut2", "--top-p", "0.5", "--max-tokens", "7", "-l", "en"])
    assert (made.split_method, made.top_p, made.max_tokens, made.language) == ("cut2", 0.5, 7, "en")


def test_what_a_voice_recommends_gives_way_to_what_is_asked_for():
    asked = Settings.of({"top_k": 3, "temperature": None, "speed": 2.0})
    assert asked.speed == 2.0 and asked.language == "auto"
    drawn = Sampling.recommended({"top_k": 1, "temperature": 0.5}, asked.sampling, "voice.json")
    assert drawn == Sampling(top_k=3, temperature=0.5)
    with pytest.raises(VoiceError, match=r"voice\.json: unknown defaults loudness"):
        Sampling.recommended({"loudness": 1}, {}, "voice.json")


@pytest.mark.parametrize("given", [{"top_q": 1}, {"speed": 9}, {"pause": -1}, {"sampling": {}}])
def test_unknown_settings_and_those_out_of_range_are_named(given):
    with pytest.raises(GPTSoVITSError, match=next(iter(given))):
        Settings.of(given)
