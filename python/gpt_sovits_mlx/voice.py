"""A voice: a folder of weights with a reference recording, and what that reference yields."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from . import audio
from .encoders import CharacterEncoder, SpeechEncoder
from .errors import AudioError, VoiceError
from .files import file_sha256, written_whole
from .models.sovits import SoVITS
from .models.t2s import TextToSemantic
from .runtime import user_cache_dir
from .text import TextFrontend, Utterance

FORMAT = 1
PAUSES = str.maketrans("￥^", ",,")
"""The signs for longer pauses: RoBERTa reads commas in their place, as in the reference."""
APPENDED_SILENCE = 9600
"""Zeros behind the reference before CNHubert hears it: 0.3 s of 32 kHz samples in the reference, so 0.6 s here."""


@dataclass(frozen=True)
class Reference:
    """The recording that a voice imitates.

    Attributes:
        audio: path of the recording, 3 to 10 s.
        text: what is said in it; `None` to imitate the timbre alone, without a prompt.
        language: language of `text`.
        auxiliary: further recordings of the speaker, whose styles are averaged in; of any length.
    """

    audio: Path
    text: str | None = None
    language: str = "auto"
    auxiliary: tuple[Path, ...] = ()

    def files(self) -> tuple[Path, ...]:
        return (self.audio, *self.auxiliary)


@dataclass(frozen=True)
class Conditioning:
    """What a reference yields.

    Attributes:
        tokens: semantic tokens of the prompt, empty without a transcript.
        phones: ids of the transcript's phones.
        bert: (len(phones), bert_dim) features, or `None` where they are all zero.
        style: (1, 1, gin), float32.
    """

    tokens: tuple[int, ...]
    phones: tuple[int, ...]
    bert: mx.array | None
    style: mx.array


@dataclass(frozen=True)
class VoiceFolder:
    """A voice as its folder describes it in `voice.json`; nothing is loaded yet.

    `weights` is the folder that holds them: its own, or a voice's beside it whose weights it shares.
    `companions` names, by language, the voice beside it that speaks sentences of that language in its stead.
    """

    path: Path
    name: str
    version: str
    sample_rate: int
    languages: tuple[str, ...]
    reference: Reference
    encoders: Mapping[str, str | None]
    weights: Path
    companions: Mapping[str, Path] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    card: str = ""

    @classmethod
    def read(cls, path: Path) -> VoiceFolder:
        """Read `path`/voice.json.

        Raises:
            VoiceError: it is missing, damaged or of a newer format, or a file that it names is missing.
        """
        file = path / "voice.json"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except OSError:
            raise VoiceError(
                f"{path} is not a voice: no voice.json in it (make one with gpt-sovits-mlx convert)"
            ) from None
        except ValueError as error:
            raise VoiceError(f"{file} is damaged: {error}") from None
        try:
            if data["format"] != FORMAT:
                raise VoiceError(
                    f"{file} has format {data['format']}, this version reads {FORMAT}: update gpt-sovits-mlx"
                )
            reference = data["reference"]
            weights = path.parent / data["weights"] if data.get("weights") else path
            folder = cls(
                path=path,
                name=data["name"],
                version=data["version"],
                sample_rate=data["sample_rate"],
                languages=tuple(data["languages"]),
                reference=Reference(
                    audio=path / reference.get("audio", "reference.wav"),
                    text=reference["text"] or None,
                    language=reference["language"],
                    auxiliary=tuple(path / name for name in reference.get("auxiliary", ())),
                ),
                encoders=data["encoders"],
                weights=weights,
                companions={lang: path.parent / name for lang, name in data.get("companions", {}).items()},
                defaults=data.get("defaults") or {},
                licence=data.get("licence") or "",
                card=data.get("card") or "",
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise VoiceError(f"{file} is damaged: {type(error).__name__} at {error}") from None
        folder._check_files()
        return folder

    def _check_files(self) -> None:
        needed = [self.weights / name for name in ("gpt.safetensors", "sovits.safetensors")]
        for file in (*needed, *self.reference.files()):
            if not file.is_file():
                raise VoiceError(f"the voice {self.name} lacks {file}: convert it again")

    def own_encoder(self, name: str) -> Path | None:
        """Path of an encoder that lies in the voice itself, or `None` where it is a shared one or none."""
        entry = self.encoders.get(name)
        return self.weights / entry if entry and entry.endswith(".safetensors") else None

    def uses(self, name: str) -> bool:
        """Whether the voice was trained with this encoder's features."""
        return self.encoders.get(name) is not None


@dataclass(frozen=True)
class Voice:
    """A voice ready to speak. It is immutable: threads may share it."""

    folder: VoiceFolder
    reference: Reference
    gpt: TextToSemantic
    sovits: SoVITS
    frontend: TextFrontend
    conditioning: Conditioning
    companions: Mapping[str, Voice] = field(default_factory=dict)

    def speaker(self, utterance: Utterance) -> Voice:
        """Who speaks a sentence: the companion for the language of most of its phones, else the voice itself."""
        counts: dict[str, int] = {}
        for segment in utterance.segments:
            counts[segment.language] = counts.get(segment.language, 0) + len(segment.phones)
        return self.companions.get(max(counts, key=lambda language: counts[language]), self) if counts else self

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def sample_rate(self) -> int:
        return self.sovits.config.sampling_rate


def find_voice(name_or_path: str | Path, roots: Sequence[Path]) -> Path:
    """The folder of a voice: a path, or a name below one of `roots`.

    Raises:
        VoiceError: there is none; the message lists those that there are.
    """
    given = Path(name_or_path).expanduser()
    if (given / "voice.json").is_file():
        return given.resolve()
    if len(given.parts) == 1:
        for root in roots:
            if (root / given / "voice.json").is_file():
                return (root / given).resolve()
    if given.is_dir():
        raise VoiceError(f"{given} is not a voice: no voice.json in it (make one with gpt-sovits-mlx convert)")
    known = ", ".join(sorted({folder.name for folder in voice_paths(roots)})) or "none"
    raise VoiceError(f"no voice {str(name_or_path)!r}: the voices here are {known}")


