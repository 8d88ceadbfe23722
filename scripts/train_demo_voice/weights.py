"""Weights in files: float16, written at once or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def save(state: Mapping[str, Tensor], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, temporary)
    temporary.rename(path)


def read(path: Path, device: str) -> dict[str, Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in torch.load(path, map_location=device).items()}


def take_what_fits(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load those tensors whose names and shapes are the module's; the names of its others, left as they are."""
    own = module.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    module.load_state_dict(fitting, strict=False)
    return [k for k in own if k not in fitting]
