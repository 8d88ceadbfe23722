"""The Core ML encoders: through the interpreter anywhere, on the Neural Engine on a Mac."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..encoders.buckets import AUDIO_BUCKETS, TEXT_BUCKETS, AudioBucket, TextBucket
from ..encoders.coreml import (
    CoreMLCharacterEncoder,
    CoreMLProgram,
    CoreMLSpeechEncoder,
    Program,
    has_engine,
    runs_here,
    work_off_the_engine,
)
from ..errors import DependencyError
from .golden import load_outputs
from .models import golden_recording
from .report import Clock, Row, not_run

INTERPRETER = "Core ML, interpreted in float16"
ENGINE = "Core ML, CPU and Neural Engine"
PROCESSOR = "Core ML, CPU"
ALLOW_LIST = "allow-list"
NO_MAC = "needs a Mac with macOS 15"
LIMITS = {INTERPRETER: 1e-4, PROCESSOR: 1e-3, ENGINE: 1e-3}
"""Of 1 − cosine, the worst over rows. A device also rounds inside its operations."""
MEASURE = "1 − cosine"
MOST_OFF_THE_ENGINE = 0.1
"""Of a function's cost."""
TITLES = {"cnhubert": "CNHubert", "roberta": "RoBERTa"}


def verify_package(name: str, weights: Path) -> Iterator[Row]:
    """Make a package of golden weights and run it: where there is a Neural Engine with every function that holds the
    golden input, elsewhere with the shortest, since the interpreter takes its time."""
    from ..convert.coreml import require_converter

    title = TITLES[name]
    try:
        require_converter()
    except DependencyError as missing:
        yield not_run(f"{title}, package", ALLOW_LIST, str(missing))
        yield not_run(title, INTERPRETER, str(missing))
        yield from _not_on_the_engine(title, str(missing) if runs_here() else NO_MAC)
        return
    from ..convert.coreml.encoders import make_cnhubert, make_roberta
    from ..convert.coreml.interpreter import Interpreter
    from ..convert.coreml.suitability import unsuitable

    package = weights.with_name(f"{name}_ane.mlpackage")
    engine = has_engine()
    if name == "cnhubert":
        buckets = [b for b in AUDIO_BUCKETS if b.length >= len(golden_recording()[0])][: None if engine else 1]
        make_cnhubert(weights, package, buckets)
    else:
        buckets = [b for b in TEXT_BUCKETS if b.length >= load_outputs(name)["input_ids"].size][: None if engine else 1]
        make_roberta(weights, package, buckets)
    yield Row(f"{title}, package", ALLOW_LIST, len(unsuitable(package)), 0, "unsuitable parts")
    yield run_function(name, package, Interpreter, INTERPRETER, buckets[0])
    if engine:
        for bucket in buckets:
            yield run_function(name, package, in_place, ENGINE, bucket)
            yield placement(f"{title}, placement", package, bucket.function)
        return
    if runs_here():
        yield run_function(name, package, in_place, PROCESSOR, buckets[0])
    yield from _not_on_the_engine(title, no_engine())


def _not_on_the_engine(title: str, reason: str) -> Iterator[Row]:
    yield not_run(title, ENGINE, reason)
    yield not_run(f"{title}, placement", ENGINE, reason)


def in_place(package: Path) -> Program:
    """Core ML, which compiles the package beside itself: the user's cache stays as it is."""
    return CoreMLProgram(package, package.parent)


def no_engine() -> str:
    """Why nothing runs on the Neural Engine here."""
    return "this Mac offers no Neural Engine" if runs_here() else NO_MAC


def run_function(
    name: str, package: Path, program: Callable[[Path], Program], device: str, bucket: AudioBucket | TextBucket
) -> Row:
    """One function of a package against the golden numbers; loading it is not timed on a device."""
    case: Callable[..., Case] = _cnhubert if name == "cnhubert" else _roberta
    encode, expected = case(package, program, bucket)
    clock = Clock()
    if device != INTERPRETER:
        encode()
    with clock.running():
        features = encode()
    difference = 1 - worst_cosine(features, expected)
    return Row(TITLES[name], device, difference, LIMITS[device], MEASURE, clock.seconds, note=bucket.function)


Case = tuple[Callable[[], np.ndarray], np.ndarray]
"""What computes features, and the golden ones."""


def _cnhubert(package: Path, program: Callable[[Path], Program], bucket: AudioBucket) -> Case:
    encoder, (samples, data) = CoreMLSpeechEncoder(package, program), golden_recording()
    return lambda: np.array(encoder.features(samples, bucket))[data["frames"]], data["features"]


def _roberta(package: Path, program: Callable[[Path], Program], bucket: TextBucket) -> Case:
    encoder, data = CoreMLCharacterEncoder(package, program), load_outputs("roberta")
    ids = data["input_ids"].reshape(-1).tolist()
    return lambda: np.array(encoder.features(ids, bucket)), data["features"]


def worst_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The smallest cosine between the rows of two (T, width) features; no number where one is none."""
    if ours.shape != theirs.shape:
        return float("nan")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    with np.errstate(invalid="ignore"):
        cosines = (ours * theirs).sum(1) / lengths
    # unlike Python's min, NumPy's keeps what is no number
    return float(np.minimum(1.0, cosines.min()))


def placement(title: str, package: Path, function: str) -> Row:
    """The share of a function's work that Core ML means to run elsewhere than on the Neural Engine."""
    clock = Clock()
    with clock.running():
        elsewhere = work_off_the_engine(package, function)
    worst = sorted(elsewhere.items(), key=lambda item: -item[1])[:3]
    note = ", ".join([function, *(f"{operation} {share:.1%}" for operation, share in worst if share)])
    share = sum(elsewhere.values())
    return Row(title, ENGINE, share, MOST_OFF_THE_ENGINE, "of the cost is elsewhere", clock.seconds, note=note)
