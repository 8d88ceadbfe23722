"""What an engine has loaded: each model once, shared by the voices that use it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx

from .encoders import CharacterEncoder, SpeechEncoder
from .encoders.coreml import (
    CoreMLCharacterEncoder,
    CoreMLProgram,
    CoreMLSpeechEncoder,
    Program,
    package_beside,
    runs_here,
)
from .encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from .errors import VoiceError
from .files import file_sha256
from .models.sovits import SoVITS
from .models.t2s import TextToSemantic
from .text import TextFrontend, Utterance
from .voice import (
    Conditioning,
    ConditioningCache,
    Reference,
    Voice,
    VoiceFolder,
    character_features,
    prompt_tokens,
    style_of,
)
from .weights import load_model

T = TypeVar("T")
E = TypeVar("E", SpeechEncoder, CharacterEncoder)
OFFICIAL = "official"
"""In voice.json: made for the published encoder, before one was installed whose hash could be noted."""


class ModelStore:
    """Loads models, encoders and voices when they are first asked for; threads may share it.

    Args:
        model_dir: folder with `encoders/`.
        dtype: type to compute in, `None` for the stored one.
        lexicon: the user's readings, for every text front end.
        encoder_backend: "mlx", "coreml", or "auto": Core ML on a Mac that can, for an encoder whose package lies
            beside its weights.
        program: what runs a Core ML package.
    """

    def __init__(
        self,
        model_dir: Path,
        dtype: mx.Dtype | None,
        lexicon: str | Path | None,
        encoder_backend: str = "mlx",
        program: Callable[[Path], Program] = CoreMLProgram,
    ):
        self.model_dir = model_dir
        self.dtype = dtype
        self.lexicon = lexicon
        self.encoder_backend = encoder_backend
        self.program = program
        self._loaded: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.RLock()

    def voice(self, folder: VoiceFolder, reference: Reference) -> Voice:
        """A voice ready to speak; its reference is enrolled where no cache holds what it yields."""
        key = ("voice", folder.path, reference, *map(_stamp, reference.files()))
        return self._once(key, lambda: self._make_voice(folder, reference))

    def gpt(self, path: Path) -> TextToSemantic:
        return self._of_file(path, lambda: load_model(TextToSemantic, path, self.dtype))

    def sovits(self, path: Path) -> SoVITS:
        return self._of_file(path, lambda: load_model(SoVITS, path, self.dtype))

    def frontend(self, symbols: str) -> TextFrontend:
        return self._once(("frontend", symbols), lambda: TextFrontend(symbols, lexicon=self.lexicon))

    def speech_encoder(self, folder: VoiceFolder) -> SpeechEncoder:
        """CNHubert for a voice.

        Raises:
            DependencyError: it is missing.
            VoiceError: the voice was made with another one.
        """
        return self._encoder(
            folder,
            "cnhubert",
            lambda weights: MLXSpeechEncoder(weights, self.dtype),
            lambda package: CoreMLSpeechEncoder(package, self.program),
        )

    def character_encoder(self, folder: VoiceFolder, utterance: Utterance) -> CharacterEncoder | None:
        """RoBERTa for a voice; `None` where the voice was trained without, or the text holds no Chinese.

        Raises:
            DependencyError: it is missing.
            VoiceError: the voice was made with another one.
        """
        if not folder.uses("roberta") or not any(s.language == "zh" for s in utterance.segments):
            return None
        return self._encoder(
            folder,
            "roberta",
            lambda weights: MLXCharacterEncoder(weights, self.dtype),
            lambda package: CoreMLCharacterEncoder(package, self.program),
        )

    def _make_voice(self, folder: VoiceFolder, reference: Reference) -> Voice:
        gpt = self.gpt(folder.weights / "gpt.safetensors")
        sovits = self.sovits(folder.weights / "sovits.safetensors")
        frontend = self.frontend(sovits.config.symbols)
        cache = ConditioningCache(folder, reference)
        conditioning = cache.load()
        if conditioning is None:
            conditioning = self._enrol(folder, reference, gpt, sovits, frontend)
            cache.save(conditioning)
        companions = {}
        if reference == folder.reference:  # a recording of the user's own speaks everything itself
            for language, path in folder.companions.items():
                other = VoiceFolder.read(path)
                companions[language] = self.voice(other, other.reference)
        return Voice(folder, reference, gpt, sovits, frontend, conditioning, companions)

    def _enrol(
        self,
        folder: VoiceFolder,
        reference: Reference,
        gpt: TextToSemantic,
        sovits: SoVITS,
        frontend: TextFrontend,
    ) -> Conditioning:
        """Compute what a reference yields."""
        style = style_of(sovits, reference)
        if reference.text is None:
            return Conditioning((), (), None, style)
        tokens = prompt_tokens(sovits, self.speech_encoder(folder), reference)
        transcript = frontend.utterance(reference.text, reference.language)
        bert = character_features(transcript, self.character_encoder(folder, transcript), gpt.config.bert_dim)
        return Conditioning(tokens, tuple(transcript.phone_ids), bert, style)

    def _encoder(
        self, folder: VoiceFolder, name: str, on_mlx: Callable[[Path], E], on_coreml: Callable[[Path], E]
    ) -> E:
        """An encoder on the back end that is wanted, refused where its weights are others than the voice's."""
        weights = folder.own_encoder(name) or self.model_dir / "encoders" / f"{name}.safetensors"
        path, load = (package_beside(weights), on_coreml) if self._on_coreml(weights) else (weights, on_mlx)
        encoder = self._of_file(path, lambda: load(path))
        wanted = folder.encoders[name]
        if wanted == OFFICIAL or folder.own_encoder(name):
            # the voice takes the weights that lie there, and of a package that it was made of them
            if path == weights or not weights.is_file():
                return encoder
            wanted = self._once(("sha256", weights, _stamp(weights)), lambda: file_sha256(weights))
        if wanted != encoder.sha256:
            mend = (
                "make the package again from the encoder's weights"
                if path != weights
                else "convert the voice again with the encoders that you have now"
            )
            raise VoiceError(
                f"the voice {folder.name} was made with another {name} ({str(wanted)[:12]}…) than {path}"
                f" ({encoder.sha256[:12]}…): {mend}"
            )
        return encoder

    def _on_coreml(self, weights: Path) -> bool:
        """Whether the encoder of these weights runs on Core ML."""
        if self.encoder_backend == "auto":
            return runs_here() and package_beside(weights).is_dir()
        return self.encoder_backend == "coreml"

    def _of_file(self, path: Path, make: Callable[[], T]) -> T:
        """A file that changed is loaded again."""
        return self._once((path, _stamp(path)), make)

    def _once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = make()
            return self._loaded[key]


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
