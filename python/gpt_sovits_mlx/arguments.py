"""The arguments of each command of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .quantization import BITS
from .settings import Sampling, Settings
from .text import LANGUAGES
from .voices.recipe import VoiceRecipe

T = TypeVar("T")


def add_model_dir(parser: argparse.ArgumentParser) -> None:
    help = "folder of voices and encoders (default: $GPT_SOVITS_MLX_HOME, else the user's data folder)"
    parser.add_argument("--model-dir", type=Path, help=help)


def add_speak(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("text", nargs="?", help="the text, or - for standard input")
    add("-f", "--file", type=Path, help="read the text from a UTF-8 file")
    to = parser.add_mutually_exclusive_group().add_argument
    to("-o", "--output", type=Path, default=Path("out.wav"), help="audio to write: .wav, .flac, .ogg (out.wav)")
    to("--stream", action="store_true", help="write a WAV to standard output while it is spoken")
    add("-v", "--voice", default="demo", help="name of a voice, or path of its folder (demo)")
    add("--reference", type=Path, help="another recording of 3 to 10 s to imitate")
    add("--reference-text", help="what is said in it")
    add("--reference-language", choices=LANGUAGES, default="auto")
    add("--auxiliary", type=Path, nargs="*", default=[], help="more recordings of that speaker")
    add_fields(parser, Settings, set_by_default=False)
    add_fields(parser, Sampling, set_by_default=False)
    add("--lexicon", type=Path, help="file of words with readings of your own")
    add("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    add("--encoder-backend", choices=("auto", "mlx", "coreml"), default="auto", help="where RoBERTa and CNHubert run")
    add("--json", action="store_true", help="print what was made as JSON")
    add("-q", "--quiet", action="store_true", help="print nothing but errors")
    add_model_dir(parser)


def add_convert(parser: argparse.ArgumentParser) -> None:
    add_fields(parser, VoiceRecipe)
    parser.add_argument("--output", type=Path, help="folder of the voice, instead of --name")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing voice")
    add_model_dir(parser)


def add_fields(parser: argparse.ArgumentParser, described: type, set_by_default: bool = True) -> None:
    """An option for each field of a dataclass whose metadata has `help` (and what else argparse is to know).

    Args:
        parser: gets the options.
        described: the dataclass.
        set_by_default: whether an option that is not given has the field's default; else it is `None`, and the default
            is only shown.
    """
    hints = get_type_hints(described)
    for field in fields(described):
        if "help" not in field.metadata:
            continue
        given: dict[str, Any] = {**field.metadata, "type": _parsed_as(hints[field.name])}
        if get_origin(hints[field.name]) is Sequence:
            given["nargs"] = "+"
        if field.default is MISSING:
            given["required"] = True
        elif set_by_default:
            given["default"] = field.default
        elif field.default is not None:
            given["help"] += f" ({field.default})"
        parser.add_argument(*given.pop("flags", ()), f"--{field.name.replace('_', '-')}", **given)


def fields_of(described: Callable[..., T], options: argparse.Namespace) -> T:
    """The dataclass of what `add_fields` had parsed for it."""
    known = get_type_hints(described)
    return described(**{name: value for name, value in vars(options).items() if name in known})


def _parsed_as(hint: Any) -> type:
    """What one value of an option of this type is parsed as."""
    members = {hint, *get_args(hint), *(inner for member in get_args(hint) for inner in get_args(member))}
    return next((kind for kind in (Path, float, int) if kind in members), str)


def add_encoders(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--fetch", action="store_true", help="download the published ones (840 MB)")
    source.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="GPT_SoVITS/pretrained_models")
    parser.add_argument("--dtype", choices=("float32", "float16"))
    parser.add_argument("--bits", type=int, choices=BITS, help="quantize the matrices; --dtype is for all else")
    add_model_dir(parser)


def add_phones(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("text", help="the text, or - to read lines from standard input")
    add("-l", "--language", choices=LANGUAGES, default="auto")
    add("--symbols", choices=("v1", "v2"), default="v2", help="the model version's set of symbols (v2)")
    add("--lexicon", type=Path, help="file of words with readings of your own")
    add("--json", action="store_true", help="print JSON (for standard input always)")


def add_tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--voice", default="demo", help="whose vocoder is measured (demo)")
    add_model_dir(parser)
    parser.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")


def add_verify(parser: argparse.ArgumentParser) -> None:
    from .verify import STAGES

    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="only some of them")
    add_model_dir(parser)
