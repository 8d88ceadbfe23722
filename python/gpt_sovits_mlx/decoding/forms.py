"""Which form of decoding suits a model on this machine, and what that form derives of its weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..layers.derived import arrays_in, replaced
from ..models.t2s import TextToSemantic
from ..runtime import backend
from .cuda_step import CudaDecoder, CudaStep
from .decoder import Decoder
from .numpy_step import NumpyDecoder, NumpyStep
from .plain import FoldedStep, PlainDecoder

Step = NumpyStep | CudaStep | FoldedStep
_STEPS: dict[str, Sequence[type[Step]]] = {
    "cpu": (NumpyStep, FoldedStep),
    "cuda": (CudaStep, FoldedStep),
    "metal": (FoldedStep,),
}
_lock = threading.Lock()


@dataclass(frozen=True)
class _Derived:
    """A step and the weights that it was made of."""

    backend: str
    weights: list[mx.array]
    step: Step | None


def decoder_for(model: TextToSemantic) -> Decoder:
    """A decoder of the form that is fastest here: in numpy on a CPU, in a kernel on CUDA, in MLX's operations on
    Metal, and wherever the other forms do not know the weights (see `NumpyStep.of`, `CudaStep.of`)."""
    step = step_of(model)
    if isinstance(step, NumpyStep):
        return NumpyDecoder(model, step)
    if isinstance(step, CudaStep):
        return CudaDecoder(model, step)
    return PlainDecoder(model, step)


def step_of(model: TextToSemantic) -> Step | None:
    """What the fastest form that knows a model's weights derives of them; `None` where none knows them.

    It is made again where a weight has been replaced.
    """
    with _lock:
        held = getattr(model, "_step", None)
        if held is None or held.backend != backend() or replaced(held.weights, _weights(model)):
            made = (kind.of(model) for kind in _STEPS[backend()])
            step = next((step for step in made if step is not None), None)
            # the kernel's layers hold views of its weights from now on
            held = model._step = _Derived(backend(), _weights(model), step)
    return held.step


def _weights(model: TextToSemantic) -> list[mx.array]:
    decoding = (model.h, model.ar_audio_embedding, model.ar_audio_position, model.ar_predict_layer)
    return [array for part in decoding for array in arrays_in(part)]
