"""A decoder: sentences join it and leave it between steps, each with settings of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx
import numpy as np

from ..models.t2s import TextToSemantic
from ..settings import Sampling
from .sampling import BatchSampling, sample
from .state import DecodeState, prefill

Event = tuple[int, int | None]
"""A sentence, by the number that the holder of the decoder gave it, and its next token; `None` says that it ended."""


class Noise(Protocol):
    """Where a sentence's exponential variates come from."""

    @property
    def BLOCK(self) -> int: ...

    def block(self, number: int, width: int) -> mx.array:
        """The variates (BLOCK, width) of the steps from number · BLOCK on."""
        ...


@dataclass(frozen=True)
class DecodeRequest:
    """One sentence to decode.

    Attributes:
        phones: ids of the prompt's phones, then the sentence's.
        prompt: semantic tokens of the reference.
        noise: the variates to sample with.
        sampling: how its tokens are drawn, and how many at most.
        bert: (len(phones), bert_dim) features, or `None` for zeros.
    """

    phones: Sequence[int]
    prompt: Sequence[int]
    noise: Noise
    sampling: Sampling = field(default_factory=Sampling)
    bert: mx.array | None = None


@dataclass
class Row:
    """A sentence's place in a decoder.

    Attributes:
        drawn: tokens so far.
        block: its present variates; `None` before the first are needed.
        going: false where it has ended, or was taken out.
    """

    number: int
    request: DecodeRequest
    drawn: int = 0
    block: mx.array | None = None
    going: bool = True

    def offset(self, vocabulary: int) -> int:
        """The place of the next step's variates in `block`, which is drawn where the one before is used up."""
        noise = self.request.noise
        at = self.drawn % noise.BLOCK
        if not at and self.going and self.request.sampling.top_k > 1:
            self.block = noise.block(self.drawn // noise.BLOCK, vocabulary)
        return at


class Decoder(ABC):
    """Sentences that are decoded together. What one gets depends on none of the others.

    Attributes:
        rows: a place for each sentence, for some time also of those that have ended.
        logits: (B, vocab) of the rows' next tokens.
        seen: the tokens that have occurred in each row, (B, vocab) bool or as a form packs them.
    """

    logits: mx.array
    seen: mx.array

    def __init__(self, model: TextToSemantic):
        self.model, self.vocabulary = model, model.config.vocab_size
        self.rows: list[Row] = []

    def __len__(self) -> int:
        """Sentences under way."""
        return sum(row.going for row in self.rows)

    @property
    def usual_rows(self) -> int:
        """Sentences that are decoded together by default: more would hold memory for little speed."""
        return 16

    @property
    def most_rows(self) -> int | None:
        """Sentences that it can take; `None` for any number."""
        return None

    def join(self, requests: Mapping[int, DecodeRequest]) -> None:
        """Read sentences and take them in; the others wait no longer than that takes.

        Raises:
            ValueError: they are more than `most_rows`.
        """
        if not requests:
            return
        if self.most_rows and len(self) + len(requests) > self.most_rows:
            raise ValueError(f"a decoder of {self.most_rows} rows cannot take {len(requests)} beside its {len(self)}")
        self._keep([at for at, row in enumerate(self.rows) if row.going])
        given = list(requests.values())
        logits, state = _read(self.model, given)
        seen = self._packed_tokens(_tokens_of_prompts(given, self.vocabulary))
        self._take_in(state, given)
        if self.rows:
            logits, seen = mx.concatenate([self.logits, logits]), mx.concatenate([self.seen, seen])
        self.logits, self.seen = logits, seen
        self.rows += [Row(number, request) for number, request in requests.items()]
        self._rows_changed()
        mx.eval(self.logits, self.seen, self._arrays())

    def leave(self, numbers: Collection[int]) -> None:
        """Take sentences out: they give no more tokens, and their memory is free at once."""
        for row in self.rows:
            row.going = row.going and row.number not in numbers
        self._keep([at for at, row in enumerate(self.rows) if row.going])

    def advance(self) -> list[list[Event]]:
        """One step or more of all sentences under way, and what each step gave; nothing where none is under way.

        A sentence ends with its end token, or with the last token that its `max_tokens` allow.
        """
        return self._advance() if len(self) else []

    @abstractmethod
    def _advance(self) -> list[list[Event]]:
        """`advance`, where some sentence is under way."""

    def _keep(self, places: Sequence[int]) -> None:
        """Keep only these rows."""
        if len(places) == len(self.rows):
            return
        if places:
            index = mx.array(list(places))
            self.logits, self.seen = self.logits[index], self.seen[index]
        self._select(places)
        self.rows = [self.rows[at] for at in places]
        self._rows_changed()

    def _events(self, drawn: Sequence[int]) -> list[Event]:
        """What a step gave, −1 where a row ended; it counts as drawn."""
        events: list[Event] = []
        for row, token in zip(self.rows, drawn, strict=True):
            row.drawn += 1
            if row.going:
                events.append((row.number, token if token >= 0 else None))
                row.going = token >= 0 and row.drawn < row.request.sampling.max_tokens
        return events

    @abstractmethod
    def _take_in(self, state: DecodeState, requests: Sequence[DecodeRequest]) -> None:
        """Keep what was read of sentences behind what is kept of the rows."""

    @abstractmethod
    def _select(self, places: Sequence[int]) -> None:
        """Keep what belongs to these rows; there may be none."""

    @abstractmethod
    def _arrays(self) -> list[mx.array]:
        """What is kept of the rows that MLX may still have to evaluate."""

    def _rows_changed(self) -> None:  # noqa: B027 (a form may have nothing to do)
        """Called when rows have come or gone."""

    def _packed_tokens(self, seen: np.ndarray) -> mx.array:
        """Rows of `seen`, (B, vocab) bool, as the form keeps them."""
        return mx.array(seen)


class SteppingDecoder(Decoder):
    """A decoder that draws a token of each row with MLX, a step at a time."""

    def __init__(self, model: TextToSemantic):
        super().__init__(model)
        self.ids = mx.arange(self.vocabulary)
        self.settings: BatchSampling | None = None
        self.noise: mx.array | None = None

    def _draw(self) -> tuple[mx.array, mx.array]:
        """The next token of each row (B,), and the same with −1 where the row ends."""
        if self.settings is None:
            self.settings = BatchSampling.of([row.request.sampling for row in self.rows])
        steps = [row.drawn for row in self.rows]
        tokens, ended = sample(self.logits, self.seen, self._variates(), steps, self.settings)
        self.seen = self.seen | (self.ids == tokens[:, None])
        return tokens, mx.where(ended, -1, tokens)

    def _variates(self) -> mx.array | None:
        """(B, vocab) of this step, by the step of each row; `None` where no row needs any."""
        offsets = [row.offset(self.vocabulary) for row in self.rows]
        if all(row.block is None for row in self.rows):
            return None
        if self.noise is None or 0 in offsets:
            some = next(row.block for row in self.rows if row.block is not None)
            self.noise = mx.stack([some if row.block is None else row.block for row in self.rows])
        if len(set(offsets)) == 1:
            return self.noise[:, offsets[0]]
        return self.noise[mx.arange(len(offsets)), mx.array(offsets)]

    def _rows_changed(self) -> None:
        self.settings = self.noise = None


def _read(model: TextToSemantic, requests: Sequence[DecodeRequest]) -> tuple[mx.array, DecodeState]:
    phones, lengths = padded_ids([request.phones for request in requests])
    prompt, prompt_lengths = padded_ids([request.prompt for request in requests])
    bert = None
    if any(request.bert is not None for request in requests):
        bert = mx.stack([_padded(request.bert, phones.shape[1], model.config.bert_dim) for request in requests])
    logits, state = prefill(model, phones, bert, prompt, lengths, prompt_lengths)
    mx.eval(logits, state.arrays())
    return logits, state


def padded_ids(rows: Sequence[Sequence[int]]) -> tuple[mx.array, list[int]]:
    """(B, longest) ids with zeros behind, and the rows' lengths."""
    lengths = [len(row) for row in rows]
    ids = np.zeros((len(rows), max(lengths)), np.int32)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    return mx.array(ids), lengths


def _padded(features: mx.array | None, length: int, width: int) -> mx.array:
    if features is None:
        return mx.zeros((length, width))
    return mx.pad(features.astype(mx.float32), [(0, length - features.shape[0]), (0, 0)])


def _tokens_of_prompts(requests: Sequence[DecodeRequest], vocabulary: int) -> np.ndarray:
    """(B, vocab) bool."""
    seen = np.zeros((len(requests), vocabulary), bool)
    for row, request in enumerate(requests):
        seen[row, list(request.prompt)] = True
    return seen
