"""A whole voice out of official files: weights, configurations, reference recording and `voice.json`, enrolled."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from .. import audio
from ..errors import VoiceError
from ..files import file_sha256
from ..voices.enrolment import check_length
from ..voices.format import GPT_FILE, OFFICIAL, REFERENCE_FILE, SOVITS_FILE, VOICE_FILE, Reference, VoiceFolder
from ..voices.library import ENCODERS, encoder_file, encoder_of, model_home, voice_path
from ..voices.loader import VoiceLoader
from ..voices.recipe import VoiceRecipe
from .gpt import convert_gpt
from .output import Conversion
from .sovits import SYMBOLS, convert_sovits


@dataclass(frozen=True)
class VoiceConversion:
    """What `convert_voice` made.

    Attributes:
        voice: the folder.
        gpt, sovits: both conversions.
        missing: encoders that must be installed before the voice's reference can be enrolled; empty where it is.
    """

    voice: VoiceFolder
    gpt: Conversion
    sovits: Conversion
    missing: tuple[str, ...]


def convert_voice(
    recipe: VoiceRecipe,
    model_dir: Path | str | None = None,
    output: Path | str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> VoiceConversion:
    """Make a complete voice of the files that users of GPT-SoVITS have.

    Its reference is enrolled where the encoders are installed, else when it first speaks.

    Args:
        recipe: what it is made of.
        model_dir: the model folder, by default the user's; its encoders are those that the voice is made for.
        output: the voice's folder, made here; by default `voices/` and the recipe's name in the model folder.
        overwrite: replace an existing voice.
        progress: show progress bars.

    Raises:
        VoiceError: the folder exists, the voice has no name, the two models do not belong together, or an encoder
            is another than the recipe's.
        AudioError: a recording cannot be read or is too short or too long.
        TextError: the transcript cannot be spoken.
        WeightsError: a checkpoint cannot be converted. Whatever is raised, nothing is left.
    """
    models = model_home(model_dir)
    if output is None and recipe.name is None:
        raise VoiceError("the voice has no name: give it one, or the folder to write")
    folder = Path(output).expanduser() if output is not None else voice_path(models, recipe.name or "")
    _check_folder(folder, overwrite)
    # the cheap checks come before the large files
    recordings = {REFERENCE_FILE: _Recording.read(Path(recipe.reference), is_reference=True)}
    recordings |= {f"auxiliary_{i}.wav": _Recording.read(Path(path)) for i, path in enumerate(recipe.auxiliary)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            made = Path(work) / folder.name
            made.mkdir()
            gpt = convert_gpt(recipe.gpt, made / GPT_FILE, recipe.dtype, progress, recipe.quantization)
            sovits = convert_sovits(recipe.sovits, made / SOVITS_FILE, recipe.dtype, progress)
            _check_pair(gpt, sovits, recipe)
            for file, recording in recordings.items():
                recording.write(made / file)
            voice = _described(recipe, made, recipe.name or folder.name, list(recordings), sovits, models)
            voice.write()
            missing = tuple(
                name for name in ENCODERS if voice.uses(name) and not encoder_of(voice, name, models).is_file()
            )
            if not missing:
                VoiceLoader(models, encoder_backend="auto").voice(voice)
            _replace(made, folder, Path(work) / "replaced")
    except (OSError, soundfile.SoundFileError) as error:
        raise VoiceError(f"cannot write the voice {folder}: {' '.join(str(error).split())}") from None
    return VoiceConversion(VoiceFolder.read(folder), _moved(gpt, folder), _moved(sovits, folder), missing)


def _described(
    recipe: VoiceRecipe, path: Path, name: str, recordings: list[str], sovits: Conversion, models: Path
) -> VoiceFolder:
    """The voice, as its `voice.json` is to describe it."""
    if recipe.encoders is None:
        found = {encoder: encoder_file(models, encoder) for encoder in ENCODERS}
        encoders = {encoder: file_sha256(file) if file.is_file() else OFFICIAL for encoder, file in found.items()}
    else:
        encoders = {**dict.fromkeys(ENCODERS), **recipe.encoders}
    main, *auxiliary = (path / file for file in recordings)
    return VoiceFolder(
        path=path,
        name=name,
        version=sovits.config["version"],
        sample_rate=sovits.config["data"]["sampling_rate"],
        languages=tuple(recipe.languages),
        reference=Reference(main, recipe.text.strip(), recipe.language, tuple(auxiliary)),
        encoders=encoders,
        weights=path,
        defaults=recipe.defaults,
        licence=recipe.licence,
        card=recipe.card,
    )


@dataclass(frozen=True)
class _Recording:
    """A recording as it is stored: whole numbers (frames, channels) in the PCM subtype that holds them.

    16-bit recordings keep their very samples; others become 24-bit PCM, scaled to fit if they are too loud.
    """

    samples: np.ndarray
    rate: int
    subtype: str

    @classmethod
    def read(cls, path: Path, is_reference: bool = False) -> _Recording:
        """Raises `AudioError` where it cannot be used."""
        frames, rate, subtype = audio.read_channels(path)
        if is_reference:
            check_length(path, len(frames) / rate)
        frames = frames / max(1.0, float(np.abs(frames).max()))
        if subtype in ("PCM_16", "PCM_U8", "PCM_S8"):
            return cls(np.clip(np.rint(frames * 2**15), -(2**15), 2**15 - 1).astype(np.int16), rate, "PCM_16")
        whole = np.clip(np.rint(frames * 2**23), -(2**23), 2**23 - 1).astype(np.int32)
        return cls(whole << 8, rate, "PCM_24")  # the library takes the upper 24 bits of 32

    def write(self, path: Path) -> None:
        soundfile.write(path, self.samples, self.rate, subtype=self.subtype, format="WAV")


def _check_folder(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not overwrite:
        raise VoiceError(f"the voice {folder} exists already: choose another name or overwrite it")
    if folder.exists() and not (folder / VOICE_FILE).is_file():
        raise VoiceError(f"{folder} exists and is no voice: it is not overwritten, choose another name")


def _check_pair(gpt: Conversion, sovits: Conversion, recipe: VoiceRecipe) -> None:
    """The GPT must know every phoneme of the SoVITS model's version."""
    symbols = SYMBOLS[sovits.config["symbols"]]
    if gpt.config["phoneme_vocab_size"] < symbols:
        raise VoiceError(
            f"{recipe.gpt} knows {gpt.config['phoneme_vocab_size']} phonemes, {recipe.sovits} is of"
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
    weights, config_path = (folder / path.name for path in (conversion.weights, conversion.config_path))
    return replace(conversion, weights=weights, config_path=config_path)
