"""Make the Core ML package of the text encoder chinese-roberta-wwm-ext-large, for the Neural Engine.

python scripts/convert_roberta_coreml.py --input FOLDER --output DIR/encoders/roberta_ane.mlpackage
"""

import sys

from gpt_sovits_mlx.convert.coreml import convert_roberta_package
from gpt_sovits_mlx.convert.coreml.command import run_package_conversion

if __name__ == "__main__":
    sys.exit(
        run_package_conversion(
            convert_roberta_package,
            "Make the Core ML package of the text encoder chinese-roberta-wwm-ext-large.",
            "roberta",
        )
    )
