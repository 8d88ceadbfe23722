"""The two base encoders: fetched from the Hugging Face hub when asked for, or taken from a local folder."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DependencyError, WeightsError
from ..files import file_sha256
from ..quantization import Quantization
from ..voices.library import encoder_file, encoders_folder
from .cnhubert import convert_cnhubert
from .output import Conversion
from .roberta import convert_roberta

REPOSITORY = "lj1995/GPT-SoVITS"
REVISION = "336b2ec4e8d4ac74740798dd40af44e74659ecaf"
"""The commit that is fetched; what it must contain is checked by `SHA256` besides."""

SHA256 = {
    "chinese-hubert-base/config.json": "c3e5060a1277e0f078cc6be9da4528a605dba6ece93018981fe2c820e5c7b103",
    "chinese-hubert-base/pytorch_model.bin": ("24164f129c66499d1346e2aa55f183250c223161ec2770c0da3d3b08cf432d3c"),
    "chinese-roberta-wwm-ext-large/config.json": ("3d57de2fd7e80d0e5c8ff194f0bbb6baa10df7e43fc262a0cc71298a78b0a3e5"),
    "chinese-roberta-wwm-ext-large/pytorch_model.bin": (
        "e53a693acc59ace251d143d068096ae0d7b79e4b1b503fa84c9dcf576448c1d8"
    ),
    "chinese-roberta-wwm-ext-large/tokenizer.json": (
        "173796956820ea27bd14f76bf28162607ff4254807e2948253eb5b46f5bb643b"
    ),
}


@dataclass(frozen=True)
class _Encoder:
    folder: str
    convert: Callable[..., Conversion]


ENCODERS = {
    "cnhubert": _Encoder("chinese-hubert-base", convert_cnhubert),
    "roberta": _Encoder("chinese-roberta-wwm-ext-large", convert_roberta),
}


def fetch_encoders(
    model_dir: Path | str,
    names: Sequence[str] = tuple(ENCODERS),
    dtype: str | None = None,
    progress: bool = True,
    quantization: Quantization | None = None,
) -> dict[str, Conversion]:
    """Download the encoders that GPT-SoVITS users have, and convert them into a model folder.

    840 MB from `REPOSITORY` at `REVISION`, kept in Hugging Face's cache. Progress is shown by its client.

    Args:
        model_dir: the model folder; the encoders go to `encoders/` in it.
        names: which of "cnhubert" and "roberta".
        dtype: as of `convert_cnhubert`.
        progress: show progress bars.
        quantization: as of `convert_cnhubert`.

    Raises:
        DependencyError: huggingface_hub is not installed, or nothing can be downloaded; the message says
            which files to put where instead.
        WeightsError: a file is not the published one, or cannot be converted.
    """
    files = [file for name in names for file in SHA256 if file.startswith(ENCODERS[name].folder)]
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise DependencyError("downloading needs huggingface_hub: pip install 'gpt-sovits-mlx[convert]'") from None
    try:
        folder = Path(snapshot_download(REPOSITORY, revision=REVISION, allow_patterns=files))
    except Exception as error:  # the client raises its own, its HTTP library's and the system's errors
        reason = textwrap.shorten(str(error) or type(error).__name__, 160, placeholder=" …")
        raise DependencyError(
            f"cannot download {', '.join(ENCODERS[name].folder for name in names)} from huggingface.co/"
            f"{REPOSITORY} ({reason}): connect and try again, or take these folders from a GPT-SoVITS"
            " installation (GPT_SoVITS/pretrained_models) and convert each with"
            f" scripts/convert_{{{','.join(names)}}}_weights.py into {encoders_folder(Path(model_dir))}"
        ) from None
    for file in files:
        if not (folder / file).is_file() or file_sha256(folder / file) != SHA256[file]:
            raise WeightsError(f"{folder / file} is not the published file: delete it from the cache and fetch again")
    return convert_encoders(folder, model_dir, names, dtype, progress, quantization)


def convert_encoders(
    source: Path | str,
    model_dir: Path | str,
    names: Sequence[str] = tuple(ENCODERS),
    dtype: str | None = None,
    progress: bool = False,
    quantization: Quantization | None = None,
) -> dict[str, Conversion]:
    """Convert the encoders of a GPT-SoVITS installation into a model folder.

    Args:
        source: a folder that holds `chinese-hubert-base/` and `chinese-roberta-wwm-ext-large/`, as
            `GPT_SoVITS/pretrained_models` does.
        model_dir: the model folder; writes `encoders/cnhubert.safetensors`, `encoders/roberta.safetensors`
            and what belongs beside them.
        names: which of "cnhubert" and "roberta".
        dtype: as of `convert_cnhubert`.
        progress: show progress bars.
        quantization: as of `convert_cnhubert`.

    Returns:
        name → what was written, with its SHA-256, by which voices name their encoders.

    Raises:
        WeightsError: a folder is missing or cannot be converted.
    """
    source = Path(source)
    for name in names:
        if not (source / ENCODERS[name].folder).is_dir():
            raise WeightsError(f"{source} holds no folder {ENCODERS[name].folder}: give GPT_SoVITS/pretrained_models")
    return {
        name: ENCODERS[name].convert(
            source / ENCODERS[name].folder, encoder_file(Path(model_dir), name), dtype, progress, quantization
        )
        for name in names
    }
