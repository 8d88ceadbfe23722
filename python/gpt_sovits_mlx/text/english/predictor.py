"""Pronunciation of unknown English words: g2p_en's sequence-to-sequence GRU, run in numpy.

Source: Kyubyong Park and Jongseok Kim, g2p_en 2.1.0 (checkpoint20.npz). Only the package's data file is read;
importing the package would ask nltk for downloads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_sovits_mlx.text.english.dictionary import g2p_en_file
from gpt_sovits_mlx.text.loading import loaded_once
from gpt_sovits_mlx.text.symbols import split_words

_Array = NDArray[np.floating[Any]]

_GRAPHEMES = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz", start=3)}
_UNKNOWN_GRAPHEME, _END_GRAPHEME = 1, 2
_START, _END = 2, 3
_MAX_PHONES = 20
# The checkpoint's output classes: four marks, then ARPAbet in alphabetical order, with a bare UW besides.
_PHONES = split_words(
    "<pad> <unk> <s> </s> AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH "
    "EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 "
    "P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH"
)
# Classes that are no phone; the reference drops them from what it speaks.
_SILENT = frozenset({"<pad>", "<s>", "</s>", "UW"})


def _sigmoid(x: _Array) -> _Array:
    return 1 / (1 + np.exp(-x))


class _Predictor:
    def __init__(self) -> None:
        with np.load(g2p_en_file("checkpoint20.npz")) as archive:
            self._weights: dict[str, _Array] = {name: archive[name] for name in archive.files}

    def _step(self, part: str, x: _Array, state: _Array) -> _Array:
        """One GRU step; the gates are stacked as reset, update, new."""
        w = self._weights
        from_input = x @ w[f"{part}_w_ih"].T + w[f"{part}_b_ih"]
        from_state = state @ w[f"{part}_w_hh"].T + w[f"{part}_b_hh"]
        width = state.shape[-1]
        gates = _sigmoid(from_input[: 2 * width] + from_state[: 2 * width])
        reset, update = gates[:width], gates[width:]
        new = np.tanh(from_input[2 * width :] + reset * from_state[2 * width :])
        return (1 - update) * new + update * state

    def __call__(self, word: str) -> tuple[str, ...]:
        w = self._weights
        state = np.zeros(w["enc_w_hh"].shape[1], np.float32)
        for index in [*(_GRAPHEMES.get(letter, _UNKNOWN_GRAPHEME) for letter in word), _END_GRAPHEME]:
            state = self._step("enc", w["enc_emb"][index], state)
        phones: list[str] = []
        index = _START
        for _ in range(_MAX_PHONES):
            state = self._step("dec", w["dec_emb"][index], state)
            index = int((state @ w["fc_w"].T + w["fc_b"]).argmax())
            if index == _END:
                break
            phones.append(_PHONES[index])
        return tuple("UNK" if phone == "<unk>" else phone for phone in phones if phone not in _SILENT)


@loaded_once
def _predictor() -> _Predictor:
    return _Predictor()


@lru_cache(maxsize=4096)
def predict(word: str) -> tuple[str, ...]:
    """ARPAbet of a lower-case word that no dictionary has."""
    return _predictor()(word)
