"""Characters ↔ the ids of RoBERTa's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import TextError


class CharacterVocabulary:
    """One token a character, as the vocabulary of a Chinese BERT has it; `word2ph` counts on that.

    Args:
        tokens: in the order of their ids.
        longest: tokens that the model reads, [CLS] and [SEP] included.
    """

    def __init__(self, tokens: Sequence[str], longest: int):
        self.by_token = {token: number for number, token in enumerate(tokens)}
        self.longest = longest

    def ids(self, norm_text: str) -> list[int]:
        """[CLS], a token for each character, [SEP].

        Raises:
            TextError: it is longer than the model reads.
        """
        if len(norm_text) + 2 > self.longest:
            raise TextError(
                f"a sentence of {len(norm_text)} characters is too long for RoBERTa, which reads"
                f" {self.longest - 2}: split it with punctuation or a split method other than cut0"
            )
        unknown = self.by_token["[UNK]"]
        characters = (self.by_token.get(c.lower(), unknown) for c in norm_text)
        return [self.by_token["[CLS]"], *characters, self.by_token["[SEP]"]]
