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

from .decoding.generation import Generation, generate
from .encoders import CharacterEncoder
from .errors import AudioError, GPTSoVITSError, VoiceError
from .request import Request, Sentence
from .result import AudioChunk, SpokenSentence, SynthesisResult
from .settings import Settings
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
        progress: Progress | None = None,
        **settings: Any,
    ) -> SynthesisResult:
        """Speak a text.

        Args:
            text: of any length.
            language: "auto", "zh" (Chinese with English inside), "en" or "all_zh".
            voice: a loaded voice or a name; by default the one loaded last, else the demo voice.
            progress: called as sentences are done.
            settings: those of `settings.Settings` and `settings.Sampling`: `speed`, `pause`, `seed`, `split_method`,
                `top_k`, `top_p`, `temperature`, `repetition_penalty`, `max_tokens`. Of the last five, what is not given
                is what the voice recommends, else the reference's default.

        Raises:
            TextError: the text cannot be spoken.
            VoiceError, DependencyError: see `load_voice`.
            GPTSoVITSError: there is no such setting, or it is out of its range.
        """
        start = time.perf_counter()
        request = Request.of(self._resolve(voice), text, Settings.of({"language": language, **settings}))
        texted = time.perf_counter()
        features = [
            character_features(sentence.utterance, encoder, sentence.voice.gpt.config.bert_dim)
            for sentence, encoder in zip(request.sentences, self._character_encoders(request), strict=True)
        ]
        encoded = time.perf_counter()
        generations = _decode(request.sentences, features, progress)
        decoded = time.perf_counter()
        samples, sentences = _vocode(request, generations, progress)
        end = time.perf_counter()
        marks = {
            "text_processing": texted - start,
            "bert_encoding": encoded - texted,
            "gpt_generation": decoded - encoded,
            "vocoder": end - decoded,
            "total": end - start,
        }
        timing = {stage: 1000 * seconds for stage, seconds in marks.items()}
        rate = request.sample_rate
        return SynthesisResult(samples, rate, len(samples) / rate, timing, sentences, request.seed)

    def stream(
        self, text: str, language: str = "auto", voice: Voice | str | None = None, **settings: Any
    ) -> Generator[AudioChunk, None, None]:
        """Speak a text in chunks, the first of them after 16 tokens (0.64 s of speech), later ones larger.

        The work is done when a chunk is asked for, so a player should take chunks ahead of what it plays. Closing
        the generator ends it. The chunks amount to what `synthesize` makes of the same arguments, which are
        explained there: the same tokens and the same length, the sound all but the same (at a speed other than 1
        up to 20 ms away from its place in the sentence).

        Raises:
            TextError, VoiceError, DependencyError, GPTSoVITSError: see `synthesize`; before the first chunk is asked
                for.
        """
        request = Request.of(self._resolve(voice), text, Settings.of({"language": language, **settings}))
        return stream(request, self._character_encoders(request))

    def _character_encoders(self, request: Request) -> list[CharacterEncoder | None]:
        """Who reads the Chinese characters of each sentence."""
        return [
            self._loader.character_encoder(sentence.voice.folder, sentence.utterance) for sentence in request.sentences
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


def _decode(
    sentences: Sequence[Sentence], features: Sequence[mx.array | None], progress: Progress | None
) -> list[Generation]:
    """Decode sentences together, as far as their voices share a GPT."""
    counter = itertools.count(1)

    def done() -> None:
        if progress:
            progress("gpt", next(counter), len(sentences))

    results: dict[int, Generation] = {}
    for gpt in {id(sentence.voice.gpt): sentence.voice.gpt for sentence in sentences}.values():
        own = [i for i, sentence in enumerate(sentences) if sentence.voice.gpt is gpt]
        requests = [sentences[i].to_decode(features[i]) for i in own]
        results |= zip(own, generate(gpt, requests, done=done), strict=True)
    return [results[i] for i in range(len(sentences))]


def _vocode(
    request: Request, generations: Sequence[Generation], progress: Progress | None
) -> tuple[np.ndarray, tuple[SpokenSentence, ...]]:
    """Vocode all sentences, put them one behind the other, each with its pause, and tell where they lie."""
    made: dict[int, np.ndarray] = {}
    for number, samples in vocode_sentences(request.sentences, [generation.tokens for generation in generations]):
        made[number] = samples
        if progress:
            progress("vocoder", len(made), len(generations))
    silence = np.zeros(request.silence, np.float32)
    spoken, parts, position = [], [], 0
    for number, (sentence, generation) in enumerate(zip(request.sentences, generations, strict=True)):
        end = position + len(made[number])
        spoken.append(SpokenSentence.of(sentence, position, end, generation, request.sample_rate))
        parts += [made[number], silence]
        position = end + len(silence)
    return np.concatenate(parts), tuple(spoken)
