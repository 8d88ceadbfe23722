"""The stages and what is measured of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from gpt_sovits_mlx import audio
from gpt_sovits_mlx.decoding.decoder import DecodeRequest
from gpt_sovits_mlx.decoding.forms import decoder_for
from gpt_sovits_mlx.decoding.generation import generate
from gpt_sovits_mlx.decoding.sampling import BatchSampling, NoiseStream, sample
from gpt_sovits_mlx.decoding.state import prefill as read
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.result import SynthesisResult
from gpt_sovits_mlx.settings import Sampling
from gpt_sovits_mlx.text import TextFrontend
from gpt_sovits_mlx.verify.golden import DATA, load_texts
from gpt_sovits_mlx.voices.enrolment import APPENDED_SILENCE

from .errors import Absent, check_tokens
from .measure import Case, Clock, timed
from .parts import parts
from .reference import Reference
from .workbench import Workbench

SERIES = ((50, 10), (100, 20), (200, 50))
"""Tokens, and the phones that they say."""
PROMPT = 75
"""Tokens of the prompt."""
LATE = 2500
"""Position at which a decode is measured again."""
LATE_TOKENS = 100
BATCHES = (8, 32)
ENCODER_RATE = 16000
CHARACTERS = (20, 50)
RECORDINGS = (5, 10)
"""Seconds that CNHubert hears."""
STYLE_SECONDS = 5
SENTENCES = (1, 8, 32)
FORCED = 100
"""Tokens of each sentence where the weights are random: 4 s."""
FORCED_STREAM = 200
READ = 8
"""Sentences that the text front end reads in a run."""
MANDARIN = Path(__file__).resolve().parent.parent / "demo_voice_sentences" / "mandarin.txt"
LONG = (
    "the morning train was late again because of the snow and my brother had to wait for an hour at the station"
    " before he could go home to his family"
)


def spoken(number: int) -> str:
    """A text of so many English sentences."""
    lines = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
    return " ".join([line for line in lines if "," not in line][:number])


def text(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """Each run reads other sentences, so that what is remembered of words helps as it does in use."""
    frontend = TextFrontend()
    for line in load_texts():  # loads all dictionaries
        frontend.utterances(line["text"], line["language"], "cut0")
    english = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
    mandarin = MANDARIN.read_text(encoding="utf-8").splitlines()
    for name, language, lines in (("English", "en", english), ("Chinese", "zh", mandarin)):
        runs = count()

        def read(runs: Iterator[int] = runs, lines: Sequence[str] = lines, language: str = language) -> None:
            first = READ * next(runs)
            for number in range(first, first + READ):
                frontend.utterances(lines[number % len(lines)], language, "cut0")

        yield Case("text", f"{READ} sentences, {name}", timed(read))


def roberta(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    path = bench.encoder_path("roberta")
    if path is None:
        raise Absent(f"the voice {bench.folder.name} was trained without RoBERTa")
    model = bench.character_encoder(path).model
    for characters in CHARACTERS:
        # [CLS] and [SEP] stand around them
        ids = bench.random.integers(100, model.config.vocab_size, (1, characters + 2))
        given = mx.array(ids)
        yield Case(
            "roberta",
            f"{characters} characters",
            timed(lambda given=given: model(given)),
            reference and reference.roberta(path, ids),
            length=characters,
            profiled=characters == CHARACTERS[0],
        )


def cnhubert(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    path = bench.encoder_path("cnhubert")
    if path is None:
        raise Absent(f"the voice {bench.folder.name} was trained without CNHubert")
    model = bench.speech_encoder(path).model
    for seconds in RECORDINGS:
        heard = np.pad(bench.recording(seconds, ENCODER_RATE), (0, APPENDED_SILENCE))[None]
        given = mx.array(heard)
        yield Case(
            "cnhubert",
            f"{seconds} s of audio",
            timed(lambda given=given: model(given)),
            reference and reference.cnhubert(path, heard),
            length=seconds,
            profiled=seconds == RECORDINGS[0],
        )


def request(
    bench: Workbench, model: TextToSemantic, phones: int, prompt: int, row: int = 0, tokens: int = 1
) -> DecodeRequest:
    """Random input of a decode of so many tokens, with BERT features, as Chinese text has them."""
    vocabulary = min(model.config.phoneme_vocab_size, 322)  # the symbols of v1, which every model has
    features = mx.array(bench.random.standard_normal((phones, model.config.bert_dim)).astype(np.float32))
    return DecodeRequest(
        bench.random.integers(0, vocabulary, phones).tolist(),
        bench.random.integers(0, model.config.EOS, prompt).tolist(),
        NoiseStream(0, row),
        Sampling(max_tokens=tokens),
        features,
    )


def prefill(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """Up to the first token that is drawn."""
    model = bench.gpt()
    path = bench.endless_gpt_path
    for phones in (phones for _, phones in SERIES):
        given = request(bench, model, phones, PROMPT)
        yield Case(
            "prefill",
            f"{phones} phones, {PROMPT} prompt tokens",
            timed(first_token(model, given)),
            reference and reference.first_token(path, given),
            length=phones,
            profiled=phones == SERIES[-1][1],
        )


def first_token(model: TextToSemantic, given: DecodeRequest) -> Callable[[], object]:
    vocabulary = model.config.vocab_size
    phones, prompt = mx.array([given.phones]), mx.array([given.prompt])
    seen = np.zeros((1, vocabulary), bool)
    seen[0, list(given.prompt)] = True
    noise, bert = given.noise.block(0, vocabulary)[None, 0], given.bert
    assert bert is not None

    def work() -> object:
        logits, state = read(model, phones, bert[None], prompt)
        return sample(logits, mx.array(seen), noise, [0], BatchSampling.of([given.sampling])), state.arrays()

    return work


def decode(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """Steps behind the prefill (the reference's: behind the first token), alone and late; then batches as a whole."""
    model = bench.gpt()
    path = bench.endless_gpt_path
    late = (LATE_TOKENS, SERIES[1][1], LATE - LATE_TOKENS - SERIES[1][1])
    for tokens, phones, prompt in [*((*entry, PROMPT) for entry in SERIES), late]:
        given = request(bench, model, phones, prompt, tokens=tokens)
        name = f"{tokens} tokens after {phones} phones and {prompt} prompt tokens"
        yield Case(
            "decode",
            name if prompt == PROMPT else f"{tokens} tokens up to position {LATE}",
            steps_clock(model, given, tokens),
            reference and reference.steps(path, given, tokens),
            tokens=tokens,
            length=tokens if prompt == PROMPT else 0,
            profiled=tokens == SERIES[0][0],
        )
    tokens, phones = SERIES[1]
    for rows in BATCHES:
        batch = [request(bench, model, phones + row % phones, PROMPT, row, tokens) for row in range(rows)]
        yield Case(
            "decode",
            f"{rows} rows of {tokens} tokens, prefill included",
            batch_clock(model, batch, tokens),
            reference and reference.batch(path, batch, tokens),
            tokens=rows * tokens,
        )


def steps_clock(model: TextToSemantic, given: DecodeRequest, tokens: int) -> Clock:
    """Time behind the prefill: `tokens` draws, and what is decoded between them."""

    def clock() -> float:
        decoder, made = decoder_for(model), 0
        decoder.join({0: given})
        mx.synchronize()
        start = time.perf_counter()
        while len(decoder):
            made += sum(token is not None for step in decoder.advance() for _, token in step)
        seconds = time.perf_counter() - start
        mx.synchronize()  # one step more may be under way
        check_tokens(made, tokens)
        return seconds

    return clock


def batch_clock(model: TextToSemantic, batch: Sequence[DecodeRequest], tokens: int) -> Clock:
    def clock() -> float:
        start = time.perf_counter()
        made = generate(model, batch, len(batch))
        seconds = time.perf_counter() - start
        mx.synchronize()
        check_tokens(sum(len(row.tokens) for row in made), len(batch) * tokens)
        return seconds

    return clock


def sovits(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """The style of a reference's spectrogram and the audio, as the reference computes both at every call."""
    model = bench.sovits()
    config = model.config
    heard = bench.recording(STYLE_SECONDS, config.sampling_rate)
    spectrogram = audio.spectrogram(mx.array(heard), config.filter_length, config.hop_length)
    mx.eval(spectrogram)
    for tokens, phones in SERIES:
        codes = bench.random.integers(0, model.config.codes, (1, tokens))
        said = bench.random.integers(0, 322, (1, phones))
        given = mx.array(codes), mx.array(said)

        def work(given: tuple[mx.array, mx.array] = given, frames: int = model.latent_frames(tokens)) -> mx.array:
            noise = mx.random.normal((1, frames, model.latent_width))
            return model.decode(*given, model.style([spectrogram]), noise=noise)

        yield Case(
            "sovits",
            f"{tokens} tokens",
            timed(work),
            reference and reference.sovits(bench.sovits_path, codes, said, np.array(spectrogram)),
            audio=lambda tokens=tokens: tokens * 2 * config.samples_per_frame / config.sampling_rate,
            length=tokens,
            profiled=tokens == SERIES[1][0],
        )


def end_to_end(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    engine, voice = bench.engine()
    made: list[SynthesisResult] = []
    for number in SENTENCES:
        words, limit = spoken(number), bench.limit(FORCED)

        def work(words: str = words, limit: int | None = limit) -> None:
            made[:] = [engine.synthesize(words, "en", voice, seed=1, max_tokens=limit)]

        yield Case(
            "end_to_end",
            f"{number} sentence{'s' if number > 1 else ''}",
            clock_of(work),
            audio=lambda: made[0].duration,
            length=number,
            profiled=number == SENTENCES[0],
        )


def streaming(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """A long sentence: the same work whole and streamed, and the first of its audio."""
    engine, voice = bench.engine()
    settings: dict[str, Any] = {"seed": 1, "split_method": "cut0", "max_tokens": bench.limit(FORCED_STREAM)}
    made: list[SynthesisResult] = []

    def whole() -> None:
        made[:] = [engine.synthesize(LONG, "en", voice, **settings)]

    def first() -> None:
        chunks = engine.stream(LONG, "en", voice, **settings)
        next(chunks)
        chunks.close()

    def chunks() -> None:
        for _ in engine.stream(LONG, "en", voice, **settings):
            pass

    yield Case("streaming", "a long sentence, not streamed", clock_of(whole), audio=lambda: made[0].duration)
    yield Case("streaming", "all of its chunks", clock_of(chunks), audio=lambda: made[0].duration)
    yield Case("streaming", "its first audio", clock_of(first), profiled=True)


def clock_of(work: Callable[[], object]) -> Clock:
    """A clock around work that ends with samples in main memory."""

    def clock() -> float:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        mx.synchronize()  # what was under way for a stream that was closed
        return seconds

    return clock


def enrolment(bench: Workbench, reference: Reference | None) -> Iterator[Case]:
    """A recording that was never heard before, with a transcript: CNHubert, tokens, style, text."""
    engine, _ = bench.engine()

    def clock() -> float:
        recording = bench.write_recording(STYLE_SECONDS)
        return clock_of(lambda: engine.load_voice(bench.folder.path, recording, spoken(1), "en"))()

    yield Case("enrolment", f"{STYLE_SECONDS} s of audio", clock, profiled=True)


Stage = Callable[[Workbench, "Reference | None"], Iterator[Case]]
"""Loads what it measures and yields its cases, with the reference's side where there is one.

Raises:
    Absent: the voice has nothing to measure here.
"""

STAGES: dict[str, Stage] = {
    stage.__name__: stage
    for stage in (text, roberta, cnhubert, prefill, decode, sovits, end_to_end, streaming, enrolment, parts)
}
