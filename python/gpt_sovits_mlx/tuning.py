"""Which formulation of an operation this machine computes fastest: what is usual for its back end, or what
`gpt-sovits-mlx tune` measured and remembered."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from .errors import GPTSoVITSError
from .files import written_whole
from .runtime import backend, user_cache_dir


@dataclass(frozen=True)
class Forms:
    """Formulations that give the same numbers but for rounding.

    Attributes:
        convolution: MLX's own convolutions, or chains of matrix products over their taps.
        numpy_generator: whether the vocoder's generator runs in numpy on a CPU; then the next two do not matter.
        transposed: MLX's own transposed convolutions, whose last bits CUDA makes differ from one time to the next, or a
            matrix product for each phase.
        fused: whether the vocoder's residual blocks are compiled (`mx.compile`).
        padded: whether the vocoder pads sentences to a few lengths.
    """

    convolution: str
    numpy_generator: bool
    transposed: str
    fused: bool
    padded: bool


KNOWN: dict[str, tuple[Any, Any]] = {
    "convolution": ("native", "taps"),
    "numpy_generator": (False, True),
    "transposed": ("native", "phases"),
    "fused": (False, True),
    "padded": (False, True),
}
"""The values of each field."""
_tried: list[Forms] = []


def usual() -> Forms:
    """What was found fastest for the back end: on a CPU MLX has no fast path for dilated and transposed convolutions
    (about 1 GFLOP/s), and CUDA plans each convolution for each shape. There products are as fast as transposed
    convolutions, and a seed gives the same samples again. Metal is taken to have none of these traits."""
    cpu, cuda = backend() == "cpu", backend() == "cuda"
    return Forms(
        convolution="taps" if cpu else "native",
        numpy_generator=cpu,
        transposed="phases" if cpu or cuda else "native",
        fused=cuda,
        padded=cuda,
    )


def forms() -> Forms:
    """What models that are loaded now are to use.

    Raises:
        GPTSoVITSError: what was remembered is damaged.
    """
    return _tried[-1] if _tried else _remembered(path(), machine())


@contextmanager
def trying(these: Forms) -> Iterator[None]:
    """Models that are loaded inside use these."""
    _tried.append(these)
    try:
        yield
    finally:
        _tried.pop()


def remember(these: Forms) -> Path:
    """Keep these for this machine and this version of MLX; the file is returned."""
    file = path()
    known = _read(file)
    known[machine()] = asdict(these)
    with written_whole(file) as part:
        part.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    _remembered.cache_clear()
    return file


def path() -> Path:
    return user_cache_dir() / "tuning.json"


def machine() -> str:
    """What the measurements hold for."""
    import mlx.core as mx

    device = mx.device_info()
    name = device.get("device_name") or device.get("architecture") or ""
    return f"{backend()}, {name}, mlx {_mlx_version()}"


@cache
def _mlx_version() -> str:
    return importlib.metadata.version("mlx")


@cache
def _remembered(file: Path, which: str) -> Forms:
    stated = _read(file).get(which)
    if stated is None:
        return usual()
    try:
        made = Forms(**_of_today(stated))
    except (TypeError, AttributeError):
        raise _damaged(file) from None
    if any(getattr(made, field.name) not in KNOWN[field.name] for field in fields(made)):
        raise _damaged(file)
    return made


def _of_today(stated: dict[str, Any]) -> dict[str, Any]:
    """What an earlier version remembered: `numpy_generator` came later, and was called `host` first."""
    renamed = {"numpy_generator" if name == "host" else name: value for name, value in stated.items()}
    return {"numpy_generator": usual().numpy_generator, **renamed}


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise _damaged(file) from None
    if not isinstance(known, dict):
        raise _damaged(file)
    return known


def _damaged(file: Path) -> GPTSoVITSError:
    return GPTSoVITSError(f"{file} is damaged: delete it, or run gpt-sovits-mlx tune after that")
