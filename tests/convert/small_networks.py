"""Small networks of single operations, made into packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gpt_sovits_mlx.convert.coreml.package import build_package
from gpt_sovits_mlx.encoders.buckets import TextBucket

Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Network(nn.Module):
    """A function of two tensors (1, 6, 2, length), called with x + y and y, as a network that can be converted."""

    input_names = ("x", "y")

    def __init__(self, function: Function):
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # an input that no operation reads would be no input of the package
        return self.function(x + y, y)

    def example(self, bucket: TextBucket) -> dict[str, np.ndarray]:
        random = np.random.default_rng(bucket.length)
        return {name: random.standard_normal((1, 6, 2, bucket.length)).astype(np.float32) for name in "xy"}


def weights(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32))


def convert_small(
    function: Function, path: Path, precision: str = "float32", lengths: tuple[int, ...] = (8,)
) -> Network:
    network = Network(function)
    build_package(network, [TextBucket(n) for n in lengths], path, {}, "a test", precision)
    return network
