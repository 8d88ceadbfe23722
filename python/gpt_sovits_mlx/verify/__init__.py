"""The certificate for a machine: every stage against golden numbers that ship with the package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .report import FAILED, Row, not_run, print_table

__all__ = ["FAILED", "STAGES", "Row", "print_table", "verify"]
STAGES = ("text", "cnhubert", "roberta", "gpt", "sovits", "tokens")


def verify(stages: Sequence[str] = STAGES, model_dir: Path | None = None) -> Iterator[Row]:
    """Run stages one after another; each model's golden weights are made, used and dropped again.

    Args:
        stages: some of `STAGES`.
        model_dir: folder with the voices; by default the user's.

    Yields:
        A row for each check, those that this machine cannot make among them.
    """
    import mlx.core as mx

    from ..encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
    from . import models
    from .coreml import NO_MAC, verify_package
    from .tokens import verify_tokens

    if models.backend() != "metal" and {*stages} - {"text", "tokens"}:
        yield not_run("all models", "MLX, Metal", NO_MAC)
    if "text" in stages:
        yield from models.verify_text()
    for name in ("cnhubert", "roberta"):
        if name in stages:
            with tempfile.TemporaryDirectory() as work:
                weights = models.write_encoder(name, Path(work))
                if name == "cnhubert":
                    yield from models.verify_cnhubert(MLXSpeechEncoder(weights, mx.float32))
                else:
                    yield from models.verify_roberta(MLXCharacterEncoder(weights, mx.float32))
                yield from verify_package(name, weights)
    if "gpt" in stages:
        yield from models.verify_gpt()
    if "sovits" in stages:
        yield from models.verify_sovits()
    if "tokens" in stages:
        yield from verify_tokens(model_dir)
