"""English: text -> normalised text -> ARPAbet. See normalize.py for the rules and g2p.py for the look-up order."""

from gpt_sovits_mlx.text.english.g2p import g2p
from gpt_sovits_mlx.text.english.normalize import normalize

__all__ = ["g2p", "normalize"]
