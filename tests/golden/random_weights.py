"""Deterministic random weights for every model of the GPT-SoVITS family, at real size.

The golden outputs beside this file were computed by the reference PyTorch implementation on weights that
anyone can make again: `gpt_sovits_mlx.verify.golden` says how, and holds the manifests of the models that
`gpt-sovits-mlx verify` runs; the others lie in `manifests/`.

    python random_weights.py gpt_v2 out.ckpt --seed 1

writes a file in the format that the official trainer writes: a torch zip of
`{'weight': float16 tensors, 'config': ..., 'info': ...}`, the config pickled as the class `utils.HParams` in
SoVITS files, and the two marker bytes of v2Pro and v2ProPlus files. `hubert` and `roberta` write a Hugging
Face folder, `eres2netv2` a bare state dict.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

from gpt_sovits_mlx.verify import golden
from gpt_sovits_mlx.verify.golden import expand, placeholder_vocabulary, state, tensor

__all__ = ["expand", "load_manifest", "placeholder_vocabulary", "save_sovits", "state", "tensor", "write"]

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE / "manifests", golden.DATA / "manifests")


def load_manifest(model: str) -> dict[str, Any]:
    """The manifest of a model, its names expanded."""
    return golden.load_manifest(next(path for folder in FOLDERS if (path := folder / f"{model}.json").is_file()))


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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a random checkpoint in the official format.")
    parser.add_argument("model", choices=sorted(m.stem for folder in FOLDERS for m in folder.glob("*.json")))
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write(arguments.model, arguments.path, arguments.seed)
    print(f"wrote {arguments.path}")
