"""A network → one Core ML package with a function for each fixed length, all sharing one set of weights."""

from __future__ import annotations

import importlib.metadata
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Protocol

import coremltools as ct
import numpy as np
import torch
from coremltools.models.utils import MultiFunctionDescriptor, save_multifunction
from rich.console import Console
from rich.progress import Progress

from ... import __version__
from ...encoders.buckets import AudioBucket, TextBucket
from ...encoders.coreml import SPEC, read_spec
from ...errors import WeightsError

OUTPUT = "features"
PRECISIONS = {"float16": (ct.precision.FLOAT16, np.float16), "float32": (ct.precision.FLOAT32, np.float32)}
WRITERS = ("filesystem error", "FileWriter")
"""By which coremltools' own failures to write are known."""
FULL = "the disk seems to be full"
Bucket = TextBucket | AudioBucket


class Network(Protocol):
    """What is converted: a `torch.nn.Module` that knows its inputs."""

    @property
    def input_names(self) -> Sequence[str]: ...
    def eval(self) -> Any: ...
    def example(self, bucket: Any) -> dict[str, np.ndarray]: ...


def build_package(
    network: Network,
    buckets: Sequence[Bucket],
    output: Path,
    metadata: Mapping[str, str],
    description: str,
    precision: str = "float16",
    progress: str | None = None,
) -> None:
    """Convert a network for every bucket and write the package, whole or not at all.

    Args:
        network: in evaluation mode or not; it is traced once for each bucket.
        buckets: lengths; the first is the package's default function.
        output: `….mlpackage`, replaced where it exists.
        metadata: written into the package beside the versions that made it.
        description: one line that says what the package is.
        precision: "float16", or "float32" for a twin to check the structure with.
        progress: label of a progress bar, or None for none.

    Raises:
        WeightsError: the package cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.stem}-", dir=output.parent) as work:
            made = Path(work) / "made.mlpackage"
            with _steps(progress, len(buckets) + 1) as step:
                _write_functions(network, buckets, made, precision, step)
            _describe(made, metadata, description)
            if output.is_dir():
                output.rename(Path(work) / "replaced")
            os.replace(made, output)
    except OSError as error:
        raise WeightsError(f"cannot write {output}: {error.strerror or FULL}") from None
    except RuntimeError as error:
        if not any(writer in str(error) for writer in WRITERS):
            raise
        raise WeightsError(f"cannot write {output}: {FULL}") from None


def _write_functions(network: Network, buckets: Sequence[Bucket], made: Path, precision: str, step: Any) -> None:
    """Convert bucket by bucket, each into a package of its own, and join these."""
    functions = MultiFunctionDescriptor()
    parts = []
    with _quiet():
        for bucket in buckets:
            part = made.with_name(f"{bucket.function}.mlpackage")
            convert_function(network, bucket, part, precision)
            parts.append(part)
            step()
        for bucket, part in zip(buckets, parts, strict=True):
            functions.add_function(str(part), "main", bucket.function)
        functions.default_function_name = buckets[0].function
        save_multifunction(functions, str(made))
        step()
    for part in parts:
        shutil.rmtree(part)


def convert_function(network: Network, bucket: Bucket, package: Path, precision: str = "float16") -> None:
    """Write the network at one length, an ML program for iOS 18 and macOS 15, as function "main" of a package."""
    compute, number = PRECISIONS[precision]
    example = network.example(bucket)
    tensors = tuple(torch.from_numpy(example[name]) for name in network.input_names)
    with torch.no_grad(), _quiet():
        traced = torch.jit.trace(network.eval(), tensors, check_trace=False)
        ct.convert(
            traced,
            inputs=[ct.TensorType(name, example[name].shape, dtype=number) for name in network.input_names],
            outputs=[ct.TensorType(OUTPUT, dtype=number)],
            convert_to="mlprogram",
            compute_precision=compute,
            compute_units=ct.ComputeUnit.CPU_AND_NE,
            minimum_deployment_target=ct.target.iOS18,
            skip_model_load=True,
            # what coremltools writes elsewhere stays until the interpreter ends
            package_dir=str(package),
        )


def _describe(package: Path, metadata: Mapping[str, str], description: str) -> None:
    spec = read_spec(package)
    about = spec.description.metadata
    about.shortDescription = description
    about.author = "gpt-sovits-mlx"
    about.versionString = __version__
    versions = {name: importlib.metadata.version(name) for name in ("coremltools", "torch", "numpy")}
    for name, value in {**metadata, **versions, "gpt-sovits-mlx": __version__}.items():
        about.userDefined[name] = value
    (package / SPEC).write_bytes(spec.SerializeToString())


@contextmanager
def _steps(label: str | None, total: int) -> Iterator[Any]:
    """A progress bar's step function; without a label one that does nothing."""
    if label is None:
        yield lambda: None
        return
    # the stream itself: while coremltools works, `sys.stderr` is another one
    with Progress(console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without coremltools' own bars, and its warnings of what the tests here show to be right."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
