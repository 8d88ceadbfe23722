"""The Core ML encoders: through the interpreter anywhere, on the Neural Engine on a Mac."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..encoders.buckets import AUDIO_BUCKETS, TEXT_BUCKETS, audio_bucket, text_bucket
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
NO_MAC = "needs a Mac with macOS 15"
LIMITS = {INTERPRETER: 1e-4, PROCESSOR: 1e-3, ENGINE: 1e-3}
"""Of 1 − cosine, the worst over rows. A device also rounds inside its operations."""
MEASURE = "1 − cosine"
MOST_OFF_THE_ENGINE = 0.1
"""Of a package's cost."""


def verify_package(name: str, weights: Path) -> Iterator[Row]:
    """Make a package of golden weights with the one function that the golden inputs need, and run it."""
    from ..convert.coreml import require_converter

    title = {"cnhubert": "CNHubert", "roberta": "RoBERTa"}[name]
    try:
        require_converter()
    except DependencyError as missing:
        for device in (INTERPRETER, ENGINE):
            yield not_run(title, device, str(missing))
        return
    from ..convert.coreml.encoders import make_cnhubert, make_roberta
    from ..convert.coreml.interpreter import Interpreter
    from ..convert.coreml.suitability import unsuitable

    package = weights.with_name(f"{name}_ane.mlpackage")
    if name == "cnhubert":
        make_cnhubert(weights, package, [audio_bucket(len(golden_recording()[0]), AUDIO_BUCKETS)])
    else:
        make_roberta(weights, package, [text_bucket(load_outputs("roberta")["input_ids"].size, TEXT_BUCKETS)])
    yield Row(f"{title}, package", "allow-list", len(unsuitable(package)), 0, "unsuitable parts")
    run = _run_cnhubert if name == "cnhubert" else _run_roberta
    yield run(package, Interpreter, INTERPRETER)
    if not has_engine():
        if runs_here():
            yield run(package, CoreMLProgram, PROCESSOR)
        yield not_run(title, ENGINE, no_engine())
        yield not_run(f"{title}, placement", ENGINE, no_engine())
        return
    yield run(package, CoreMLProgram, ENGINE)
    yield placement(f"{title}, placement", package)


def no_engine() -> str:
    """Why nothing runs on the Neural Engine here."""
    return "this Mac offers no Neural Engine" if runs_here() else NO_MAC


def _run_cnhubert(package: Path, program: Callable[[Path], Program], device: str) -> Row:
    encoder, clock = CoreMLSpeechEncoder(package, program), Clock()
    samples, data = golden_recording()
    with clock.running():
        features = np.array(encoder(samples)[0])
    difference = 1 - worst_cosine(features[data["frames"]], data["features"])
    return Row("CNHubert", device, difference, LIMITS[device], MEASURE, clock.seconds)


def _run_roberta(package: Path, program: Callable[[Path], Program], device: str) -> Row:
    encoder, clock = CoreMLCharacterEncoder(package, program), Clock()
    data = load_outputs("roberta")
    with clock.running():
        features = np.array(encoder.features(data["input_ids"].reshape(-1).tolist()))
    difference = 1 - worst_cosine(features, data["features"])
    return Row("RoBERTa", device, difference, LIMITS[device], MEASURE, clock.seconds)


def worst_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The smallest cosine between the rows of two (T, width) features."""
    if ours.shape != theirs.shape:
        return float("nan")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return min(1.0, float(((ours * theirs).sum(1) / lengths).min()))


def placement(title: str, package: Path) -> Row:
    """The share of a package's work that Core ML means to run elsewhere than on the Neural Engine."""
    clock = Clock()
    with clock.running():
        elsewhere = work_off_the_engine(package)
    worst = sorted(elsewhere.items(), key=lambda item: -item[1])[:3]
    note = ", ".join(f"{operation} {share:.1%}" for operation, share in worst if share)
    share = sum(elsewhere.values())
    return Row(title, ENGINE, share, MOST_OFF_THE_ENGINE, "of the cost is elsewhere", clock.seconds, note=note)
