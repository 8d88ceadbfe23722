"""What is measured: a voice's models, each loaded when a stage asks for it, and the same input for both sides."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
import soundfile

from gpt_sovits_mlx.convert.output import write_model
from gpt_sovits_mlx.encoders.mlx import MLXCharacterEncoder, MLXSpeechEncoder
from gpt_sovits_mlx.engine import DTYPES, GPTSoVITSEngine
from gpt_sovits_mlx.models.sovits import SoVITS
from gpt_sovits_mlx.models.t2s import TextToSemantic
from gpt_sovits_mlx.runtime import backend
from gpt_sovits_mlx.verify.models import golden_gpt, golden_sovits, write_encoder
from gpt_sovits_mlx.voices.format import VoiceFolder
from gpt_sovits_mlx.voices.library import find_voice, voice_roots
from gpt_sovits_mlx.voices.voice import Voice
from gpt_sovits_mlx.weights import load_model, read_config

RANDOM = "random-v2"
RATE = 32000


@dataclass
class Workbench:
    """A voice at one precision, and a folder for what the work leaves.

    Attributes:
        model_dir: folder with `voices/` and `encoders/`.
        folder: the voice.
        precision: a key of `engine.DTYPES`.
        work: temporary folder.
        is_random: the weights say nothing, and sentences are cut at a given number of tokens.
    """

    model_dir: Path
    folder: VoiceFolder
    precision: str
    work: Path
    is_random: bool
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    @classmethod
    def of_voice(cls, name: str, model_dir: Path, precision: str, work: Path) -> Workbench:
        """An installed or shipped voice, or a voice's folder."""
        folder = VoiceFolder.read(find_voice(name, voice_roots(model_dir)))
        return cls(model_dir, folder, precision, work, False)

    @classmethod
    def of_random(cls, precision: str, work: Path) -> Workbench:
        """A voice of the size of the official v2 models, its weights made up by rule, in `work`."""
        path = work / "voices" / RANDOM
        if not path.is_dir():
            write_random_voice(work)
        return cls(work, VoiceFolder.read(path), precision, work, True)

    @property
    def dtype(self) -> mx.Dtype:
        """The type that is computed in."""
        wanted = DTYPES[self.precision]
        return mx.float32 if backend() == "cpu" or wanted is None else wanted

    @property
    def gpt_path(self) -> Path:
        return self.folder.weights / "gpt.safetensors"

    @property
    def sovits_path(self) -> Path:
        return self.folder.weights / "sovits.safetensors"

    @property
    def endless_gpt_path(self) -> Path:
        """A copy of the GPT that never ends a sentence, so that both sides make as many tokens as they are asked for.

        The end token's logit is made the mean of the others', so that it is never among the likeliest; no shape and no
        cost changes.
        """
        path = self.work / f"endless-{self.folder.name}" / self.gpt_path.name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = mx.load(str(self.gpt_path), format="safetensors")
            assert isinstance(tensors, dict)
            predict = tensors["ar_predict_layer.weight"].astype(mx.float32)
            tensors["ar_predict_layer.weight"] = mx.concatenate([predict[:-1], predict[:-1].mean(0, keepdims=True)])
            mx.save_safetensors(str(path), tensors)
            path.with_name("gpt_config.json").write_text(json.dumps(read_config(self.gpt_path)), encoding="utf-8")
        return path

    def gpt(self) -> TextToSemantic:
        """The GPT that never ends a sentence."""
        return load_model(TextToSemantic, self.endless_gpt_path, DTYPES[self.precision])

    def sovits(self) -> SoVITS:
        return load_model(SoVITS, self.sovits_path, DTYPES[self.precision])

    def engine(self) -> tuple[GPTSoVITSEngine, Voice]:
        """A fresh engine with the voice loaded, and no encoder: one before it enrolled the voice's reference."""
        self._loaded()
        return self._loaded()

    def _loaded(self) -> tuple[GPTSoVITSEngine, Voice]:
        engine = GPTSoVITSEngine(self.model_dir, self.precision, encoder_backend="mlx")
        return engine, engine.load_voice(self.folder.path)

    def encoder_path(self, name: str) -> Path | None:
        """Weights of "cnhubert" or "roberta"; `None` where the voice was trained without."""
        if self.is_random and name == "roberta":
            folder = self.work / "roberta"
            made = folder / "roberta.safetensors"
            return made if made.is_file() else write_encoder(name, folder)
        if not self.folder.uses(name):
            return None
        return self.folder.own_encoder(name) or self.model_dir / "encoders" / f"{name}.safetensors"

    def speech_encoder(self, path: Path) -> MLXSpeechEncoder:
        return MLXSpeechEncoder(path, DTYPES[self.precision])

    def character_encoder(self, path: Path) -> MLXCharacterEncoder:
        return MLXCharacterEncoder(path, DTYPES[self.precision])

    @property
    def label(self) -> str:
        """The precision, with the bits of a quantized GPT."""
        quantization = read_config(self.gpt_path).get("quantization")
        bits = quantization.get("bits") if isinstance(quantization, dict) else quantization
        return f"{self.precision}, GPT {bits} bits" if bits else self.precision

    def limit(self, tokens: int) -> int | None:
        """`max_tokens` for a sentence: random weights do not end one by themselves."""
        return tokens if self.is_random else None

    def recording(self, seconds: float, rate: int = RATE) -> np.ndarray:
        """(samples,) of coloured noise, new at every call."""
        noise = self.random.standard_normal(int(seconds * rate))
        return (0.1 * np.convolve(noise, np.ones(8) / 8, "same")).astype(np.float32)

    def write_recording(self, seconds: float) -> Path:
        """A recording that no engine has heard before."""
        path = self.work / "new-reference.wav"
        soundfile.write(path, self.recording(seconds), RATE, subtype="PCM_16")
        return path


def write_random_voice(home: Path) -> None:
    """`home`/voices/random-v2 and `home`/encoders/cnhubert.safetensors, of the golden weights of `verify`."""
    folder = home / "voices" / RANDOM
    settings, arrays = golden_gpt("float16")
    # never the end token: made-up weights would choose it anywhere
    predict = arrays["ar_predict_layer.weight"]
    predict[-1] = predict[:-1].mean(0)
    stored = {"dtype": "float16", "quantization": None}
    write_model(TextToSemantic, folder / "gpt.safetensors", arrays, {**settings, **stored})
    settings, arrays = golden_sovits("float16")
    write_model(SoVITS, folder / "sovits.safetensors", arrays, {**settings, **stored})
    write_encoder("cnhubert", home / "encoders")
    shutil.rmtree(home / "encoders" / "hubert")
    noise = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    soundfile.write(folder / "reference.wav", 0.05 * noise, RATE, subtype="PCM_16")
    voice = {
        "format": 1,
        "name": RANDOM,
        "version": "v2",
        "sample_rate": RATE,
        "reference": {"text": "Good evening, the lamps are lit.", "language": "en"},
        "languages": ["en"],
        "encoders": {"cnhubert": "official", "roberta": None},
    }
    (folder / "voice.json").write_text(json.dumps(voice), encoding="utf-8")
