"""A voice's folder, as its `voice.json` describes it: this alone reads and writes that file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeVar

from ..errors import VoiceError
from ..files import written_whole

FORMAT = 1
VOICE_FILE = "voice.json"
GPT_FILE = "gpt.safetensors"
SOVITS_FILE = "sovits.safetensors"
REFERENCE_FILE = "reference.wav"
CACHE_FILE = "cache.safetensors"
OFFICIAL = "official"
"""For an encoder: the published one, before one was installed whose hash could be noted."""
ENTRIES = frozenset(
    (
        *("format", "name", "version", "sample_rate", "reference", "languages", "encoders", "defaults"),
        *("licence", "card", "weights", "companions"),
    )
)
"""What this version knows in `voice.json`."""
T = TypeVar("T")


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
class VoiceFolder:
    """A voice as its folder describes it in `voice.json`; nothing is loaded yet.

    Attributes:
        path: the folder.
        name: by which people know the voice; it is found by the folder's name.
        version: of the SoVITS model, "v2".
        sample_rate: of its audio, in Hz.
        languages: what it speaks.
        reference: the recording that it imitates.
        encoders: name → SHA-256 of the weights that it was made with, or `OFFICIAL`, or a path inside the voice, or
            `None` where it was trained without.
        weights: the folder that holds the weights: its own, or a voice's beside it whose weights it shares.
        companions: language → the voice beside it that speaks sentences of that language in its stead.
        defaults: sampling settings that it recommends.
        licence: under which it may be used.
        card: who speaks, where the recordings come from.
        others: entries of `voice.json` that this version does not know, kept as they are.
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
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gpt_file(self) -> Path:
        return self.weights / GPT_FILE

    @property
    def sovits_file(self) -> Path:
        return self.weights / SOVITS_FILE

    @property
    def cache_file(self) -> Path:
        """Where what the reference yields is kept."""
        return self.path / CACHE_FILE

    def uses(self, name: str) -> bool:
        """Whether the voice was trained with this encoder's features."""
        return self.encoders.get(name) is not None

    def own_encoder(self, name: str) -> Path | None:
        """Path of an encoder that lies in the voice itself, or `None` where it is a shared one or none."""
        entry = self.encoders.get(name)
        return self.weights / entry if entry and _is_path(entry) else None

    @classmethod
    def read(cls, path: Path) -> VoiceFolder:
        """Read `path`/voice.json.

        Raises:
            VoiceError: it is missing, damaged or of a newer format, it leaves its folder, or a file that it names is
                missing.
        """
        file = path / VOICE_FILE
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except OSError:
            raise VoiceError(
                f"{path} is not a voice: no {VOICE_FILE} in it (make one with gpt-sovits-mlx convert)"
            ) from None
        except ValueError as error:
            raise VoiceError(f"{file} is damaged: {error}") from None
        try:
            folder = cls._of(path, data)
        except _Damaged as damage:
            raise VoiceError(f"{file} is damaged: {damage}") from None
        folder._check_files()
        return folder

    @classmethod
    def _of(cls, path: Path, data: Any) -> VoiceFolder:
        if not isinstance(data, dict):
            raise _Damaged("it holds no voice")
        if _entry(data, "format", int) != FORMAT:
            raise VoiceError(
                f"{path / VOICE_FILE} has format {data['format']}, this version reads {FORMAT}: update gpt-sovits-mlx"
            )
        encoders = _entry(data, "encoders", dict)
        for entry in encoders.values():
            if entry is not None and _is_path(entry):
                _inside(path, entry)
        weights = _entry(data, "weights", str, "")
        companions = _entry(data, "companions", dict, {})
        return cls(
            path=path,
            name=_entry(data, "name", str),
            version=_entry(data, "version", str),
            sample_rate=_entry(data, "sample_rate", int),
            languages=tuple(_entry(data, "languages", list)),
            reference=_reference(path, _entry(data, "reference", dict)),
            encoders=encoders,
            weights=_beside(path, weights) if weights else path,
            companions={language: _beside(path, name) for language, name in companions.items()},
            defaults=_entry(data, "defaults", dict, {}),
            licence=_entry(data, "licence", str, ""),
            card=_entry(data, "card", str, ""),
            others={name: value for name, value in data.items() if name not in ENTRIES},
        )

    def _check_files(self) -> None:
        for file in (self.gpt_file, self.sovits_file, *self.reference.files()):
            if not file.is_file():
                raise VoiceError(f"the voice {self.name} lacks {file}: convert it again")

    def write(self) -> None:
        """Write `path`/voice.json, so that `read` gives the same again.

        Raises:
            VoiceError: a file of it lies outside its folder, a voice that it names not beside it, or it cannot be
                written.
        """
        file = self.path / VOICE_FILE
        content = json.dumps(self._entries(), indent=2, ensure_ascii=False) + "\n"
        try:
            with written_whole(file) as part:
                part.write_text(content, encoding="utf-8")
        except OSError as error:
            raise VoiceError(f"cannot write {file}: {error.strerror or error}") from None

    def _entries(self) -> dict[str, Any]:
        audio = self._inner(self.reference.audio)
        entries: dict[str, Any] = {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "sample_rate": self.sample_rate,
            "reference": {
                **({"audio": audio} if audio != REFERENCE_FILE else {}),
                "text": self.reference.text or "",
                "language": self.reference.language,
                "auxiliary": [self._inner(path) for path in self.reference.auxiliary],
            },
            "languages": list(self.languages),
            "encoders": dict(self.encoders),
        }
        if self.defaults:
            entries["defaults"] = dict(self.defaults)
        entries |= {"licence": self.licence, "card": self.card}
        if self.weights != self.path:
            entries["weights"] = self._sister(self.weights)
        if self.companions:
            entries["companions"] = {language: self._sister(path) for language, path in self.companions.items()}
        return entries | dict(self.others)

    def _inner(self, file: Path) -> str:
        """How `voice.json` names a file of the voice."""
        if not file.is_relative_to(self.path):
            raise VoiceError(f"{file} lies outside the voice {self.path}: put it into that folder")
        return file.relative_to(self.path).as_posix()

    def _sister(self, folder: Path) -> str:
        """How `voice.json` names another voice."""
        if folder.parent != self.path.parent:
            raise VoiceError(f"the voice {folder} does not lie beside {self.path}: put both into one folder")
        return folder.name