def voice_paths(roots: Sequence[Path]) -> list[Path]:
    """The folders of all voices below `roots`; the first of a name hides later ones."""
    found: dict[str, Path] = {}
    for root in roots:
        for file in sorted(root.glob("*/voice.json")):
            found.setdefault(file.parent.name, file.parent)
    return list(found.values())


def character_features(utterance: Utterance, encoder: CharacterEncoder | None, width: int) -> mx.array | None:
    """BERT features of each phone (n, width): a Chinese character's for all its phones, zeros elsewhere.

    `None` where all would be zero: no Chinese in it, or `encoder` is `None` for a voice trained without.
    """
    if encoder is None or not any(segment.language == "zh" for segment in utterance.segments):
        return None
    parts = []
    for segment in utterance.segments:
        if segment.language == "zh" and segment.word2ph:
            rows = np.repeat(np.arange(len(segment.word2ph)), segment.word2ph)
            parts.append(encoder(segment.norm_text.translate(PAUSES))[mx.array(rows)].astype(mx.float32))
        else:
            parts.append(mx.zeros((len(segment.phones), width)))
    features = mx.concatenate(parts)
    mx.eval(features)
    return features


def prompt_tokens(sovits: SoVITS, encoder: SpeechEncoder, reference: Reference) -> tuple[int, ...]:
    """Semantic tokens of a reference, the silence behind it included.

    Raises:
        AudioError: it is shorter than 3 s or longer than 10 s.
    """
    samples, rate = read_reference(reference.audio)
    heard = audio.resample_for_encoder(samples, rate)
    features = encoder(np.concatenate([heard, np.zeros(APPENDED_SILENCE, np.float32)]))
    return tuple(np.array(sovits.tokens(features))[0].tolist())


def read_reference(path: Path) -> tuple[np.ndarray, int]:
    """Read the main recording of a reference.

    Raises:
        AudioError: it cannot be read, or is shorter than 3 s or longer than 10 s.
    """
    samples, rate = audio.read(path)
    seconds = len(samples) / rate
    least, most = audio.REFERENCE_SECONDS
    if not least <= seconds <= most:
        raise AudioError(f"{path} is {seconds:.1f} s long: a reference must be {least:.0f} to {most:.0f} s")
    return samples, rate


def style_of(sovits: SoVITS, reference: Reference) -> mx.array:
    """Mean style (1, 1, gin) of a reference's recordings.

    Raises:
        AudioError: the main recording is shorter than 3 s or longer than 10 s.
    """
    config = sovits.config
    spectrograms = []
    for path in reference.files():
        samples, rate = read_reference(path) if path == reference.audio else audio.read(path)
        samples = audio.limit(audio.resample_sinc(samples, rate, config.sampling_rate))
        spectrograms.append(audio.spectrogram(mx.array(samples), config.filter_length, config.hop_length))
    style = sovits.style(spectrograms).astype(mx.float32)
    mx.eval(style)
    return style


class ConditioningCache:
    """What references yield, on disk: in the voice's folder, or in the user's cache where that is not writable.

    An entry is valid for the key that it was made with: the contents of the recordings, the transcript, the
    weights and the encoders.
    """

    FILE = "cache.safetensors"

    def __init__(self, folder: VoiceFolder, reference: Reference):
        self.own = reference == folder.reference
        self.key = self._key(folder, reference)
        self.paths = [user_cache_dir() / "references" / f"{self.key}.safetensors"]
        if self.own:
            self.paths.insert(0, folder.path / self.FILE)

    @staticmethod
    def _key(folder: VoiceFolder, reference: Reference) -> str:
        facts = {
            "format": FORMAT,
            "version": folder.version,
            "recordings": [file_sha256(path) for path in reference.files()],
            "text": reference.text,
            "language": reference.language,
            "sovits": file_sha256(folder.weights / "sovits.safetensors"),
            "encoders": dict(sorted(folder.encoders.items())),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def load(self) -> Conditioning | None:
        """The entry, or `None` where there is none for this key."""
        for path in self.paths:
            if not path.is_file():
                continue
            try:
                with safe_open(path, framework="np") as file:
                    valid = (file.metadata() or {}).get("key") == self.key
                    tensors = {name: file.get_tensor(name) for name in file.keys()} if valid else {}  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise VoiceError(f"{path} is damaged ({error}): delete it, it will be made again") from None
            if valid:
                bert = mx.array(tensors["bert"]) if "bert" in tensors else None
                style = mx.array(tensors["style"])
                mx.eval(style, bert)
                tokens, phones = (tuple(tensors[name].tolist()) for name in ("tokens", "phones"))
                return Conditioning(tokens, phones, bert, style)
        return None

    def save(self, conditioning: Conditioning) -> None:
        """Write the entry where it can be written; a folder that is read-only is no error."""
        tensors = {
            "tokens": np.array(conditioning.tokens, np.int32),
            "phones": np.array(conditioning.phones, np.int32),
            "style": np.array(conditioning.style),
        }
        if conditioning.bert is not None:
            tensors["bert"] = np.array(conditioning.bert)
        for path in self.paths:
            if path.parent.exists() and not os.access(path.parent, os.W_OK):
                continue
            try:
                with written_whole(path) as temporary:
                    save_file(tensors, temporary, {"key": self.key, "format": str(FORMAT)})
                return
            except OSError:
                continue
