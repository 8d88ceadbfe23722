"""GPT-SoVITS text to speech on MLX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    AudioError,
    DependencyError,
    GPTSoVITSError,
    TextError,
    VoiceError,
    WeightsError,
)
from .runtime import prepare_blas

if TYPE_CHECKING:
    from .engine import GPTSoVITSEngine, synthesize
    from .result import AudioChunk, SynthesisResult
    from .voices.voice import Voice

__version__ = "0.1.0"
__all__ = [
    "AudioChunk",
    "AudioError",
    "DependencyError",
    "GPTSoVITSEngine",
    "GPTSoVITSError",
    "SynthesisResult",
    "TextError",
    "Voice",
    "VoiceError",
    "WeightsError",
    "synthesize",
]

prepare_blas()

_LAZY = {
    "GPTSoVITSEngine": "engine",
    "AudioChunk": "result",
    "SynthesisResult": "result",
    "synthesize": "engine",
    "Voice": "voices.voice",
}


def __getattr__(name: str) -> Any:
    """Load MLX and the models only when they are asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    from .runtime import require_mlx

    require_mlx()
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
