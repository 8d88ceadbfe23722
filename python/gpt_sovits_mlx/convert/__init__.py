"""Official GPT-SoVITS files → safetensors with a configuration beside each, and whole voice folders.

Nothing here needs PyTorch: checkpoints are read by `torchfile`, which builds data only and runs nothing of
what a file asks for.
"""

from ..quantization import Quantization
from ..voices.recipe import VoiceRecipe
from .cnhubert import convert_cnhubert
from .fetch import convert_encoders, fetch_encoders
from .gpt import convert_gpt
from .output import Conversion
from .roberta import convert_roberta
from .sovits import convert_sovits
from .voice import VoiceConversion, convert_voice

__all__ = [
    "Conversion",
    "Quantization",
    "VoiceConversion",
    "VoiceRecipe",
    "convert_cnhubert",
    "convert_encoders",
    "convert_gpt",
    "convert_roberta",
    "convert_sovits",
    "convert_voice",
    "fetch_encoders",
]
