"""The operations of ML programs that our packages use, in PyTorch, as Apple's MIL specification defines them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

Arguments = Mapping[str, Any]
Operator = Callable[[Arguments], Any]


def _conv(a: Arguments) -> torch.Tensor:
    x, weight = a["x"], a["weight"]
    pad_type = a.get("pad_type", "valid")
    if pad_type == "custom":
        before_after = a["pad"]
        pairs = [before_after[i : i + 2] for i in range(0, len(before_after), 2)]
        x = F.pad(x, [n for pair in reversed(pairs) for n in pair])
    elif pad_type != "valid":
        raise NotImplementedError(f"conv with pad_type {pad_type}")
    convolve = {3: F.conv1d, 4: F.conv2d}[x.ndim]
    ones = [1] * (x.ndim - 2)
    return convolve(
        x, weight, a.get("bias"), a.get("strides", ones), 0, a.get("dilations", ones), int(a.get("groups", 1))
    )


def _layer_norm(a: Arguments) -> torch.Tensor:
    x, axes = a["x"], [axis % a["x"].ndim for axis in a["axes"]]
    shape = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
    centred = x - x.mean(axes, keepdim=True)
    y = centred / torch.sqrt(centred.square().mean(axes, keepdim=True) + a["epsilon"])
    if a.get("gamma") is not None:
        y = y * a["gamma"].reshape(shape)
    return y if a.get("beta") is None else y + a["beta"].reshape(shape)


def _gelu(a: Arguments) -> torch.Tensor:
    mode = a.get("mode", "EXACT")
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise NotImplementedError(f"gelu in mode {mode}")
    return F.gelu(a["x"], approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def _pad(a: Arguments) -> torch.Tensor:
    if a.get("mode", "constant") != "constant":
        raise NotImplementedError(f"pad in mode {a['mode']}")
    # for the last axes, in order; PyTorch wants the last axis first
    pairs = [a["pad"][i : i + 2] for i in range(0, len(a["pad"]), 2)]
    return F.pad(a["x"], [n for pair in reversed(pairs) for n in pair], value=float(a.get("constant_val", 0)))


def _reshape(a: Arguments) -> torch.Tensor:
    x = a["x"]
    return x.reshape([x.shape[axis] if n == 0 else n for axis, n in enumerate(a["shape"])])


def _slice_by_index(a: Arguments) -> torch.Tensor:
    x = a["x"]
    no = [False] * x.ndim
    first, last, drop = (a.get(f"{name}_mask", no) for name in ("begin", "end", "squeeze"))
    steps = a.get("stride", [1] * x.ndim)
    index = []
    for axis in range(x.ndim):
        if drop[axis]:
            index.append(a["begin"][axis])
        else:
            start = None if first[axis] else a["begin"][axis]
            stop = None if last[axis] else a["end"][axis]
            index.append(slice(start, stop, steps[axis]))
    return x[tuple(index)]


def _split(a: Arguments) -> list[torch.Tensor]:
    sizes = a.get("split_sizes")
    if sizes is None:
        return list(torch.tensor_split(a["x"], int(a["num_splits"]), int(a["axis"])))
    return list(torch.split(a["x"], list(sizes), int(a["axis"])))


OPERATORS: dict[str, Operator] = {
    "add": lambda a: a["x"] + a["y"],
    "concat": lambda a: torch.cat(list(a["values"]), int(a["axis"])),
    "conv": _conv,
    "einsum": lambda a: torch.einsum(a["equation"], *a["values"]),
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "mul": lambda a: a["x"] * a["y"],
    "pad": _pad,
    "reduce_mean": lambda a: a["x"].mean(list(a["axes"]), keepdim=bool(a.get("keep_dims", False))),
    "reshape": _reshape,
    "rsqrt": lambda a: torch.rsqrt(a["x"] + a.get("epsilon", 1e-12)),
    "slice_by_index": _slice_by_index,
    "softmax": lambda a: a["x"].softmax(int(a.get("axis", -1))),
    "split": _split,
    "sub": lambda a: a["x"] - a["y"],
    "transpose": lambda a: a["x"].permute(list(a["perm"])),
}
