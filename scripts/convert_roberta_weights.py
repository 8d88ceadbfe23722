"""Convert the text encoder chinese-roberta-wwm-ext-large for gpt-sovits-mlx.

python scripts/convert_roberta_weights.py --input FOLDER --output DIR/roberta.safetensors
"""

import sys

from gpt_sovits_mlx.convert import convert_roberta
from gpt_sovits_mlx.convert.command import run_conversion

if __name__ == "__main__":
    sys.exit(
        run_conversion(
            convert_roberta,
            "Convert the text encoder chinese-roberta-wwm-ext-large.",
            "its Hugging Face folder or weights file",
        )
    )
