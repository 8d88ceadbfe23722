"""The engine: text → audio, in a voice."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from .encoders import CharacterEncoder
from .errors import AudioError, GPTSoVITSError, VoiceError
from .generation import Generation, generate
from .result import AudioChunk, Sentence, SynthesisResult
from .script import Script
from .streaming import stream
from .text.lexicon import Entries
from .vocoder import vocode_sentences
from .voices.enrolment import character_features
from .voices.format import Reference, VoiceFolder
from .voices.library import find_voice, model_home, voice_paths, voice_roots
from .voices.loader import KEEP, VoiceLoader
from .voices.voice import Voice

DTYPES = {"auto": None, "float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
ENCODER_BACKENDS = ("auto", "mlx", "coreml")
Progress = Callable[[str, int, int], None]
"""Called with the stage ("gpt", "vocoder"), the sentences done and those there are."""


class GPTSoVITSEngine:
    """Loads voices and speaks in them. Threads may share an engine, each with a voice of its own.

    Args:
        model_dir: folder with `voices/` and `encoders/`; by default $GPT_SOVITS_MLX_HOME, else the user's data
            folder. The voices that ship with the package are found in any case.
        dtype: "auto" computes in the type that the weights are stored in, except on a CPU, which always
            computes in float32; "float32", "float16" and "bfloat16" convert them.
        lexicon: file or mapping of words with readings of your own (see `gpt_sovits_mlx.text.TextFrontend`).
        encoder_backend: "mlx", "coreml" (the Neural Engine of a Mac), or "auto": Core ML on a Mac with macOS 15 for
            each encoder whose package lies beside its weights, MLX elsewhere.
        keep: bytes of models, encoders and voices that stay loaded; above, those that were not used for longest are
            let go, and loaded again when they are asked for. A `Voice` that you hold stays whole as long as you do.
            By default 4 GiB: both published encoders and five official voices in float32, twelve in float16.

    Raises:
        GPTSoVITSError: an unknown `dtype` or `encoder_backend`, or a negative `keep`.
    """

    def __init__(
        self,
        model_dir: str | Path | None = None,
        dtype: str = "auto",
        lexicon: str | Path | Entries | None = None,
        encoder_backend: str = "auto",
        keep: int = KEEP,
    ):
        if dtype not in DTYPES:
            raise GPTSoVITSError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
        if encoder_backend not in ENCODER_BACKENDS:
            known = ", ".join(ENCODER_BACKENDS)
            raise GPTSoVITSError(f"unknown encoder back end {encoder_backend!r}: choose one of {known}")
        self.model_dir = model_home(model_dir)
        self._loader = VoiceLoader(self.model_dir, DTYPES[dtype], lexicon, encoder_backend, keep=keep)
        self._default: Voice | None = None

    @property
    def voice_roots(self) -> list[Path]:
        """Folders where voices are looked for, by precedence."""
        return voice_roots(self.model_dir)

    def voices(self) -> list[VoiceFolder]:
        """All voices that can be loaded by name."""
        return [VoiceFolder.read(path) for path in voice_paths(self.voice_roots)]

    def load_voice(
        self,
        name_or_path: str | Path,
        reference: str | Path | None = None,
        reference_text: str | None = None,
        reference_language: str = "auto",
        auxiliary: Sequence[str | Path] = (),
    ) -> Voice:
        """Load a voice and make it the default.

        What its reference yields is computed once and kept on disk; a voice with that cache needs no CNHubert.

        Args:
            name_or_path: name of a voice, or path of its folder.
            reference: another recording of 3 to 10 s to imitate, instead of the voice's own.
            reference_text: what is said in it; without it only the timbre is imitated.
            reference_language: its language.
            auxiliary: further recordings of that speaker, averaged into the style.

        Raises:
            VoiceError: no such voice, or its folder is incomplete.
            AudioError: the reference cannot be used.
            DependencyError: an encoder is needed and missing.
            WeightsError: the weights are damaged.
        """
        folder = VoiceFolder.read(find_voice(name_or_path, self.voice_roots))
        spec = folder.reference
        if reference is not None:
            extra = tuple(Path(p).expanduser() for p in auxiliary)
            spec = Reference(Path(reference).expanduser(), reference_text or None, reference_language, extra)
            for path in spec.files():
                if not path.is_file():
                    raise AudioError(f"no recording at {path}")
        elif reference_text or auxiliary:
            raise VoiceError("a transcript or auxiliary recordings need a reference recording beside them")
        voice = self._loader.voice(folder, spec)
        self._default = voice
        return voice

    def synthesize(
        self,
        text: str,
        language: str = "auto",
        voice: Voice | str | None = None,
        *,
        speed: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        repetition_penalty: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        split_method: str = "cut5",
        pause: float = 0.3,
        progress: Progress | None = None,
    ) -> SynthesisResult:
        """Speak a text.

        Args:
            text: of any length.
            language: "auto", "zh" (Chinese with English inside), "en" or "all_zh".
            voice: a loaded voice or a name; by default the one loaded last, else the demo voice.
            speed: above 1 is faster, 0.3 to 3.
            top_k, top_p, temperature, repetition_penalty, max_tokens: see `Sampling`; by default what the voice
                recommends, else the reference's defaults.
            seed: the same seed says the same again; by default a random one.
            split_method: "cut0" to "cut5", as in the reference; "cut5" splits at punctuation.
            pause: seconds of silence behind each sentence.
            progress: called as sentences are done.

        Raises:
            TextError: the text cannot be spoken.
            VoiceError, DependencyError: see `load_voice`.
        """
        start = time.perf_counter()
        drawn = {
            "top_k": top_k,
            "top_p": top_p,
            "temperature": temperature,
            "repetition_penalty": repetition_penalty,
            "max_tokens": max_tokens,
        }
        script = Script.of(self._resolve(voice), text, language, split_method, speed, pause, seed, drawn)
        texted = time.perf_counter()
        features = [
            character_features(utterance, encoder, speaker.gpt.bert_width)
            for speaker, utterance, encoder in zip(
                script.speakers, script.utterances, self._character_encoders(script), strict=True
            )
        ]
        encoded = time.perf_counter()
        generations = _decode(script, features, progress)
        decoded = time.perf_counter()
        samples, sentences = _vocode(script, generations, progress)
        end = time.perf_counter()
        marks = {
            "text_processing": texted - start,
            "bert_encoding": encoded - texted,
            "gpt_generation": decoded - encoded,
            "vocoder": end - decoded,
            "total": end - start,
        }
        timing = {stage: 1000 * seconds for stage, seconds in marks.items()}
        rate = script.voice.sample_rate
        return SynthesisResult(samples, rate, len(samples) / rate, timing, sentences, script.seed)

    def stream(
        self,
        text: str,
        language: str = "auto",
        voice: Voice | str | None = None,
        *,
        speed: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        repetition_penalty: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        split_method: str = "cut5",
        pause: float = 0.3,
    ) -> Generator[AudioChunk, None, None]:
        """Speak a text in chunks, the first of them after 16 tokens (0.64 s of speech), later ones larger.

        The work is done when a chunk is asked for, so a player should take chunks ahead of what it plays. Closing
        the generator ends it. The chunks amount to what `synthesize` makes of the same arguments, which are
        explained there: the same tokens and the same length, the sound all but the same (at a speed other than 1
        up to 20 ms away from its place in the sentence).

        Raises:
            TextError, VoiceError, DependencyError: see `synthesize`; before the first chunk is asked for.
        """
        drawn = {
            "top_k": top_k,
            "top_p": top_p,
            "temperature": temperature,
            "repetition_penalty": repetition_penalty,
            "max_tokens": max_tokens,
        }
        script = Script.of(self._resolve(voice), text, language, split_method, speed, pause, seed, drawn)
        return stream(script, self._character_encoders(script))

    def _character_encoders(self, script: Script) -> list[CharacterEncoder | None]:
        """Who reads the Chinese characters of each sentence."""
        return [
            self._loader.character_encoder(speaker.folder, utterance)
            for speaker, utterance in zip(script.speakers, script.utterances, strict=True)
        ]

    def _resolve(self, voice: Voice | str | None) -> Voice:
        if isinstance(voice, Voice):
            return voice
        if voice is None and self._default is not None:
            return self._default
        folder = VoiceFolder.read(find_voice(voice or "demo", self.voice_roots))
        return self._loader.voice(folder)


def synthesize(
    text: str,
    model_dir: str | Path | None = None,
    voice_name: str | Path = "demo",
    output_path: str | Path | None = None,
    **settings: Any,
) -> SynthesisResult:
    """Speak a text in one call; `settings` are those of `GPTSoVITSEngine.synthesize`.

    The engine stays loaded for the next call with the same `model_dir`.

    Raises:
        GPTSoVITSError: see `GPTSoVITSEngine.load_voice` and `.synthesize`.
    """
    with _engines_lock:
        engine = _engines.setdefault(str(model_dir), GPTSoVITSEngine(model_dir))
    result = engine.synthesize(text, voice=engine.load_voice(voice_name), **settings)
    if output_path is not None:
        result.save(output_path)
    return result


_engines: dict[str, GPTSoVITSEngine] = {}
_engines_lock = threading.Lock()


def _decode(script: Script, features: Sequence[mx.array | None], progress: Progress | None) -> list[Generation]:
    """Decode the sentences of a text together, as far as their speakers share a GPT."""
    counter = itertools.count(1)

    def done() -> None:
        if progress:
            progress("gpt", next(counter), len(script.utterances))

    results: dict[int, Generation] = {}
    for gpt in {id(speaker.gpt): speaker.gpt for speaker in script.speakers}.values():
        mine = [i for i, speaker in enumerate(script.speakers) if speaker.gpt is gpt]
        requests = [script.request(i, features[i]) for i in mine]
        results |= zip(mine, generate(gpt, requests, script.sampling, done=done), strict=True)
    return [results[i] for i in range(len(script.utterances))]


def _vocode(
    script: Script, generations: Sequence[Generation], progress: Progress | None
) -> tuple[np.ndarray, tuple[Sentence, ...]]:
    """Vocode all sentences, put them one behind the other, each with its pause, and tell where they lie."""
    made: dict[int, np.ndarray] = {}
    for index, samples in vocode_sentences(script, [generation.tokens for generation in generations]):
        made[index] = samples
        if progress:
            progress("vocoder", len(made), len(generations))
    silence = script.silence()
    sentences, parts, position = [], [], 0
    for index, generation in enumerate(generations):
        sentences.append(script.sentence(index, position, len(made[index]), generation))
        parts += [made[index], silence]
        position += len(made[index]) + len(silence)
    return np.concatenate(parts), tuple(sentences)
