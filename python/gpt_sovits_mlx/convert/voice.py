"""A whole voice out of official files: weights, configurations, reference recording and `voice.json`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..audio import REFERENCE_SECONDS
from ..errors import AudioError, VoiceError
from ..quantization import Quantization
from ..text import LANGUAGES
from .gpt import convert_gpt
from .output import Conversion
from .sovits import SYMBOLS, convert_sovits


@dataclass(frozen=True)
class VoiceConversion:
    """What `convert_voice` made: the folder, the content of `voice.json`, and both conversions."""

    folder: Path
    voice: dict[str, Any]
    gpt: Conversion
    sovits: Conversion


def convert_voice(
    gpt: Path | str,
    sovits: Path | str,
    reference: Path | str,
    text: str,
    language: str,
    output: Path | str,
    *,
    name: str | None = None,
    auxiliary: Sequence[Path | str] = (),
    languages: Sequence[str] | None = None,
    encoders: Mapping[str, str | None] | None = None,
    defaults: Mapping[str, Any] | None = None,
    licence: str = "",
    card: str = "",
    dtype: str | None = None,
    quantization: Quantization | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> VoiceConversion:
    """Make a complete voice folder of the files that users of GPT-SoVITS have.

    Args:
        gpt: the GPT's `.ckpt`.
        sovits: the SoVITS `.pth`, v1 or v2.
        reference: a recording of the voice, 3 to 10 seconds, in any format that libsndfile reads.
        text: what is said in it, word by word.
        language: the language of the text, one of `gpt_sovits_mlx.text.LANGUAGES`.
        output: the voice's folder, made here.
        name: the voice's name; by default the folder's.
        auxiliary: more recordings of the voice, whose timbre is mixed in.
        languages: what the voice speaks; by default all that the text front end knows.
        encoders: {"cnhubert": SHA-256 of its weights, "roberta": likewise} that the voice is used with; or a
            path inside the voice, or None where it was trained without.
        defaults: sampling settings that suit the voice (`top_k`, `temperature`, …).
        licence: under which the voice may be used.
        card: who speaks, where the recordings come from.
        dtype: as of `convert_gpt` and `convert_sovits`.
        quantization: of the GPT, as of `convert_gpt`.
        overwrite: replace an existing folder.
        progress: show progress bars.

    Raises:
        VoiceError: the folder exists, the language is unknown, the transcript is empty or the two models do
            not belong together.
        AudioError: a recording cannot be read or is too short or too long.
        WeightsError: a checkpoint cannot be converted. Whatever is raised, nothing is left.
    """
    folder = Path(output)
    name = name or folder.name
    languages = _check_languages(language, languages)
    _check_request(folder, text, overwrite)
    # the cheap checks come before the large files
    recording = read_reference(Path(reference), REFERENCE_SECONDS)
    extras = {f"auxiliary_{i}.wav": read_reference(Path(path)) for i, path in enumerate(auxiliary)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            made = Path(work) / folder.name
            made.mkdir()
            first = convert_gpt(gpt, made / "gpt.safetensors", dtype, progress, quantization)
            second = convert_sovits(sovits, made / "sovits.safetensors", dtype, progress)
            _check_pair(first, second, Path(gpt), Path(sovits))
            for file, (samples, rate, subtype) in {"reference.wav": recording, **extras}.items():
                soundfile.write(made / file, samples, rate, subtype=subtype, format="WAV")
            voice = {
                "format": 1,
                "name": name,
                "version": second.config["version"],
                "sample_rate": second.config["data"]["sampling_rate"],
                "reference": {"text": text.strip(), "language": language, "auxiliary": list(extras)},
                "languages": list(languages),
                "encoders": {"cnhubert": None, "roberta": None, **(encoders or {})},
                **({"defaults": dict(defaults)} if defaults else {}),
                "licence": licence,
                "card": card,
            }
            content = json.dumps(voice, indent=2, ensure_ascii=False) + "\n"
            (made / "voice.json").write_text(content, encoding="utf-8")
            _replace(made, folder, Path(work) / "replaced")
    except (OSError, soundfile.SoundFileError) as error:
        raise VoiceError(f"cannot write the voice {folder}: {' '.join(str(error).split())}") from None
    return VoiceConversion(folder, voice, _moved(first, folder), _moved(second, folder))


def read_reference(path: Path, seconds: tuple[float, float] | None = None) -> tuple[np.ndarray, int, str]:
    """A recording as whole numbers (frames, channels), its sample rate, and the PCM subtype that holds it.

    16-bit recordings keep their very samples; others become 24-bit PCM, scaled to fit if they are too loud.

    Args:
        path: the recording.
        seconds: least and greatest length allowed, or None for any.

    Raises:
        AudioError: it cannot be read, is damaged, or is too short or too long.
    """
    try:
        with soundfile.SoundFile(path) as file:
            subtype, rate = file.subtype, file.samplerate
            samples = file.read(dtype="float64", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"cannot read the recording {path}: {' '.join(str(error).split())}") from None
    if not samples.size or not np.isfinite(samples).all():
        raise AudioError(f"the recording {path} is empty or damaged: use another one")
    length = len(samples) / rate
    if seconds and not seconds[0] <= length <= seconds[1]:
        least, most = seconds
        raise AudioError(
            f"the reference {path} is {length:.2f} s long: cut it to between {least:g} and {most:g} seconds"
        )
    samples = samples / max(1.0, float(np.abs(samples).max()))
    if subtype in ("PCM_16", "PCM_U8", "PCM_S8"):
        return np.clip(np.rint(samples * 2**15), -(2**15), 2**15 - 1).astype(np.int16), rate, "PCM_16"
    whole = np.clip(np.rint(samples * 2**23), -(2**23), 2**23 - 1).astype(np.int32)
    return whole << 8, rate, "PCM_24"  # the library takes the upper 24 bits of 32


def _check_languages(language: str, languages: Sequence[str] | None) -> list[str]:
    """The languages that the voice speaks, all known to the text front end as the reference's must be."""
    spoken = list(LANGUAGES if languages is None else languages)
    for code in (language, *spoken):
        if code not in LANGUAGES:
            raise VoiceError(f"the language {code!r} is unknown: choose among {', '.join(LANGUAGES)}")
    return spoken


