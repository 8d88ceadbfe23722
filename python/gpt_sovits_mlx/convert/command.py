"""The command line that the conversion scripts share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import GPTSoVITSError
from ..quantization import BITS, GROUP_SIZES, Quantization
from .output import Conversion
from .tensors import DTYPES


def run_conversion(
    convert: Callable[..., Conversion],
    description: str,
    input_help: str,
    arguments: Sequence[str] | None = None,
    quantizes: bool = True,
) -> int:
    """Parse `--input`, `--output`, `--dtype` and, where the model can be quantized, `--bits` and `--group-size`;
    convert, and report in one line.

    Returns:
        The exit status: 0, or 1 after an error that a user can mend, printed as one line.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--input", type=Path, required=True, help=input_help)
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--dtype", choices=DTYPES, help="store all tensors so (default: as in the input)")
    if quantizes:
        parser.add_argument("--bits", type=int, choices=BITS, help="quantize the matrices; --dtype is for all else")
        parser.add_argument("--group-size", type=int, choices=GROUP_SIZES, help="with --bits: numbers a scale (64)")
    options = parser.parse_args(arguments)
    settings: dict[str, Any] = {"dtype": options.dtype}
    if quantizes and options.bits:
        settings["quantization"] = Quantization(options.bits, options.group_size or Quantization.group_size)
    elif quantizes and options.group_size:
        parser.error("--group-size needs --bits")
    try:
        done = convert(options.input, options.output, progress=True, **settings)
    except GPTSoVITSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {done.weights} ({done.parameters / 1e6:.1f} M parameters) and {done.config_path}")
    return 0
