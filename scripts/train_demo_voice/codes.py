"""Semantic codes of the spoken corpus, in files that several GPUs can write side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import tokenizer
from .data import DEVICE, SpeechData, pad_rows

Codes = tuple[Tensor, Tensor]
"""Codes (N, longest) and how many of them each utterance has (N,)."""


def write(data: SpeechData, model: tokenizer.Tokenizer, path: Path) -> None:
    """The codes of all utterances of `data`, without and with the silence that enrolment puts behind a reference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain, prompts = tokenizer.encode(model, data, 0), tokenizer.encode(model, data, tokenizer.SILENCE)
    temporary = path.with_suffix(".tmp")
    torch.save({"row": torch.from_numpy(data.row), "codes": [t.cpu() for t in (*plain, *prompts)]}, temporary)
    temporary.rename(path)
    share = torch.bincount(torch.cat([c[:n] for c, n in zip(*plain, strict=True)]).long(), minlength=1024).float()
    share = share / share.sum()
    perplexity = float((-(share * (share + 1e-9).log()).sum()).exp())
    print(f"codes: {int((share > 0).sum())} used, perplexity {perplexity:.0f}", flush=True)


def read(paths: Sequence[Path], rows: np.ndarray) -> tuple[Codes, Codes]:
    """Codes and prompt codes of the utterances that say `rows`, in this order."""
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for path in paths:
        content = torch.load(path)
        codes, counts, prompts, prompt_counts = (t.numpy() for t in content["codes"])
        for i, row in enumerate(content["row"].tolist()):
            found[row] = codes[i, : counts[i]], prompts[i, : prompt_counts[i]]
    kept = [found[int(row)] for row in rows]
    return pad_rows([c for c, _ in kept]), pad_rows([p for _, p in kept])


def book(path: Path) -> Tensor:
    """The codebook of the tokenizer at `path`."""
    return tokenizer.load(path).embed.to(DEVICE)
