"""The two encoders in front of the models, behind one protocol each, and their back ends."""

from .protocols import CharacterEncoder, SpeechEncoder

__all__ = ["CharacterEncoder", "SpeechEncoder"]