def _check_request(folder: Path, text: str, overwrite: bool) -> None:
    if folder.exists() and not overwrite:
        raise VoiceError(f"the voice {folder} exists already: choose another name or overwrite it")
    if folder.exists() and not (folder / "voice.json").is_file():
        raise VoiceError(f"{folder} exists and is no voice: it is not overwritten, choose another name")
    if not text.strip():
        raise VoiceError("the transcript of the reference is empty: write down what is said in it")


def _check_pair(gpt: Conversion, sovits: Conversion, gpt_path: Path, sovits_path: Path) -> None:
    """The GPT must know every phoneme of the SoVITS model's version."""
    symbols = SYMBOLS[sovits.config["symbols"]]
    if gpt.config["phoneme_vocab_size"] < symbols:
        raise VoiceError(
            f"{gpt_path} knows {gpt.config['phoneme_vocab_size']} phonemes, {sovits_path} is of"
            f" {sovits.config['version']} with {symbols}: give the two files that were trained together"
        )


def _replace(made: Path, folder: Path, aside: Path) -> None:
    """Rename `made` to `folder`; an old voice there is moved aside first and comes back if that fails."""
    old = folder.exists()
    if old:
        os.replace(folder, aside)
    try:
        os.replace(made, folder)
    except OSError:
        if old:
            os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _moved(conversion: Conversion, folder: Path) -> Conversion:
    return Conversion(
        folder / conversion.weights.name,
        folder / conversion.config_path.name,
        conversion.config,
        conversion.parameters,
        conversion.sha256,
        conversion.unused,
    )
