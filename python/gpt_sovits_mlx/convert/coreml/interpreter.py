"""Runs the ML programs of Core ML packages anywhere, operation by operation in PyTorch.

Core ML itself runs on Apple's systems only. The interpreter shows what a package computes: exactly in float32, or
with every float16 result rounded as a device would round it. It does not show what a device computes inside an
operation, nor how fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil.frontend.milproto.load import load as load_program
from coremltools.converters.mil.mil import types

from ...encoders.coreml import SPEC, read_spec
from ...errors import WeightsError
from .operators import OPERATORS, Operator

SMALLEST_NORMAL = 2.0**-14
"""Of float16."""


@dataclass(frozen=True)
class _Step:
    """An operation: what it is given (a constant, or the names of earlier results) and what it makes."""

    name: str
    operator: Operator
    constants: Mapping[str, Any]
    inputs: Mapping[str, str | tuple[str, ...]]
    outputs: tuple[tuple[str, bool], ...]
    last_used: tuple[str, ...]


@dataclass(frozen=True)
class _Function:
    inputs: Mapping[str, bool]
    steps: tuple[_Step, ...]
    outputs: tuple[str, ...]


class Interpreter:
    """A package that can be called like the device's program.

    Args:
        package: a `.mlpackage` of an ML program.
        rounded: round every float16 result to float16, as a device does; otherwise only the stored weights are
            rounded, and all arithmetic is float32.
        flushed: besides, flush what float16 holds only with fewer bits (below 2⁻¹⁴) to zero, as a device may.

    Attributes:
        largest: the largest magnitude that any operation has made so far.
    """

    def __init__(self, package: Path | str, rounded: bool = True, flushed: bool = False):
        self.package = Path(package)
        self.rounded, self.flushed = rounded or flushed, flushed
        self.largest = 0.0
        self._spec = read_spec(self.package)
        if not self._spec.HasField("mlProgram"):
            raise WeightsError(f"{package} is not an ML program")
        self._loaded: tuple[str, _Function] | None = None

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(sorted(self._spec.mlProgram.functions))

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run a function of the package.

        Raises:
            FloatingPointError: an operation's result is not finite; the message names it.
        """
        program = self._load(function)
        if missing := program.inputs.keys() - inputs.keys():
            raise KeyError(f"{function} needs {', '.join(sorted(missing))}")
        values = {
            name: self._settle(torch.from_numpy(np.asarray(inputs[name], np.float32)), half)
            for name, half in program.inputs.items()
        }
        with torch.inference_mode():
            for step in program.steps:
                self._run(step, values)
        return {name: values[name].numpy() for name in program.outputs}

    def _run(self, step: _Step, values: dict[str, torch.Tensor]) -> None:
        arguments = dict(step.constants)
        for name, source in step.inputs.items():
            arguments[name] = values[source] if isinstance(source, str) else [values[s] for s in source]
        made = step.operator(arguments)
        for (name, half), value in zip(step.outputs, made if isinstance(made, list) else [made], strict=True):
            values[name] = value = self._settle(value, half)
            largest = float(value.abs().max())
            if not np.isfinite(largest):
                raise FloatingPointError(f"{self.package.name}: {step.name} makes numbers that are not finite")
            self.largest = max(self.largest, largest)
        for name in step.last_used:
            del values[name]

    def _settle(self, value: torch.Tensor, half: bool) -> torch.Tensor:
        """A result as the device stores it."""
        if not (half and self.rounded):
            return value
        value = value.half().float()
        return torch.where(value.abs() < SMALLEST_NORMAL, 0.0, value) if self.flushed else value

    def _load(self, function: str) -> _Function:
        """Only the last function stays in memory: each holds all weights."""
        if self._loaded is None or self._loaded[0] != function:
            if function not in self._spec.mlProgram.functions:
                raise KeyError(f"{self.package} has no function {function}: it has {', '.join(self.functions)}")
            self._loaded = None
            self._loaded = function, self._compile(function)
        return self._loaded[1]

    def _compile(self, function: str) -> _Function:
        spec = type(self._spec)()
        spec.CopyFrom(self._spec)
        for name in self.functions:
            if name != function:
                del spec.mlProgram.functions[name]
        weights = (self.package / SPEC).with_name("weights")
        program = load_program(spec, specification_version=spec.specificationVersion, file_weights_dir=str(weights))
        block = program.functions[function]
        outputs = tuple(variable.name for variable in block.outputs)
        operations = [operation for operation in block.operations if operation.op_type != "const"]
        last: dict[str, int] = {}
        for number, operation in enumerate(operations):
            for variable in _variables(operation.inputs):
                last[variable.name] = number
        steps = tuple(
            self._step(operation, {n for n, at in last.items() if at == number and n not in outputs})
            for number, operation in enumerate(operations)
        )
        return _Function({name: _is_half(variable) for name, variable in block.inputs.items()}, steps, outputs)

    def _step(self, operation: Any, last_used: set[str]) -> _Step:
        if operation.op_type not in OPERATORS:
            raise NotImplementedError(f"{self.package}: the interpreter has no operation {operation.op_type}")
        constants: dict[str, Any] = {}
        inputs: dict[str, str | tuple[str, ...]] = {}
        computed: set[str] = set()
        for name, argument in operation.inputs.items():
            if argument is None:
                continue
            if isinstance(argument, list | tuple):
                inputs[name] = tuple(variable.name for variable in argument)
                computed |= {*inputs[name]}
            elif argument.val is None:
                inputs[name] = argument.name
                computed.add(argument.name)
            else:
                constants[name] = self._constant(argument.val)
        outputs = tuple((variable.name, _is_half(variable)) for variable in operation.outputs)
        operator = OPERATORS[operation.op_type]
        return _Step(operation.name, operator, constants, inputs, outputs, tuple(last_used & computed))

    def _constant(self, value: Any) -> Any:
        """Weights as float32 tensors, everything else as plain Python values."""
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            tensor = torch.from_numpy(value.astype(np.float32))
            return torch.where(tensor.abs() < SMALLEST_NORMAL, 0.0, tensor) if self.flushed else tensor
        if isinstance(value, np.floating):
            return 0.0 if self.flushed and abs(value) < SMALLEST_NORMAL else float(value)
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _variables(inputs: Mapping[str, Any]) -> list[Any]:
    found = []
    for argument in inputs.values():
        found += argument if isinstance(argument, list | tuple) else [] if argument is None else [argument]
    return [variable for variable in found if variable.val is None]


def _is_half(variable: Any) -> bool:
    return variable.dtype is types.fp16
