"""What a voice is made of, by one set of names whatever the way in: Python, the command `convert`, a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from ..errors import VoiceError
from ..quantization import BITS, GROUP_SIZES, Quantization
from ..text import LANGUAGES


def _about(help: str, **more: Any) -> dict[str, Any]:
    """What a way in shows of a field: the command line makes an option of each field that says what it is."""
    return {"help": help, **more}


@dataclass(frozen=True)
class VoiceRecipe:
    """What a voice is made of; `convert.convert_voice` makes it.

    Attributes:
        gpt: the GPT's `.ckpt`.
        sovits: the SoVITS `.pth`, v1 or v2.
        reference: a recording of the voice, 3 to 10 s, in any format that libsndfile reads.
        text: what is said in it, word by word.
        language: the language of the text, one of `gpt_sovits_mlx.text.LANGUAGES`.
        auxiliary: more recordings of the voice, whose timbre is mixed in.
        name: the voice's name, and that of its folder; where the folder is given, it need not be.
        languages: what the voice speaks.
        licence: under which the voice may be used.
        card: who speaks, where the recordings come from.
        dtype: "float32" or "float16", what the weights are stored in; by default what the files have.
        bits: 4 or 8, to quantize the GPT's matrices; `dtype` is for all else.
        group_size: 32, 64 or 128, quantized numbers that share a scale.
        defaults: sampling settings that suit the voice (`top_k`, `temperature`, …).
        encoders: what the voice is used with, as in `voice.json`: {"cnhubert": SHA-256 of its weights, or a path inside
            the voice, or `None` where it was trained without; "roberta": likewise}. By default those in the model
            folder, or the published ones.

    Raises:
        VoiceError: a language is unknown, the transcript is empty, or the name is none for a folder.
        WeightsError: `bits` or `group_size` is unknown.
    """

    gpt: Path | str = field(metadata=_about("the GPT", metavar="X.ckpt"))
    sovits: Path | str = field(metadata=_about("the SoVITS model, v1 or v2", metavar="X.pth"))
    reference: Path | str = field(metadata=_about("3 to 10 s of the voice", metavar="RECORDING"))
    text: str = field(metadata=_about("what is said in the recording"))
    language: str = field(metadata=_about("language of that text", choices=LANGUAGES))
    auxiliary: Sequence[Path | str] = field(default=(), metadata=_about("more recordings of the voice"))
    name: str | None = field(
        default=None, metadata=_about("name of the voice; it goes to voices/NAME in the model folder")
    )
    languages: Sequence[str] = field(
        default=LANGUAGES, metadata=_about("what the voice speaks (all)", choices=LANGUAGES)
    )
    licence: str = field(default="", metadata=_about("under which the voice may be used"))
    card: str = field(default="", metadata=_about("who speaks, where the recordings come from"))
    dtype: str | None = field(
        default=None,
        metadata=_about("store the weights so (default: as in the files)", choices=("float32", "float16")),
    )
    bits: int | None = field(
        default=None, metadata=_about("quantize the GPT's matrices; --dtype is for all else", choices=BITS)
    )
    group_size: int = field(default=64, metadata=_about("with --bits: numbers a scale (64)", choices=GROUP_SIZES))
    defaults: Mapping[str, Any] = field(default_factory=dict)
    encoders: Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        for code in (self.language, *self.languages):
            if code not in LANGUAGES:
                raise VoiceError(f"the language {code!r} is unknown: choose among {', '.join(LANGUAGES)}")
        if not self.text.strip():
            raise VoiceError("the transcript of the reference is empty: write down what is said in it")
        if self.name is not None and (self.name.startswith(".") or PurePath(self.name).parts != (self.name,)):
            raise VoiceError(f"{self.name!r} is no name of a voice: choose one that a folder can have")
        _ = self.quantization

    @property
    def quantization(self) -> Quantization | None:
        """Of the GPT."""
        return Quantization(self.bits, self.group_size) if self.bits else None
