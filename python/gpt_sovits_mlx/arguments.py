"""The arguments of each command of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from .quantization import BITS
from .settings import spoken_settings
from .text import LANGUAGES


def add_model_dir(parser: argparse.ArgumentParser) -> None:
    help = "folder of voices and encoders (default: $GPT_SOVITS_MLX_HOME, else the user's data folder)"
    parser.add_argument("--model-dir", type=Path, help=help)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each setting of a request; `None` where it is not given."""
    for setting in spoken_settings():
        known = setting.metadata
        flags = ["-l"] if setting.name == "language" else []
        flags.append(f"--{setting.name.replace('_', '-')}")
        shown = "" if setting.default is None else f" ({setting.default})"
        parser.add_argument(*flags, type=known["type"], choices=known["choices"], help=known["help"] + shown)


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
    add_settings(parser)
    add("--lexicon", type=Path, help="file of words with readings of your own")
    add("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    add("--encoder-backend", choices=("auto", "mlx", "coreml"), default="auto", help="where RoBERTa and CNHubert run")
    add("--json", action="store_true", help="print what was made as JSON")
    add("-q", "--quiet", action="store_true", help="print nothing but errors")
    add_model_dir(parser)


def add_convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gpt", type=Path, required=True, metavar="X.ckpt")
    add("--sovits", type=Path, required=True, metavar="X.pth")
    add("--reference", type=Path, required=True, metavar="RECORDING", help="3 to 10 s of the voice")
    add("--text", required=True, help="what is said in the recording")
    add("--language", choices=LANGUAGES, required=True, help="language of that text")
    add("--auxiliary", type=Path, nargs="*", default=[], help="more recordings of the voice")
    add("--name", help="name of the voice; it goes to voices/NAME in the model folder")
    add("--output", type=Path, help="folder of the voice, instead of --name")
    add("--dtype", choices=("float32", "float16"), help="store the weights so (default: as in the files)")
    add("--bits", type=int, choices=BITS, help="quantize the GPT's matrices; --dtype is for all else")
    add("--licence", default="", help="under which the voice may be used")
    add("--card", default="", help="who speaks, where the recordings come from")
    add("--overwrite", action="store_true", help="replace an existing voice")
    add_model_dir(parser)


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
