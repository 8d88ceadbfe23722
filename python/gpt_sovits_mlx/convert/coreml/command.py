"""The command line that the two scripts share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import GPTSoVITSError

if TYPE_CHECKING:
    from .encoders import PackageConversion


def run_package_conversion(
    convert: Callable[..., PackageConversion], description: str, name: str, arguments: Sequence[str] | None = None
) -> int:
    """Parse `--input` and `--output`, convert, and report in one line.

    Returns:
        The exit status: 0, or 1 after an error that a user can mend, printed as one line.
    """
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--input", type=Path, required=True, help=f"its Hugging Face folder, or the {name}.safetensors made of it")
    add("--output", type=Path, required=True, help=f"the package to write: DIR/encoders/{name}_ane.mlpackage")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        done = convert(options.input, options.output, progress=True)
    except GPTSoVITSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in done.package.rglob("*") if file.is_file()) / 1e6
    print(
        f"wrote {done.package} ({size:.0f} MB, {len(done.lengths)} lengths up to {max(done.lengths)},"
        f" weights {done.sha256[:12]}…) in {time.perf_counter() - start:.0f} s"
    )
    return 0
