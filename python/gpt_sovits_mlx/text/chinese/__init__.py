"""Mandarin: text -> normalised text -> phones. Dictionaries load on first use, quietly; safe in threads."""

from .g2p import g2p
from .normalizer import normalize
from .syllables import syllable_to_phones

__all__ = ["g2p", "normalize", "syllable_to_phones"]
