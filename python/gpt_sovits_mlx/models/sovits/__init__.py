"""SoVITS, the vocoder: semantic tokens, phones and a style vector → audio."""

from .synthesizer import SoVITS, SoVITSConfig

__all__ = ["SoVITS", "SoVITSConfig"]
