"""Recurrent draft: guesses the tokens that a GPT will draw, from the GPT's last hidden state.

Speculative decoding (Leviathan et al. 2023) lets a small model guess a few tokens, which the large one then verifies in
one forward. A draft that starts from the large one's hidden state needs no text, no prompt and no cache of its own
(EAGLE, Li et al. 2024; as a recurrent cell: ReDrafter, Cheng et al. 2024). What is drawn is what the GPT alone would
draw: a bad draft costs time, never tokens.
"""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from ..errors import WeightsError
from ..files import file_sha256
from ..layers.linear import Linear
from ..layers.normalisation import LayerNorm
from ..layers.weights import Weights, open_model
from ..runtime import backend

FILE = "draft.safetensors"
"""Name of a GPT's draft, in the GPT's folder."""


class RecurrentDraft:
    """s ← LN(s + W₂ ReLU(W₁ [s, e(token)])), at first the GPT's hidden state that drew the token; then logits of s."""

    def __init__(self, weights: Weights, width: int, vocabulary: int):
        root = weights.scope()
        tokens = Linear(root / "tokens", bias=False, shape=(vocabulary, width))
        linear1 = Linear(root / "linear1", shape=(None, 2 * width))
        inner = linear1.weight
        # a CPU unpacks what is quantized
        assert isinstance(tokens.weight, mx.array) and isinstance(inner, mx.array) and linear1.bias is not None
        # what the embedding adds to the inner layer depends on the token alone: a table
        self.table = root.keep(linear1.bias + tokens.weight @ inner[:, width:].T)
        self.inner = root.keep(inner[:, :width])
        self.outer = Linear(root / "linear2", shape=(width, inner.shape[0]))
        self.norm = LayerNorm(root / "norm")
        self.predict = Linear(root / "predict", bias=False, shape=(vocabulary, width))
        weights.finish()

    def __call__(self, state: mx.array, token: mx.array) -> tuple[mx.array, mx.array]:
        """State (1, width) and the token (1,) that it drew → the next state, and the logits (1, vocab) of the next."""
        inner = mx.maximum(state @ self.inner.T + self.table[token], 0)
        state = self.norm(state + self.outer(inner))
        return state, self.predict(state)


def draft_beside(gpt: Path, width: int, vocabulary: int) -> RecurrentDraft | None:
    """The draft in the folder of a GPT's weights; `None` where there is none, or MLX does not compute on a CPU.

    Elsewhere nothing was measured, and float16 would round a block otherwise than its single steps.

    Raises:
        WeightsError: it was made for another GPT, or is damaged.
    """
    path = gpt.with_name(FILE)
    if backend() != "cpu" or not path.is_file():
        return None
    try:
        config, weights = open_model(path)
        made_for, there = str(config.get("gpt_sha256")), file_sha256(gpt)
        if made_for != there:
            raise WeightsError(f"{path} was trained for another GPT ({made_for[:12]}…) than {gpt.name} ({there[:12]}…)")
        return RecurrentDraft(weights, width, vocabulary)
    except WeightsError as error:
        raise WeightsError(f"{error}: delete {path}, or train it again (scripts/train_demo_voice)") from None
