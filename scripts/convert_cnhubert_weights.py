"""Convert the speech encoder chinese-hubert-base for gpt-sovits-mlx.

python scripts/convert_cnhubert_weights.py --input FOLDER --output DIR/cnhubert.safetensors
"""

import sys

from gpt_sovits_mlx.convert import convert_cnhubert
from gpt_sovits_mlx.convert.command import run_conversion

if __name__ == "__main__":
    sys.exit(
        run_conversion(
            convert_cnhubert,
            "Convert the speech encoder chinese-hubert-base.",
            "its Hugging Face folder or weights file",
        )
    )
