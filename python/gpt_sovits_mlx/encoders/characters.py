"""Characters ↔ the ids of RoBERTa's vocabulary, and a text of any length in parts that it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

MARKS = ",.?!…"
"""Behind which a text is cut where it can be: the normaliser leaves these."""


class CharacterVocabulary:
    """One token a character, as the vocabulary of a Chinese BERT has it; `word2ph` counts on that.

    Args:
        tokens: in the order of their ids.
        longest: tokens that the model reads, [CLS] and [SEP] included.
    """

    def __init__(self, tokens: Sequence[str], longest: int):
        self.by_token = {token: number for number, token in enumerate(tokens)}
        self.longest = longest

    def encode(self, norm_text: str, features: Callable[[list[int]], mx.array]) -> mx.array:
        """One row for each character (len(norm_text), width), evaluated.

        A text longer than the model reads is encoded in parts: sentences are cut before they are normalised, and
        numbers grow when they are spelt out.

        Args:
            norm_text: of any length.
            features: token ids, [CLS] and [SEP] included → (len(ids), width).
        """
        rows = mx.concatenate([features(self.ids(part))[1:-1] for part in self.parts(norm_text)])
        mx.eval(rows)
        return rows

    def parts(self, norm_text: str) -> list[str]:
        """The text in parts that the model reads, cut behind marks, and anywhere in a long stretch without one."""
        most, parts = self.longest - 2, []
        while len(norm_text) > most:
            end = max(norm_text.rfind(mark, most // 2, most) for mark in MARKS) + 1 or most
            parts.append(norm_text[:end])
            norm_text = norm_text[end:]
        return [*parts, norm_text]

    def ids(self, part: str) -> list[int]:
        """[CLS], a token for each character, [SEP]."""
        unknown = self.by_token["[UNK]"]
        characters = (self.by_token.get(c.lower(), unknown) for c in part)
        return [self.by_token["[CLS]"], *characters, self.by_token["[SEP]"]]
