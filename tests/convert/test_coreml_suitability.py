"""The list of what may stand in a package finds what does not belong on the Neural Engine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import convert_small

from gpt_sovits_mlx.convert.coreml.suitability import unsuitable


def found(tmp_path: Path, function, precision: str = "float16", length: int = 8) -> str:
    path = tmp_path / "x.mlpackage"
    convert_small(function, path, precision, (length,))
    return "\n".join(unsuitable(path))


def test_a_suitable_package(tmp_path):
    assert found(tmp_path, lambda x, y: torch.cat([x, y], 1).softmax(1)) == ""


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (lambda x, y: x[:, torch.tensor([3, 0, 3])], "operation gather is not on the list"),
        (lambda x, y: (x.reshape(1, 2, 3, 2, 8) * 2).mean(1), "has 5 axes, more than 4"),
        (lambda x, y: torch.where(x > 0, x, y), "operation greater is not on"),
    ],
    ids=["gather", "5-D", "comparison"],
)
def test_planted_faults_are_found(tmp_path, planted, fault):
    assert fault in found(tmp_path, planted)


def test_a_long_axis_and_a_wide_type_are_found(tmp_path):
    assert "has an axis of 17000, longer than 16384" in found(tmp_path, lambda x, y: x + y, length=17000)
    assert "is FLOAT32, not FLOAT16" in found(tmp_path, lambda x, y: x + y, "float32")
