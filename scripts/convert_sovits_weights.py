"""Convert an official SoVITS checkpoint (v1 or v2) for gpt-sovits-mlx.

python scripts/convert_sovits_weights.py --input X.pth --output DIR/sovits.safetensors
"""

import sys

from gpt_sovits_mlx.convert import convert_sovits
from gpt_sovits_mlx.convert.command import run_conversion

if __name__ == "__main__":
    description = "Convert an official SoVITS checkpoint (v1 or v2)."
    sys.exit(run_conversion(convert_sovits, description, "the .pth file", quantizes=False))
