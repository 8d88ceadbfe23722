"""Where voices and encoders lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import VoiceError
from .format import VOICE_FILE, VoiceFolder

ENCODERS = ("cnhubert", "roberta")
"""What a voice may need besides its own folder."""


def model_home(given: str | Path | None = None) -> Path:
    """Folder of the user's voices and encoders: the one given, else $GPT_SOVITS_MLX_HOME, else in the user's data."""
    home = given or os.environ.get("GPT_SOVITS_MLX_HOME")
    if home:
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("gpt-sovits-mlx"))


def encoders_folder(model_dir: Path) -> Path:
    """Folder of the encoders that voices share."""
    return model_dir / "encoders"


def encoder_file(model_dir: Path, name: str) -> Path:
    """Weights of an encoder that voices share."""
    return encoders_folder(model_dir) / f"{name}.safetensors"


def encoder_of(folder: VoiceFolder, name: str, model_dir: Path) -> Path:
    """Weights of the encoder that a voice uses: its own, or a shared one."""
    return folder.own_encoder(name) or encoder_file(model_dir, name)


def voice_path(model_dir: Path, name: str) -> Path:
    """Folder of the user's voice of a name."""
    return model_dir / "voices" / name


def voice_roots(model_dir: Path) -> list[Path]:
    """Where voices are looked for: the user's first, then those that come with the package."""
    return [model_dir / "voices", shipped_voices()]


def shipped_voices() -> Path:
    """Folder of the voices that come with the package: inside it, or beside `python/` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "shipped_voices"
    return inside if inside.is_dir() else package.parent.parent / "voices"


def find_voice(name_or_path: str | Path, roots: Sequence[Path]) -> Path:
    """The folder of a voice: a path, or a name below one of `roots`.

    Raises:
        VoiceError: there is none; the message lists those that there are.
    """
    given = Path(name_or_path).expanduser()
    if (given / VOICE_FILE).is_file():
        return given.resolve()
    if len(given.parts) == 1:
        for root in roots:
            if (root / given / VOICE_FILE).is_file():
                return (root / given).resolve()
    if given.is_dir():
        raise VoiceError(f"{given} is not a voice: no {VOICE_FILE} in it (make one with gpt-sovits-mlx convert)")
    known = ", ".join(sorted({folder.name for folder in voice_paths(roots)})) or "none"
    raise VoiceError(f"no voice {str(name_or_path)!r}: the voices here are {known}")


def voice_paths(roots: Sequence[Path]) -> list[Path]:
    """The folders of all voices below `roots`; the first of a name hides later ones."""
    found: dict[str, Path] = {}
    for root in roots:
        for file in sorted(root.glob(f"*/{VOICE_FILE}")):
            found.setdefault(file.parent.name, file.parent)
    return list(found.values())
