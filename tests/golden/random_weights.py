"""Deterministic random weights for every model of the GPT-SoVITS family, at real size.

The golden outputs beside this file were computed by the reference PyTorch implementation on weights that
anyone can make again: each tensor is drawn from a generator seeded by its own name, then scaled by the rule
that its manifest entry names. A manifest (`manifests/*.json`) holds the `config` of one checkpoint and its
tensors as `[name, shape, rule]`; a name may hold numeric ranges (`layers.{0..23}.weight`), and a rule that ends
in `as NAME` draws the values of tensor NAME, to which this one is tied.

    python random_weights.py gpt_v2 out.ckpt --seed 1

writes a file in the format that the official trainer writes: a torch zip of
`{'weight': float16 tensors, 'config': ..., 'info': ...}`, the config pickled as the class `utils.HParams` in
SoVITS files, and the two marker bytes of v2Pro and v2ProPlus files. `hubert` and `roberta` write a Hugging
Face folder, `eres2netv2` a bare state dict.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import types
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def tensor(name: str, shape: list[int], rule: str, seed: int) -> np.ndarray:
    """Float16 values of one tensor; `rule` is `kind` or `kind:scale`, and may end in ` as NAME`."""
    rule, _, tied = rule.partition(" as ")
    name = tied or name
    kind, _, scale = rule.partition(":")
    s = float(scale) if scale else 1.0
    rng = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))
    normal = rng.standard_normal(int(np.prod(shape, dtype=np.int64))).astype(np.float32).reshape(shape)
    if kind == "normal":
        x = s * normal
    elif kind == "around":
        x = s * (1 + 0.1 * normal)
    elif kind == "abs":
        x = s * (1 + 0.3 * np.abs(normal))
    elif kind == "fixed":
        x = np.full(shape, s, np.float32)
    elif kind == "logs":  # the second half of the rows is a log-variance head: kept small
        x = s * normal
        x[shape[0] // 2 :] *= 0.3
    else:
        raise ValueError(f"unknown rule {rule!r} for {name}")
    return x.astype(np.float16)


def state(manifest: dict[str, Any], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, float16 array) of every tensor of a loaded manifest."""
    for name, shape, rule in manifest["tensors"]:
        yield name, tensor(name, shape, rule, seed)


def expand(name: str) -> list[str]:
    """The names that a manifest entry stands for: every combination of its numeric ranges."""
    parts = RANGE.split(name)
    texts, ranges = parts[::3], zip(parts[1::3], parts[2::3], strict=True)
    numbers = itertools.product(*(range(int(a), int(b) + 1) for a, b in ranges))
    return ["".join(t + str(n) for t, n in zip(texts, [*ns, ""], strict=True)) for ns in numbers]


def load_manifest(model: str) -> dict[str, Any]:
    """The manifest of a model, its names expanded."""
    manifest = json.loads((HERE / "manifests" / f"{model}.json").read_text())
    manifest["tensors"] = [[n, shape, rule] for name, shape, rule in manifest["tensors"] for n in expand(name)]
    return manifest


def write(model: str, path: Path, seed: int) -> None:
    """Write the random checkpoint of `model` in the official format (a folder for Hugging Face models)."""
    import torch

    manifest = load_manifest(model)
    weight = OrderedDict((n, torch.from_numpy(a)) for n, a in state(manifest, seed))
    if manifest["format"] == "hf":
        path.mkdir(parents=True, exist_ok=True)
        torch.save(weight, path / "pytorch_model.bin")
        (path / "config.json").write_text(json.dumps(manifest["config"], indent=2))
        if manifest["config"]["model_type"] == "bert":
            tokens = placeholder_vocabulary(manifest["config"]["vocab_size"])
            (path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    elif manifest["format"] == "bare":
        torch.save(OrderedDict((n, t.float()) for n, t in weight.items()), path)
    elif manifest["format"] == "sovits":
        save_sovits(path, weight, manifest["config"], manifest["info"], manifest.get("marker", ""))
    else:
        torch.save(OrderedDict(weight=weight, config=manifest["config"], info=manifest["info"]), path)


def save_sovits(path: Path, weight: dict[str, Any], config: dict[str, Any], info: str, marker: str = "") -> None:
    """Save as the trainer does: config as `utils.HParams`, and `marker` instead of the zip file's `PK`."""
    import torch

    class HParams:
        def __init__(self, **values: Any):
            self.__dict__.update({k: HParams(**v) if isinstance(v, dict) else v for k, v in values.items()})

    HParams.__module__, HParams.__qualname__ = "utils", "HParams"
    utils = types.ModuleType("utils")
    utils.__dict__["HParams"] = HParams
    saved = sys.modules.get("utils")
    sys.modules["utils"] = utils
    try:
        torch.save(OrderedDict(weight=dict(weight), config=HParams(**config), info=info), path)
    finally:
        if saved is None:
            del sys.modules["utils"]
        else:
            sys.modules["utils"] = saved
    if marker:
        with open(path, "r+b") as file:
            file.write(marker.encode())


def placeholder_vocabulary(size: int) -> list[str]:
    """A character vocabulary of `size` tokens, its special tokens where Chinese BERT has them."""
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(c) for c in itertools.chain(range(0x21, 0x41), range(0x5B, 0x7F), range(0x4E00, 0xA000))]
    return [*tokens, *(f"##{i}" for i in range(size))][:size]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a random checkpoint in the official format.")
    parser.add_argument("model", choices=sorted(m.stem for m in (HERE / "manifests").glob("*.json")))
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write(arguments.model, arguments.path, arguments.seed)
    print(f"wrote {arguments.path}")
