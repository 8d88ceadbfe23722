"""The command line: `gpt-sovits-mlx "text" -o out.wav`, and the commands `voices`, `convert`, `encoders`, `phones`,
`tune`, `verify`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .arguments import (
    add_convert,
    add_encoders,
    add_model_dir,
    add_phones,
    add_speak,
    add_tune,
    add_verify,
    fields_of,
)
from .errors import GPTSoVITSError, TextError
from .runtime import require_mlx
from .voices.format import VoiceFolder
from .voices.library import find_voice, model_home, voice_paths, voice_roots
from .voices.recipe import VoiceRecipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can mend are printed as one line.

    Returns:
        0, 1 after an error, 2 after a wrong usage (raised by argparse as SystemExit), 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    if given and given[0] not in commands and given[0] not in ("-h", "--help", "--version"):
        given.insert(0, "speak")
    options = parser.parse_args(given or ["--help"])
    try:
        if options.run in (speak, voices, convert, verify, tune):
            require_mlx()
        return options.run(options)
    except GPTSoVITSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="gpt-sovits-mlx",
        description="GPT-SoVITS text to speech on MLX.",
        usage='gpt-sovits-mlx "TEXT" [-o out.wav] [--voice NAME] …  |  gpt-sovits-mlx COMMAND --help',
    )
    parser.add_argument("--version", action="version", version=f"gpt-sovits-mlx {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    made: dict[str, argparse.ArgumentParser] = {}

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        made[name] = commands.add_parser(name, help=help, description=help)
        made[name].set_defaults(run=run)
        return made[name]

    add_speak(command("speak", speak, "speak a text (the default)"))
    add_model_dir(command("voices", voices, "list the voices"))
    add_convert(command("convert", convert, "make a voice of a .ckpt, a .pth and a recording"))
    add_encoders(command("encoders", encoders, "install CNHubert and RoBERTa, which official voices need"))
    add_phones(command("phones", phones, "show how a text is read"))
    add_tune(command("tune", tune, "find the vocoder's fastest form on this machine, and remember it"))
    add_verify(command("verify", verify, "check every stage on this machine against golden numbers"))
    return parser, made


def speak(options: argparse.Namespace) -> int:
    """Speak a text into a file."""
    from .engine import GPTSoVITSEngine
    from .settings import SETTINGS

    text = _text(options)
    if options.stream and (options.json or sys.stdout.isatty()):
        raise GPTSoVITSError("--stream writes audio to standard output: pipe it to a player or a file, without --json")
    if options.output.exists() and options.output.is_dir():
        raise GPTSoVITSError(f"{options.output} is a folder: name a file to write")
    engine = GPTSoVITSEngine(options.model_dir, options.dtype, options.lexicon, options.encoder_backend)
    voice = engine.load_voice(
        options.voice, options.reference, options.reference_text, options.reference_language, options.auxiliary
    )
    settings: dict[str, Any] = {name: getattr(options, name) for name in SETTINGS}
    if options.stream:
        return _stream(engine.stream(text, voice=voice, **settings))
    with _Progress(not options.quiet) as progress:
        result = engine.synthesize(text, voice=voice, progress=progress.update, **settings)
    result.save(options.output)
    for sentence in result.sentences:
        _warn_if_cut_off(sentence)
    if options.json:
        print(json.dumps(_summary(result, options.output), ensure_ascii=False))
    elif not options.quiet:
        print(
            f"{options.output}: {result.duration:.2f} s of speech in {result.timing['total'] / 1000:.2f} s"
            f" (real-time factor {result.real_time_factor:.2f}, seed {result.seed})"
        )
    return 0


def _stream(chunks: Iterable[Any]) -> int:
    """Write chunks of audio to standard output as they come."""
    from .audio import pcm16, wave_header

    for chunk in chunks:
        if chunk.start == 0:
            sys.stdout.buffer.write(wave_header(chunk.sample_rate))
        sys.stdout.buffer.write(pcm16(chunk.audio))
        sys.stdout.buffer.flush()
        if chunk.sentence is not None:
            _warn_if_cut_off(chunk.sentence)
    return 0


def _warn_if_cut_off(sentence: Any) -> None:
    if not sentence.ended:
        print(f"warning: cut off at the limit of tokens: {sentence.text}", file=sys.stderr)


def voices(options: argparse.Namespace) -> int:
    """List the voices; those that are damaged are named behind the others, and the status is then 1."""
    from rich.console import Console
    from rich.table import Table

    table = Table("voice", "version", "GPT", "languages", "sample rate", "folder", box=None)
    damaged = []
    for path in voice_paths(voice_roots(model_home(options.model_dir))):
        try:
            voice = VoiceFolder.read(path)
            rate, languages = f"{voice.sample_rate} Hz", ", ".join(voice.languages)
            table.add_row(voice.name, voice.version, _precision(voice.gpt_file), languages, rate, str(path))
        except GPTSoVITSError as error:
            damaged.append(error)
    Console().print(table)
    for error in damaged:
        print(f"error: {error}", file=sys.stderr)
    return 1 if damaged else 0


def _precision(path: Path) -> str:
    """What the GPT's matrices are stored in: "8 bits", "float16"."""
    from .quantization import Quantization
    from .weights import read_config

    config = read_config(path)
    quantization = Quantization.of(config, path)
    return f"{quantization.bits} bits" if quantization else str(config.get("dtype", ""))


