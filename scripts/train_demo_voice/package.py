"""All that the trainer takes from the package: its front end, its list of phones, its conversion and its engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def front_end() -> Callable[[str, str], Any | None]:
    """Text and language -> phones, norm_text, word2ph; None where a character has no reading."""
    from gpt_sovits_mlx.errors import TextError
    from gpt_sovits_mlx.text import TextFrontend

    frontend = TextFrontend()

    def read(text: str, language: str) -> Any | None:
        try:
            piece = frontend.piece(text, language)
        except TextError:
            return None
        return None if "UNK" in piece.phones else piece

    return read


def symbols() -> dict[str, int]:
    """The phones of v2 and their ids."""
    from gpt_sovits_mlx.text.symbols import symbol_table

    return {symbol: i for i, symbol in enumerate(symbol_table("v2").symbols)}


def convert(export: Path, reference: Path, text: str, language: str, out: Path, **facts: Any) -> Any:
    """Official-format files -> the voice `out`, the GPT in 8 bits and all else in float16; its `VoiceFolder`.

    `facts`: defaults, licence and card of the voice.
    """
    from gpt_sovits_mlx.convert import VoiceRecipe, convert_cnhubert, convert_voice

    recipe = VoiceRecipe(
        export / "demo.ckpt", export / "demo.pth", reference, text, language, dtype="float16", bits=8,
        encoders={"cnhubert": "cnhubert.safetensors", "roberta": None}, **facts,
    )  # fmt: skip
    made = convert_voice(recipe, output=out, overwrite=True).voice
    convert_cnhubert(export / "cnhubert", out / "cnhubert.safetensors", dtype="float16")
    return made


def enrol(voice: Path) -> None:
    """Write what a voice's reference yields beside it, anew."""
    from gpt_sovits_mlx import GPTSoVITSEngine

    (voice / "cache.safetensors").unlink(missing_ok=True)
    GPTSoVITSEngine().load_voice(voice)
