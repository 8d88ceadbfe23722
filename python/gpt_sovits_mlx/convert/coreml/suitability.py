"""What may stand in a package so that the Neural Engine can run it, as far as that can be checked without one.

Sources: apple/ml-ane-transformers, argmaxinc/whisperkittools (the compute plans that it publishes) and the issues
1764, 1909, 2370 and 2730 of coremltools. Where each operation really runs, `gpt-sovits-mlx verify` shows on a Mac.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coremltools.proto import MIL_pb2

from ...encoders.coreml import read_spec

_TYPES: Any = MIL_pb2
ALLOWED = {
    "add",
    "concat",
    "const",
    "conv",
    "einsum",
    "gelu",
    "layer_norm",
    "mul",
    "pad",
    "reduce_mean",
    "reshape",
    "rsqrt",
    "slice_by_index",
    "softmax",
    "split",
    "sub",
    "transpose",
}
HIGHEST_RANK = 4
LONGEST_AXIS = 16384


def unsuitable(package: Path | str) -> list[str]:
    """One line for everything in a package that keeps it from the Neural Engine; empty where there is nothing."""
    spec = read_spec(Path(package))
    found: dict[str, None] = {}
    for name, function in spec.mlProgram.functions.items():
        for item in function.inputs:
            found |= dict.fromkeys(_faults(f"{name}: input {item.name}", item.type))
        for operation in function.block_specializations[function.opset].operations:
            if operation.type not in ALLOWED:
                found[f"{name}: operation {operation.type} is not on the list"] = None
            for output in operation.outputs:
                what = f"{name}: {operation.type} {output.name}"
                found |= dict.fromkeys(_faults(what, output.type, operation.type == "const"))
    return list(found)


def _faults(what: str, value: Any, constant: bool = False) -> Iterator[str]:
    """Constants that are no weights (axes, strides, names, single numbers) may be of any type."""
    tensor = value.tensorType
    floats = (_TYPES.FLOAT16, _TYPES.FLOAT32, _TYPES.FLOAT64)
    if constant and (tensor.dataType not in floats or not tensor.dimensions):
        return
    if tensor.dataType != _TYPES.FLOAT16:
        yield f"{what} is {_TYPES.DataType.Name(tensor.dataType)}, not FLOAT16"
    if len(tensor.dimensions) > HIGHEST_RANK:
        yield f"{what} has {len(tensor.dimensions)} axes, more than {HIGHEST_RANK}"
    for axis in tensor.dimensions:
        if not axis.HasField("constant"):
            yield f"{what} has an axis of variable size"
        elif axis.constant.size > LONGEST_AXIS:
            yield f"{what} has an axis of {axis.constant.size}, longer than {LONGEST_AXIS}"
