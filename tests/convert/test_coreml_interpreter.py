"""The Core ML interpreter against PyTorch: every operation that it has, its rounding, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_networks import Function, convert_small, weights

from gpt_sovits_mlx.convert.coreml.interpreter import Interpreter
from gpt_sovits_mlx.convert.coreml.operators import OPERATORS
from gpt_sovits_mlx.encoders.buckets import TextBucket
from gpt_sovits_mlx.encoders.coreml import read_spec
from gpt_sovits_mlx.errors import WeightsError


def channel_norm(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    scaled = centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + 1e-5)
    return (scaled + weights(6, 1, 1)) * weights(1, 6, 1, 1)


CASES: dict[str, Function] = {
    "conv, strided and padded": lambda x, y: F.conv2d(x, weights(4, 6, 1, 3), weights(4), (1, 2), (0, 1)) + 1,
    "conv, grouped and dilated": lambda x, y: F.conv2d(x, weights(6, 2, 2, 3), None, 1, (1, 2), (1, 2), 3) * 2,
    "layer norm over channels": channel_norm,
    "layer norm over the last axis": lambda x, y: F.layer_norm(x, (8,), weights(8), weights(8)),
    "gelu": lambda x, y: F.gelu(x),
    "gelu by tanh": lambda x, y: F.gelu(x, approximate="tanh"),
    "pad": lambda x, y: F.pad(x, (3, 1, 0, 2), value=0.5) * 1.5,
    "slice": lambda x, y: x[:, 1:5, :, ::3] * y[:, :4, 1:, -3:],
    "slice that drops an axis": lambda x, y: x[:, 2] - y[:, -1],
    "split in unequal parts": lambda x, y: torch.cat(x.split([1, 3, 2], 1)[::-1], 1),
    "split in equal parts": lambda x, y: torch.cat(x.chunk(2, 3)[::-1], 3),
    "attention": lambda x, y: torch.einsum(
        "bkhq,bchk->bchq", torch.einsum("bchq,bkhc->bkhq", x, y.transpose(1, 3)).softmax(1), y
    ),
    "softmax over the last axis": lambda x, y: (x + y).softmax(-1),
    "reshape and transpose": lambda x, y: x.reshape(1, 3, 4, -1).permute(0, 3, 1, 2),
    "mean without its axis": lambda x, y: x.mean((1, 3)),
    "rsqrt": lambda x, y: torch.rsqrt(x * x + 0.25),
}


def operations(package: Path) -> set[str]:
    functions = read_spec(package).mlProgram.functions.values()
    return {o.type for f in functions for o in f.block_specializations[f.opset].operations}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("operations")
    made = {}
    for number, (name, function) in enumerate(CASES.items()):
        made[name] = folder / f"{number}.mlpackage", convert_small(function, folder / f"{number}.mlpackage")
    return made


@pytest.mark.parametrize("name", CASES)
def test_operations_equal_pytorchs(name, packages):
    path, network = packages[name]
    inputs = network.example(TextBucket(3 + 5))
    expected = network(*map(torch.from_numpy, inputs.values())).numpy()
    made = Interpreter(path, rounded=False)("tokens_8", inputs)["features"]
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, atol=2e-6, rtol=2e-6)


def test_every_operation_was_tested(packages):
    assert set().union(*(operations(path) for path, _ in packages.values())) - {"const"} == set(OPERATORS)


def test_functions_have_lengths_of_their_own_and_share_weights(tmp_path):
    path = tmp_path / "x.mlpackage"
    matrix = weights(500, 6, 1, 1)
    network = convert_small(lambda x, y: F.conv2d(x, matrix) + 1, path, "float16", (4, 8, 16))
    program = Interpreter(path)
    assert program.functions == ("tokens_16", "tokens_4", "tokens_8")
    for length in (4, 16, 8):
        inputs = network.example(TextBucket(length))
        made = program(f"tokens_{length}", inputs)["features"]
        assert made.shape == (1, 500, 2, length)
        expected = network(*map(torch.from_numpy, inputs.values())).numpy()
        np.testing.assert_allclose(made, expected, atol=0.02)
    assert (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size < 1.5 * 2 * matrix.numel()
    with pytest.raises(KeyError, match="no function tokens_5"):
        program("tokens_5", {})
    with pytest.raises(KeyError, match="needs x, y"):
        program("tokens_4", {})


def test_rounding_is_that_of_float16(tmp_path):
    path = tmp_path / "x.mlpackage"
    network = convert_small(lambda x, y: x * y + 100, path, "float16")
    inputs = network.example(TextBucket(8))
    x, y = (torch.from_numpy(a).half() for a in inputs.values())
    made = Interpreter(path)("tokens_8", inputs)["features"]
    np.testing.assert_array_equal(made, ((x + y) * y + 100).float().numpy())
    exact = Interpreter(path, rounded=False)("tokens_8", inputs)["features"]
    np.testing.assert_allclose(exact, (inputs["x"] + inputs["y"]) * inputs["y"] + 100, rtol=1e-6)
    assert np.abs(made - exact).max() > 0.01


def test_overflow_is_found_and_small_numbers_are_flushed(tmp_path):
    path = tmp_path / "x.mlpackage"
    convert_small(lambda x, y: x * y, path, "float16")
    ones = np.ones((1, 6, 2, 8), np.float32)
    with pytest.raises(FloatingPointError, match="makes numbers that are not finite"):
        Interpreter(path)("tokens_8", {"x": 0 * ones, "y": 300 * ones})
    program = Interpreter(path)
    program("tokens_8", {"x": 100 * ones, "y": 200 * ones})
    assert program.largest == 60000
    small = {"x": -0.005 * ones, "y": 0.01 * ones}
    assert (Interpreter(path)("tokens_8", small)["features"] > 4.9e-5).all()
    assert (Interpreter(path, flushed=True)("tokens_8", small)["features"] == 0).all()


def test_what_cannot_be_interpreted_is_refused(tmp_path):
    path = tmp_path / "x.mlpackage"
    network = convert_small(lambda x, y: torch.cumsum(x, 3), path)
    with pytest.raises(NotImplementedError, match="has no operation cumsum"):
        Interpreter(path)("tokens_8", network.example(TextBucket(8)))
    with pytest.raises(WeightsError, match="no sound Core ML package"):
        Interpreter(tmp_path)
