"""The command line that the conversion scripts share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import GPTSoVITSError
from .output import Conversion
from .tensors import DTYPES


def run_conversion(
    convert: Callable[..., Conversion],
    description: str,
    input_help: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse `--input`, `--output` and `--dtype`, convert, and report in one line.

    Returns:
        The exit status: 0, or 1 after an error that a user can mend, printed as one line.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--input", type=Path, required=True, help=input_help)
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--dtype", choices=DTYPES, help="store all tensors so (default: as in the input)")
    options = parser.parse_args(arguments)
    try:
        done = convert(options.input, options.output, dtype=options.dtype, progress=True)
    except GPTSoVITSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {done.weights} ({done.parameters / 1e6:.1f} M parameters) and {done.config_path}")
    return 0
