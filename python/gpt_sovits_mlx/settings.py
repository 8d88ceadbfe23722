"""What a request can be told: each setting stands here once, and Python, the command line and servers read it here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .errors import GPTSoVITSError, VoiceError
from .text import LANGUAGES, SPLIT_METHODS


def setting(default: Any, help: str, **more: Any) -> Any:
    """A field with what a way in shows of it: the command line makes an option of each."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the defaults are those of the reference's HTTP server.

    Attributes:
        top_k: keep the k most likely tokens (those tied with the k-th too); 1 is greedy decoding.
        top_p: nucleus: keep the most likely tokens whose probabilities sum to at most this; 1 keeps all.
        temperature: divides the logits.
        repetition_penalty: factor against every token that has occurred, the prompt's included; 1 is none.
        max_tokens: upper limit of new tokens (25 a second).

    Raises:
        GPTSoVITSError: a setting is out of its range.
    """

    top_k: int = setting(15, "draw from the k likeliest tokens; 1 takes the likeliest")
    top_p: float = setting(1.0, "draw from the likeliest tokens that sum to at most this probability")
    temperature: float = setting(1.0, "below 1 is steadier, above it livelier")
    repetition_penalty: float = setting(1.35, "above 1 keeps tokens from occurring again")
    max_tokens: int = setting(1500, "tokens of a sentence at most, 25 a second")

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise GPTSoVITSError(f"top_k is {self.top_k}: it must be at least 1 (1 is greedy decoding)")
        if not 0 < self.top_p <= 1:
            raise GPTSoVITSError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.temperature < 0 or self.repetition_penalty <= 0:
            raise GPTSoVITSError(
                f"temperature {self.temperature} and repetition_penalty {self.repetition_penalty}:"
                " the first must not be negative, the second must be above 0"
            )
        if self.max_tokens < 1:
            raise GPTSoVITSError(f"max_tokens is {self.max_tokens}: it must be at least 1")

    @classmethod
    def recommended(cls, defaults: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> Sampling:
        """What a voice recommends, else the defaults; `overrides` go before both.

        Raises:
            VoiceError: it recommends settings that there are not; the message names `source`.
            GPTSoVITSError: a setting is out of its range.
        """
        if unknown := set(defaults) - {setting.name for setting in fields(cls)}:
            raise VoiceError(f"{source}: unknown defaults {', '.join(sorted(unknown))}")
        return replace(cls(**defaults), **overrides)


@dataclass(frozen=True)
class Settings:
    """How a text is spoken.

    Attributes:
        language: "auto", "zh" (Chinese with English inside), "en" or "all_zh".
        speed: above 1 is faster, 0.3 to 3.
        pause: seconds of silence behind each sentence.
        seed: the same seed says the same again; `None` draws one.
        split_method: "cut0" to "cut5", as in the reference; "cut5" splits at punctuation.
        sampling: settings of `Sampling` that go before what the voice recommends.

    Raises:
        GPTSoVITSError: a setting is out of its range.
    """

    language: str = setting("auto", "language of the text", choices=LANGUAGES, flags=("-l",))
    speed: float = setting(1.0, "above 1 is faster, from 0.3 to 3")
    pause: float = setting(0.3, "seconds of silence behind each sentence")
    seed: int | None = setting(None, "the same seed says the same again")
    split_method: str = setting("cut5", "how the text is split", choices=SPLIT_METHODS)
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.3 <= self.speed <= 3:
            raise GPTSoVITSError(f"speed is {self.speed}: it must be from 0.3 to 3")
        if not 0 <= self.pause <= 60:
            raise GPTSoVITSError(f"pause is {self.pause} s: it must be from 0 to 60")

    @classmethod
    def of(cls, named: Mapping[str, Any]) -> Settings:
        """Settings by name, those of `Sampling` among them; `None` is as if it were not named.

        Raises:
            GPTSoVITSError: there is no such setting, or it is out of its range.
        """
        given = {name: value for name, value in named.items() if value is not None}
        if unknown := sorted(set(given) - set(SETTINGS)):
            raise GPTSoVITSError(f"there is no setting {unknown[0]!r}: there are {', '.join(SETTINGS)}")
        drawn = {field.name for field in fields(Sampling)}
        return cls(
            **{name: value for name, value in given.items() if name not in drawn},
            sampling={name: value for name, value in given.items() if name in drawn},
        )


SETTINGS = tuple(field.name for field in (*fields(Settings), *fields(Sampling)) if field.metadata)
"""The names of all settings of a request, those of `Sampling` among them."""
