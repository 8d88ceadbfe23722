"""Convert an official GPT checkpoint for gpt-sovits-mlx.

python scripts/convert_gpt_weights.py --input X.ckpt --output DIR/gpt.safetensors
"""

import sys

from gpt_sovits_mlx.convert import convert_gpt
from gpt_sovits_mlx.convert.command import run_conversion

if __name__ == "__main__":
    sys.exit(
        run_conversion(
            convert_gpt, "Convert an official GPT checkpoint.", "the .ckpt file (or a .safetensors made of it)"
        )
    )
