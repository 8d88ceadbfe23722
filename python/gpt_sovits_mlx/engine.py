"""The engine: text → audio, in a voice."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from . import audio
from .errors import AudioError, GPTSoVITSError, VoiceError
from .generation import Generation, Request, generate
from .runtime import model_home
from .sampling import NoiseStream, Sampling
from .store import ModelStore
from .text import Utterance
from .voice import Reference, Voice, VoiceFolder, find_voice, voice_paths

DTYPES = {"auto": None, "float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
ENCODER_BACKENDS = ("auto", "mlx", "coreml")
BATCH = 16
"""Sentences decoded together; more would hold memory for little speed."""
Progress = Callable[[str, int, int], None]
"""Called with the stage ("gpt", "vocoder"), the sentences done and those there are."""


@dataclass(frozen=True)
class Sentence:
    """A sentence of a result.

    Attributes:
        text: as it was split from the text.
        start, end: seconds in the result, the pause behind it left out.
        tokens: how many semantic tokens it took (25 a second at speed 1).
        ended: false where it reached `max_tokens` and was cut off.
    """

    text: str
    start: float
    end: float
    tokens: int
    ended: bool


@dataclass(frozen=True)
class SynthesisResult:
    """Speech.

    Attributes:
        audio: (samples,) float32 within ±1.
        sample_rate: in Hz.
        duration: in seconds.
        timing: milliseconds by stage: text_processing, bert_encoding, gpt_generation, vocoder, total.
        sentences: where each sentence lies in the audio.
        seed: says the same again with the same settings.
    """

    audio: np.ndarray
    sample_rate: int
    duration: float
    timing: dict[str, float]
    sentences: tuple[Sentence, ...]
    seed: int

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of audio."""
        return self.timing["total"] / 1000 / self.duration if self.duration else 0.0

    def save(self, path: str | Path) -> None:
        """Write the audio in the format that the name's ending says (.wav, .flac, .ogg, …).

        Raises:
            AudioError: the format is unknown or the file cannot be written.
        """
        audio.write(path, self.audio, self.sample_rate)


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

    Raises:
        GPTSoVITSError: an unknown `dtype` or `encoder_backend`.
    """

    def __init__(
        self,
        model_dir: str | Path | None = None,
        dtype: str = "auto",
        lexicon: str | Path | None = None,
        encoder_backend: str = "auto",
    ):
        if dtype not in DTYPES:
            raise GPTSoVITSError(f"unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}")
        if encoder_backend not in ENCODER_BACKENDS:
            known = ", ".join(ENCODER_BACKENDS)
            raise GPTSoVITSError(f"unknown encoder back end {encoder_backend!r}: choose one of {known}")
        self.model_dir = Path(model_dir).expanduser() if model_dir else model_home()
        self._store = ModelStore(self.model_dir, DTYPES[dtype], lexicon, encoder_backend)
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
        voice = self._store.voice(folder, spec)
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
        if not 0.3 <= speed <= 3:
            raise GPTSoVITSError(f"speed is {speed}: it must be from 0.3 to 3")
        if not 0 <= pause <= 60:
            raise GPTSoVITSError(f"pause is {pause} s: it must be from 0 to 60")
        voice = self._resolve(voice)
        given = {
            "top_k": top_k,
            "top_p": top_p,
            "temperature": temperature,
            "repetition_penalty": repetition_penalty,
            "max_tokens": max_tokens,
        }
        sampling = replace(_sampling(voice), **{k: v for k, v in given.items() if v is not None})
        seed = secrets.randbits(32) if seed is None else seed
        utterances = voice.frontend.utterances(text, language, split_method)
        texted = time.perf_counter()
        speakers = [voice.speaker(u) for u in utterances]
        features = [
            self._store.features(s.folder, u, s.gpt.bert_width) for s, u in zip(speakers, utterances, strict=True)
        ]
        encoded = time.perf_counter()
        generations = self._tokens(speakers, utterances, features, sampling, seed, progress)
        decoded = time.perf_counter()
        pieces = self._audio(speakers, utterances, generations, speed, seed, progress)
        samples, sentences = _join(utterances, generations, pieces, voice.sample_rate, pause)
        end = time.perf_counter()
        marks = {
            "text_processing": texted - start,
            "bert_encoding": encoded - texted,
            "gpt_generation": decoded - encoded,
            "vocoder": end - decoded,
            "total": end - start,
        }
        timing = {stage: 1000 * seconds for stage, seconds in marks.items()}
        duration = len(samples) / voice.sample_rate
        return SynthesisResult(samples, voice.sample_rate, duration, timing, sentences, seed)

    def _tokens(
        self,
        speakers: Sequence[Voice],
        utterances: Sequence[Utterance],
        features: Sequence[mx.array | None],
        sampling: Sampling,
        seed: int,
        progress: Progress | None,
    ) -> list[Generation]:
        """Decode the sentences of a text in batches, one speaker at a time."""
        results: dict[int, Generation] = {}
        for speaker in dict.fromkeys(map(id, speakers)):
            mine = [i for i, s in enumerate(speakers) if id(s) == speaker]
            for first in range(0, len(mine), BATCH):
                batch = mine[first : first + BATCH]
                requests = [_request(speakers[i], utterances[i], features[i], NoiseStream(seed, i)) for i in batch]
                made = generate(speakers[batch[0]].gpt, requests, sampling)
                results |= dict(zip(batch, made, strict=True))
                if progress:
                    progress("gpt", len(results), len(utterances))
        return [results[i] for i in range(len(utterances))]

    def _audio(
        self,
        speakers: Sequence[Voice],
        utterances: Sequence[Utterance],
        generations: Sequence[Generation],
        speed: float,
        seed: int,
        progress: Progress | None,
    ) -> list[np.ndarray]:
        """Vocode sentence by sentence."""
        pieces = []
        for index, (speaker, utterance, generation) in enumerate(zip(speakers, utterances, generations, strict=True)):
            sovits = speaker.sovits
            # a sentence that ended at once still gets a frame to vocode, as in the reference
            tokens = generation.tokens or [0]
            shape = (1, sovits.latent_frames(len(tokens), speed), sovits.latent_width)
            samples = sovits.decode(
                mx.array([tokens]),
                mx.array([utterance.phone_ids]),
                speaker.conditioning.style,
                speed,
                NoiseStream(seed, index).normal(shape),
            )
            piece = np.array(samples[0])
            peak = np.abs(piece).max(initial=0)
            pieces.append(piece / peak if peak > 1 else piece)
            if progress:
                progress("vocoder", index + 1, len(utterances))
        return pieces

    def _resolve(self, voice: Voice | str | None) -> Voice:
        if isinstance(voice, Voice):
            return voice
        if voice is None and self._default is not None:
            return self._default
        folder = VoiceFolder.read(find_voice(voice or "demo", self.voice_roots))
        return self._store.voice(folder, folder.reference)


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


def voice_roots(model_dir: Path) -> list[Path]:
    """Where voices are looked for: the user's first, then those that come with the package."""
    return [model_dir / "voices", shipped_voices()]


