"""Semantic tokens: whether Core ML's features name the same ones as MLX's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from .. import audio
from ..encoders.coreml import CoreMLSpeechEncoder, Program, has_engine, runs_here
from ..encoders.mlx import MLXSpeechEncoder
from ..engine import GPTSoVITSEngine
from ..errors import DependencyError
from ..models.sovits import SoVITS
from ..voices.enrolment import APPENDED_SILENCE
from ..voices.format import VoiceFolder
from ..voices.library import find_voice, model_home, voice_paths, voice_roots
from ..voices.voice import Voice
from .coreml import ENGINE, INTERPRETER, NO_MAC, PROCESSOR, in_place, no_engine
from .golden import DATA
from .report import Clock, Row, not_run

TITLE = "semantic tokens"
MOST_DIFFERENT = 0.02
"""Share of frames."""
FEWEST_CODES = 100
"""Distinct codes among the utterances, so that agreement means something."""
ENCODER_RATE = 16000
Encode = Callable[[np.ndarray], mx.array]
"""A `SpeechEncoder`'s call."""


@dataclass(frozen=True)
class Agreement:
    """Of two encoders in front of one codebook.

    Attributes:
        frames: tokens compared.
        equal: how many are the same.
        codes: distinct ones among them.
    """

    frames: int
    equal: int
    codes: int

    @property
    def different(self) -> float:
        """Share of frames."""
        return 1 - self.equal / self.frames


def agreement(sovits: SoVITS, ours: Encode, theirs: Encode, recordings: Sequence[np.ndarray]) -> Agreement:
    """Compare the tokens of recordings (samples,) at 16 kHz, silence appended as for a reference."""
    silence = np.zeros(APPENDED_SILENCE, np.float32)
    frames, equal, codes = 0, 0, set[int]()
    for recording in recordings:
        samples = np.concatenate([recording, silence])
        first, second = (np.array(sovits.tokens(encoder(samples)))[0] for encoder in (ours, theirs))
        frames += len(first)
        equal += int((first == second).sum())
        codes |= set(second.tolist())
    return Agreement(frames, equal, len(codes))


def verify_tokens(model_dir: Path | None = None) -> Iterator[Row]:
    """The demo voice's own encoder and codebook on 40 utterances that it speaks itself."""
    from ..convert.coreml import require_converter

    roots = voice_roots(model_home(model_dir))
    weights = None
    if "demo" in {path.name for path in voice_paths(roots)}:
        weights = VoiceFolder.read(find_voice("demo", roots)).own_encoder("cnhubert")
    try:
        if weights is None:
            raise DependencyError("there is no demo voice with an encoder of its own")
        require_converter()
    except DependencyError as missing:
        yield not_run(TITLE, INTERPRETER, str(missing))
        yield not_run(TITLE, ENGINE, str(missing) if runs_here() else NO_MAC)
        return
    from ..convert.coreml.encoders import make_cnhubert
    from ..convert.coreml.interpreter import Interpreter

    engine = GPTSoVITSEngine(model_dir, encoder_backend="mlx")
    voice = engine.load_voice("demo")
    recordings = utterances(engine, voice)
    with tempfile.TemporaryDirectory() as work:
        package = Path(work) / "cnhubert_ane.mlpackage"
        make_cnhubert(weights, package)
        yield _row(voice, weights, package, Interpreter, INTERPRETER, recordings)
        if runs_here():
            yield _row(voice, weights, package, in_place, ENGINE if has_engine() else PROCESSOR, recordings)
        if not has_engine():
            yield not_run(TITLE, ENGINE, no_engine())


def utterances(engine: GPTSoVITSEngine, voice: Voice) -> list[np.ndarray]:
    """What the voice makes of 40 sentences, (samples,) at 16 kHz, 10 s each at most."""
    spoken = []
    for number, sentence in enumerate((DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()):
        made = engine.synthesize(sentence, "auto", voice, seed=number, split_method="cut0", pause=0.0, max_tokens=250)
        heard = audio.resample_for_encoder(made.audio, made.sample_rate)
        spoken.append(heard[: 10 * ENCODER_RATE])
    return spoken


def _row(
    voice: Voice,
    weights: Path,
    package: Path,
    program: Callable[[Path], Program],
    device: str,
    recordings: Sequence[np.ndarray],
) -> Row:
    clock = Clock()
    with clock.running():
        found = agreement(voice.sovits, CoreMLSpeechEncoder(package, program), MLXSpeechEncoder(weights), recordings)
    measure = f"of {found.frames} frames, {found.codes} codes"
    # too few codes would agree for no reason
    difference = found.different if found.codes >= FEWEST_CODES else float("nan")
    return Row(TITLE, device, difference, MOST_DIFFERENT, measure, clock.seconds)
