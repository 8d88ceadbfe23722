"""The encoders as Core ML packages for the Neural Engine, and an interpreter that shows what a package computes.

Needs PyTorch and coremltools: `pip install 'gpt-sovits-mlx[coreml]'`.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DependencyError

if TYPE_CHECKING:
    from .encoders import PackageConversion

__all__ = ["convert_cnhubert_package", "convert_roberta_package", "require_converter"]
_HINT = "pip install 'gpt-sovits-mlx[coreml]'"
# it warns of every version of torch that is newer than itself
logging.getLogger("coremltools").setLevel(logging.ERROR)


def require_converter() -> None:
    """Raises `DependencyError` where what converts and interprets packages is missing, or cannot work together."""
    for package in ("coremltools", "torch"):
        if importlib.util.find_spec(package) is None:
            raise DependencyError(f"{package} is missing, which Core ML packages are made and checked with: {_HINT}")
    import numpy as np

    if np.lib.NumpyVersion(np.__version__) >= "2.4.0":
        raise DependencyError(f"coremltools cannot convert with numpy {np.__version__}, only below 2.4: {_HINT}")


def convert_cnhubert_package(input: Path | str, output: Path | str, progress: bool = False) -> PackageConversion:
    """Make CNHubert's package.

    Args:
        input: a Hugging Face folder of chinese-hubert-base, or a `cnhubert.safetensors` made of one.
        output: `…/cnhubert_ane.mlpackage`.
        progress: show a progress bar.

    Raises:
        DependencyError: coremltools or PyTorch is missing.
        WeightsError: the input is no sound HuBERT of this build, or the output cannot be written; nothing is left.
    """
    require_converter()
    from .encoders import make_cnhubert

    return make_cnhubert(Path(input), Path(output), progress=progress)


def convert_roberta_package(input: Path | str, output: Path | str, progress: bool = False) -> PackageConversion:
    """Make RoBERTa's package, and `…_embeddings.safetensors` beside it.

    Args:
        input: a Hugging Face folder of chinese-roberta-wwm-ext-large, or a `roberta.safetensors` made of one.
        output: `…/roberta_ane.mlpackage`.
        progress: show a progress bar.

    Raises:
        DependencyError: coremltools or PyTorch is missing.
        WeightsError: the input is no sound BERT of this build, or the output cannot be written; nothing is left.
    """
    require_converter()
    from .encoders import make_roberta

    return make_roberta(Path(input), Path(output), progress=progress)
