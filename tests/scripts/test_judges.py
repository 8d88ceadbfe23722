"""What the judges' figures are made of; the judges themselves are packages that tests do not need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from scripts import evaluate_demo_voice, judges


def test_errors_are_counted_in_the_language_s_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(judges.UNITS, "en", str.split)
    assert judges.errors("the old book", "the bold book is", "en") == (2, 3)


def test_mandarin_is_compared_as_toned_syllables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "_numbers_in_mandarin", lambda text: text.replace("3", "三"))
    assert judges.syllables("買3本，OK。") == ["mai3", "san1", "ben3"]


def test_a_report_names_what_was_misheard(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(judges.UNITS, "en", str.split)
    heard = {0: "yes it is", 1: "no it is"}

    def whisper(audio: np.ndarray, language: str) -> str:
        return heard[int(audio[0])]

    jury = evaluate_demo_voice.Judges(whisper, lambda audio: 3.0, lambda audio: (2.0, 4.0))  # type: ignore[arg-type]
    texts: Sequence[str] = ("yes it is", "no it was")
    jury.report("someone", "en", texts, lambda text, language, number: np.array([number], np.float32))
    said = capsys.readouterr().out
    assert "someone, en, 2 texts: word error rate 16.7 % (1/6), distillmos 3.00, DNSMOS 2.00, P.808 4.00" in said
    assert said.splitlines()[1] == "    no it was -> no it is"