def convert(options: argparse.Namespace) -> int:
    """Make a voice of official files, and enrol its reference where the encoders are installed."""
    from .convert import convert_voice

    recipe = fields_of(VoiceRecipe, options)
    made = convert_voice(recipe, options.model_dir, options.output, options.overwrite, sys.stderr.isatty())
    if made.missing:
        print(
            f"{made.voice.path} is made; its reference will be enrolled when it first speaks. For that,"
            f" {' and '.join(made.missing)} must be installed: gpt-sovits-mlx encoders --fetch"
        )
    else:
        named = recipe.name if options.output is None else made.voice.path
        print(f"{made.voice.path} is ready: gpt-sovits-mlx 'text' --voice {named}")
    return 0


def encoders(options: argparse.Namespace) -> int:
    """Install the base encoders into the model folder."""
    from .convert import Quantization, convert_encoders, fetch_encoders

    model_dir = model_home(options.model_dir)
    settings = {
        "dtype": options.dtype,
        "quantization": Quantization(options.bits) if options.bits else None,
        "progress": sys.stderr.isatty(),
    }
    if options.fetch:
        made = fetch_encoders(model_dir, **settings)
    else:
        made = convert_encoders(options.source, model_dir, **settings)
    for conversion in made.values():
        print(f"wrote {conversion.weights} ({conversion.parameters / 1e6:.1f} M parameters)")
    return 0


def phones(options: argparse.Namespace) -> int:
    """Show normalised text, phones, ids, word2ph and segments."""
    from .text import TextFrontend, phones_json

    frontend = TextFrontend(options.symbols, lexicon=options.lexicon)
    if options.text == "-":
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = phones_json(frontend, line.rstrip("\n"), options.language)
            except TextError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer, ensure_ascii=False), flush=True)
        return 0
    answer = phones_json(frontend, options.text, options.language)
    if options.json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        print(answer["norm_text"])
        print(" ".join(answer["phones"]))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check the stages and print a table; the exit status is 1 where a check failed."""
    from rich.console import Console

    from .verify import FAILED, print_table
    from .verify import verify as checks

    rows = []
    with Console(stderr=True).status("verifying") as status:
        for row in checks(options.stages, options.model_dir):
            rows.append(row)
            status.update(f"verified {row.stage} ({row.device})")
    print_table(rows, Console(width=max(Console().width, 110)))
    return 1 if any(row.verdict == FAILED for row in rows) else 0


def tune(options: argparse.Namespace) -> int:
    """Measure the vocoder's forms, show what each change does, and remember the fastest."""
    from .engine import DTYPES
    from .models.sovits import SoVITS
    from .tune import tune as measured
    from .tuning import remember
    from .weights import load_model

    folder = VoiceFolder.read(find_voice(options.voice, voice_roots(model_home(options.model_dir))))
    best, _ = measured(
        lambda: load_model(SoVITS, folder.sovits_file, DTYPES[options.dtype]),
        lambda trial: print(trial, flush=True),
    )
    print(f"remembered in {remember(best)}")
    return 0


def _text(options: argparse.Namespace) -> str:
    """The text of an argument, a file or standard input."""
    if (options.text is None) == (options.file is None):
        raise TextError('give one text: "TEXT", - for standard input, or --file FILE')
    try:
        if options.file is not None:
            return options.file.read_text(encoding="utf-8")
        return sys.stdin.read() if options.text == "-" else options.text
    except OSError as error:
        raise TextError(f"cannot read {options.file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise TextError(f"{options.file or 'standard input'} is not UTF-8 text: convert it to UTF-8") from None


def _summary(result: Any, output: Path) -> dict[str, Any]:
    return {
        "output": str(output),
        "sample_rate": result.sample_rate,
        "duration": result.duration,
        "real_time_factor": result.real_time_factor,
        "seed": result.seed,
        "timing": result.timing,
        "sentences": [vars(sentence) for sentence in result.sentences],
    }


STAGES = {"gpt": "speaking", "vocoder": "vocoding"}


class _Progress:
    """A progress bar on a terminal, for texts of more than one sentence."""

    def __init__(self, enabled: bool):
        from rich.console import Console
        from rich.progress import Progress

        self.console = Console(stderr=True)
        self.bar = Progress(console=self.console, transient=True) if enabled and self.console.is_terminal else None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> _Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, stage: str, done: int, total: int) -> None:
        if not self.bar or total < 2:
            return
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(STAGES[stage], total=total)
        self.bar.update(self.tasks[stage], completed=done)


if __name__ == "__main__":
    sys.exit(main())
