"""The reference beside us, in a process of its own, as its users run it.

In ours PyTorch's threads would slow MLX, and `gpt_sovits_mlx.runtime`'s settings of glibc would speed up PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt_sovits_mlx.decoding.decoder import DecodeRequest
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.settings import Sampling
from gpt_sovits_mlx.weights import read_config

from .errors import BenchmarkError
from .process import WorkerProcess
from .turns import Clock

DRAWING = ("top_k", "top_p", "temperature", "repetition_penalty")


class Reference:
    """Makes clocks of the reference's work, which run in its process while this one waits.

    Args:
        checkout: folder of the repository.

    Raises:
        BenchmarkError: it is no checkout, or PyTorch or something that it imports is missing. The methods raise it
            where the process has ended, and where the reference cannot do the work.
    """

    def __init__(self, checkout: Path):
        drawing = {name: getattr(Sampling, name) for name in DRAWING}
        self._worker = WorkerProcess("reference_worker", "the reference", checkout, backend(), drawing)
        self.versions: dict[str, str] = self._worker.opened

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def use(self, precision: str) -> Reference:
        """Compute in this type from now on. The models and clocks so far are dropped."""
        self._worker.ask("use", precision)
        return self

    def first_token(self, path: Path, given: DecodeRequest) -> Clock:
        """Prefill and the first draw, with the GPT of a converted file."""
        return self._model_clock("first_token", path, _plain(given))

    def steps(self, path: Path, given: DecodeRequest, tokens: int) -> Clock:
        """`tokens` − 1 steps of a GPT behind its first token; it must make as many tokens as ours."""
        return self._model_clock("steps", path, _plain(given), tokens)

    def batch(self, path: Path, batch: Sequence[DecodeRequest], tokens: int) -> Clock:
        """A whole batch, prefill included."""
        return self._model_clock("batch", path, [_plain(given) for given in batch], tokens)

    def sovits(self, path: Path, codes: np.ndarray, phones: np.ndarray, spectrogram: np.ndarray) -> Clock:
        """`decode` of codes (1, N), phones (1, X), spectrogram (1, T, bins)."""
        return self._model_clock("sovits", path, codes, phones, spectrogram)

    def cnhubert(self, path: Path, samples: np.ndarray) -> Clock:
        """`last_hidden_state` for samples (1, n)."""
        return self._model_clock("cnhubert", path, samples)

    def roberta(self, path: Path, ids: np.ndarray) -> Clock:
        """The hidden state that is used, for token ids (1, T)."""
        return self._model_clock("roberta", path, ids)

    def attention(self, arrays: Sequence[np.ndarray], times: int) -> Clock:
        """Of queries, keys, values (1, heads, T, width)."""
        return self._clock("attention", arrays, times)

    def concatenation(self, shape: Sequence[int], positions: int) -> Clock:
        """Keys and values (1, heads, 1, width), position by position."""
        return self._clock("concatenation", shape, positions)

    def convolution(self, x: np.ndarray, out: int, kernel: int, dilation: int) -> Clock:
        """(1, T, in) → (1, T, out)."""
        return self._clock("convolution", x, out, kernel, dilation)

    def transposed(self, x: np.ndarray, out: int, kernel: int, stride: int, padding: int) -> Clock:
        """(1, T, in) → (1, T · stride, out)."""
        return self._clock("transposed", x, out, kernel, stride, padding)

    def sampling(self, logits: np.ndarray, before: np.ndarray, times: int) -> Clock:
        """Logits (1, vocab), and the tokens so far (1, n)."""
        return self._clock("sampling", logits, before, times)

    def _model_clock(self, work: str, path: Path, *given: Any) -> Clock:
        config = read_config(path)
        if config.get("quantization"):
            raise BenchmarkError(
                f"{path} is quantized, which the reference cannot be: measure the voice it was made of"
            )
        return self._clock(work, path, config, *given)

    def _clock(self, work: str, *given: Any) -> Clock:
        number = self._worker.ask("make", work, *given)
        return lambda: self._worker.ask("run", number)


def _plain(given: DecodeRequest) -> tuple[list[int], list[int], np.ndarray]:
    """A decode's input without MLX."""
    return list(given.phones), list(given.prompt), np.array(given.bert)
