"""The certificate for a machine: every stage against golden numbers that ship with the package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .report import FAILED, Row, broken, not_run, print_table

__all__ = ["FAILED", "STAGES", "Row", "print_table", "verify"]
STAGES = ("text", "cnhubert", "roberta", "gpt", "sovits", "tokens")


def verify(stages: Sequence[str] = STAGES, model_dir: Path | None = None) -> Iterator[Row]:
    """Run stages one after another; each model's golden weights are made, used and dropped again.

    Args:
        stages: some of `STAGES`.
        model_dir: folder with the voices; by default the user's.

    Yields:
        A row for each check, those that this machine cannot make among them; one that failed where a stage broke off.
    """
    from . import models
    from .tokens import verify_tokens

    checks: dict[str, Callable[[], Iterator[Row]]] = {
        "text": models.verify_text,
        "cnhubert": lambda: _verify_encoder("cnhubert"),
        "roberta": lambda: _verify_encoder("roberta"),
        "gpt": models.verify_gpt,
        "sovits": models.verify_sovits,
        "tokens": lambda: verify_tokens(model_dir),
    }
    if set(stages) != {"text"} and (missing := models.no_metal()):
        yield not_run("all models", "MLX, Metal", missing)
    for stage in (stage for stage in STAGES if stage in stages):
        try:
            yield from checks[stage]()
        except Exception as error:
            # whatever breaks on a machine belongs into its certificate
            yield broken(stage, error)


def _verify_encoder(name: str) -> Iterator[Row]:
    from . import models
    from .coreml import verify_package

    with tempfile.TemporaryDirectory() as work:
        weights = models.write_encoder(name, Path(work))
        yield from models.verify_cnhubert(weights) if name == "cnhubert" else models.verify_roberta(weights)
        yield from verify_package(name, weights)