def shipped_voices() -> Path:
    """Folder of the voices that come with the package: inside it, or beside `python/` in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "voices"
    return inside if inside.is_dir() else package.parent.parent / "voices"


def _sampling(voice: Voice) -> Sampling:
    """What the voice recommends, else the reference's defaults."""
    known = Sampling.__dataclass_fields__
    unknown = set(voice.folder.defaults) - set(known)
    if unknown:
        raise VoiceError(f"{voice.folder.path / 'voice.json'}: unknown defaults {', '.join(sorted(unknown))}")
    return Sampling(**voice.folder.defaults)


def _request(voice: Voice, utterance: Utterance, features: mx.array | None, noise: NoiseStream) -> Request:
    """The prompt's phones and features, then the sentence's."""
    prompt = voice.conditioning
    phones = [*prompt.phones, *utterance.phone_ids]
    bert = None
    if features is not None or prompt.bert is not None:
        width = voice.gpt.bert_width
        parts = [
            mx.zeros((count, width)) if part is None else part
            for part, count in ((prompt.bert, len(prompt.phones)), (features, len(utterance.phone_ids)))
        ]
        bert = mx.concatenate(parts)
    return Request(phones, prompt.tokens, noise, bert)


def _join(
    utterances: Sequence[Utterance],
    generations: Sequence[Generation],
    pieces: Sequence[np.ndarray],
    rate: int,
    pause: float,
) -> tuple[np.ndarray, tuple[Sentence, ...]]:
    """All sentences, each with its pause behind it, and where they lie."""
    silence = np.zeros(int(rate * pause), np.float32)
    sentences, parts, position = [], [], 0
    for utterance, generation, piece in zip(utterances, generations, pieces, strict=True):
        end = position + len(piece)
        sentences.append(
            Sentence(utterance.text, position / rate, end / rate, len(generation.tokens), generation.ended)
        )
        parts += [piece, silence]
        position = end + len(silence)
    return np.concatenate(parts), tuple(sentences)
