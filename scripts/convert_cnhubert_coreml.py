"""Make the Core ML package of the speech encoder chinese-hubert-base, for the Neural Engine.

python scripts/convert_cnhubert_coreml.py --input FOLDER --output DIR/encoders/cnhubert_ane.mlpackage
"""

import sys

from gpt_sovits_mlx.convert.coreml import convert_cnhubert_package
from gpt_sovits_mlx.convert.coreml.command import run_package_conversion

if __name__ == "__main__":
    sys.exit(
        run_package_conversion(
            convert_cnhubert_package,
            "Make the Core ML package of the speech encoder chinese-hubert-base.",
            "cnhubert",
        )
    )
