"""Loading: models, encoders and voices, each once, shared by the voices that use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import mlx.core as mx

from ..encoders import CharacterEncoder, SpeechEncoder
from ..encoders.coreml import (
    CoreMLCharacterEncoder,
    CoreMLProgram,
    CoreMLSpeechEncoder,
    Program,
    package_beside,
    runs_here,
)
from ..encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from ..errors import GPTSoVITSError, VoiceError
from ..files import file_sha256
from ..models.sovits import SoVITS
from ..models.t2s import TextToSemantic
from ..text import TextFrontend, Utterance
from ..text.lexicon import Entries
from ..weights import load_model
from .cache import ConditioningCache
from .enrolment import enrol
from .format import OFFICIAL, Reference, VoiceFolder
from .library import encoder_of
from .loaded import Loaded, bytes_of
from .voice import Conditioning, Voice

E = TypeVar("E", SpeechEncoder, CharacterEncoder)
KEEP = 4 * 2**30
"""Bytes kept by default: both published encoders with five official v2 voices in float32 (1.7 GB, and 0.5 GB a
voice), or with twelve in float16."""


class VoiceLoader:
    """Loads models, encoders and voices when they are first asked for; threads may share it.

    Each of them has a lock of its own, so that loading one voice does not hold up another. A file that changed is
    loaded again.

    Args:
        model_dir: folder with `encoders/`.
        dtype: type to compute in, `None` for the stored one.
        lexicon: the user's readings, for every text front end.
        encoder_backend: "mlx", "coreml", or "auto": Core ML on a Mac that can, for an encoder whose package lies
            beside its weights.
        program: what runs a Core ML package.
        keep: bytes of what is loaded, above which what has not been used for longest is let go; see `Loaded`.

    Raises:
        GPTSoVITSError: `keep` is negative.
    """

    def __init__(
        self,
        model_dir: Path,
        dtype: mx.Dtype | None = None,
        lexicon: str | Path | Entries | None = None,
        encoder_backend: str = "mlx",
        program: Callable[[Path], Program] = CoreMLProgram,
        keep: int = KEEP,
    ):
        if keep < 0:
            raise GPTSoVITSError(f"keep is {keep}: give it in bytes, 0 or more")
        self.model_dir = model_dir
        self.dtype = dtype
        self.lexicon = lexicon
        self.encoder_backend = encoder_backend
        self.program = program
        self.loaded = Loaded(keep)

    def voice(self, folder: VoiceFolder, reference: Reference | None = None) -> Voice:
        """A voice ready to speak; its reference is enrolled where no cache holds what it yields.

        Args:
            folder: the voice.
            reference: instead of its own; without companions then, since a recording of the user's own speaks
                everything itself.

        Raises:
            VoiceError: a companion is missing, or an encoder is another than the voice's.
            AudioError: the reference cannot be used.
            DependencyError: an encoder is needed and missing.
            WeightsError: weights are damaged.
        """
        if reference is not None and reference != folder.reference:
            return self._speaker(folder, reference)
        others = {language: VoiceFolder.read(path) for language, path in folder.companions.items()}
        companions = {language: self._speaker(other, other.reference) for language, other in others.items()}
        return replace(self._speaker(folder, folder.reference), companions=companions)

    def gpt(self, path: Path) -> TextToSemantic:
        """The GPT of a converted file."""
        return self.loaded.get((path, _stamp(path)), lambda: load_model(TextToSemantic, path, self.dtype))

    def sovits(self, path: Path) -> SoVITS:
        """The SoVITS model of a converted file."""
        return self.loaded.get((path, _stamp(path)), lambda: load_model(SoVITS, path, self.dtype))

    def frontend(self, symbols: str) -> TextFrontend:
        """The text front end for a model's set of symbols, with the user's lexicon."""
        return self.loaded.get(("frontend", symbols), lambda: TextFrontend(symbols, lexicon=self.lexicon))

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

    def _speaker(self, folder: VoiceFolder, reference: Reference) -> Voice:
        """A voice without its companions, put together of what is loaded."""
        gpt, sovits = self.gpt(folder.gpt_file), self.sovits(folder.sovits_file)
        frontend = self.frontend(sovits.config.symbols)
        files = (*reference.files(), folder.sovits_file)
        key = (folder.path, reference, *sorted(folder.encoders.items()), *map(_stamp, files))

        def condition() -> Conditioning:
            return self._condition(folder, reference, gpt, sovits, frontend)

        return Voice(folder, reference, gpt, sovits, frontend, self.loaded.get(key, condition))

    def _condition(
        self, folder: VoiceFolder, reference: Reference, gpt: TextToSemantic, sovits: SoVITS, frontend: TextFrontend
    ) -> Conditioning:
        """What a reference yields, from the disk, or computed and kept there."""
        cache, heard = ConditioningCache(folder, reference), None
        transcript = self._read_otherwise(reference, frontend, sovits.config.symbols)
        if transcript:
            heard, cache = cache.load(), cache.read_as(transcript)
        conditioning = cache.load()
        if conditioning is None:
            if reference.text and not transcript:
                transcript = frontend.utterance(reference.text, reference.language)
            conditioning = enrol(
                reference,
                transcript,
                sovits,
                gpt.config.bert_dim,
                lambda: self.speech_encoder(folder),
                lambda utterance: self.character_encoder(folder, utterance),
                heard,
            )
            cache.save(conditioning)
        return conditioning

    def _read_otherwise(self, reference: Reference, frontend: TextFrontend, symbols: str) -> Utterance | None:
        """The transcript, where the lexicon has it read otherwise than without."""
        if not reference.text or not self.lexicon:
            return None
        spoken = frontend.utterance(reference.text, reference.language)
        return None if TextFrontend(symbols).utterance(reference.text, reference.language) == spoken else spoken

    def _encoder(
        self, folder: VoiceFolder, name: str, on_mlx: Callable[[Path], E], on_coreml: Callable[[Path], E]
    ) -> E:
        """An encoder on the back end that is wanted, refused where its weights are others than the voice's."""
        weights = encoder_of(folder, name, self.model_dir)
        on_package = self._on_coreml(weights)
        path, load = (package_beside(weights), on_coreml) if on_package else (weights, on_mlx)
        # Core ML keeps a package's weights outside of any array
        size = (lambda _: _bytes_on_disk(path)) if on_package else bytes_of
        encoder = self.loaded.get((path, _stamp(path)), lambda: load(path), size)
        wanted = folder.encoders[name]
        if wanted == OFFICIAL or folder.own_encoder(name):
            # the voice takes the weights that lie there, and of a package that it was made of them
            if path == weights or not weights.is_file():
                return encoder
            wanted = self.loaded.get(("sha256", weights, _stamp(weights)), lambda: file_sha256(weights))
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


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _bytes_on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
