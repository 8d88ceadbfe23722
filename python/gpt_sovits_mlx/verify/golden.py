"""What the reference implementation computed, on weights that any machine can make again.

Each tensor of such weights is drawn from a generator seeded by its own name, then scaled by the rule that its
manifest entry names. A manifest (`data/manifests/*.json`) holds the `config` of one checkpoint and its tensors as
`[name, shape, rule]`; a name may hold numeric ranges (`layers.{0..23}.weight`), and a rule that ends in `as NAME`
draws the values of tensor NAME, to which this one is tied. The outputs beside them (`data/*.npz`) come from the
reference in PyTorch, in float32, on these weights; `cnhubert.npz` and `roberta.npz` are stored as float16.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parent / "data"
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def load_outputs(name: str) -> dict[str, np.ndarray]:
    """The reference's outputs for "gpt", "sovits", "cnhubert" or "roberta", with the inputs that they belong to."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def load_texts() -> list[dict[str, str]]:
    """Texts with their language and the phones that the reference reads."""
    lines = (DATA / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def load_manifest(path: Path) -> dict[str, Any]:
    """A manifest, its names expanded."""
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["tensors"] = [[n, shape, rule] for name, shape, rule in manifest["tensors"] for n in expand(name)]
    return manifest


def expand(name: str) -> list[str]:
    """The names that a manifest entry stands for: every combination of its numeric ranges."""
    parts = RANGE.split(name)
    texts, ranges = parts[::3], zip(parts[1::3], parts[2::3], strict=True)
    numbers = itertools.product(*(range(int(a), int(b) + 1) for a, b in ranges))
    return ["".join(t + str(n) for t, n in zip(texts, [*ns, ""], strict=True)) for ns in numbers]


def state(manifest: dict[str, Any], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, float16 array) of every tensor of a loaded manifest."""
    for name, shape, rule in manifest["tensors"]:
        yield name, tensor(name, shape, rule, seed)


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


def placeholder_vocabulary(size: int) -> list[str]:
    """A character vocabulary of `size` tokens, its special tokens where Chinese BERT has them."""
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [chr(c) for c in itertools.chain(range(0x21, 0x41), range(0x5B, 0x7F), range(0x4E00, 0xA000))]
    return [*tokens, *(f"##{i}" for i in range(size))][:size]