class _Damaged(Exception):
    """What is wrong with an entry."""


def _entry(data: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """An entry, or what it is where it is missing or null."""
    value = data.get(name)
    value = default if value is None else value
    if not isinstance(value, kind):
        raise _Damaged(f"{name!r} is missing" if value is None else f"{name!r} is {str(value)[:40]!r}")
    return value


def _reference(path: Path, data: Mapping[str, Any]) -> Reference:
    return Reference(
        audio=_inside(path, _entry(data, "audio", str, REFERENCE_FILE)),
        text=_entry(data, "text", str) or None,
        language=_entry(data, "language", str),
        auxiliary=tuple(_inside(path, name) for name in _entry(data, "auxiliary", list, [])),
    )


def _is_path(encoder: Any) -> bool:
    """Whether the entry of an encoder is a path inside the voice."""
    if not isinstance(encoder, str):
        raise _Damaged(f"an encoder is {str(encoder)[:40]!r}")
    return encoder.endswith(".safetensors")


def _inside(path: Path, name: Any) -> Path:
    given = PurePath(name) if isinstance(name, str) else PurePath()
    if not given.parts or given.is_absolute() or ".." in given.parts:
        raise _Damaged(f"{name!r} is no file of the voice's folder")
    return path / given


def _beside(path: Path, name: Any) -> Path:
    if not isinstance(name, str) or name == ".." or PurePath(name).parts != (name,):
        raise _Damaged(f"{name!r} is not the name of a voice beside this one")
    return path.parent / name
