"""A draft of the GPT for speculative decoding (`gpt_sovits_mlx.models.draft`), and its training on the GPT's own codes.

The GPT decodes the corpus behind the prompts of the shipped voices, greedily and with some chance; from its last hidden
states the draft learns its logits of the codes that come next.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from . import gpt
from .data import DEVICE, pad_rows

LEAST = 11  # codes of a sentence, as in gpt_sovits_mlx.sampling
AHEAD = 6  # guesses that it is trained for, each from the state of the one before
ROWS = 1024  # sentences that are decoded together
POSITIONS = 65536  # of the texts and codes of a training batch
HELD_OUT = 4  # batches


class RecurrentDraft(nn.Module):
    """s ← LN(s + W₂ ReLU(W₁ [s, e(code)])), at first the GPT's hidden state that drew the code."""

    def __init__(self, width: int = 256, inner: int = 512) -> None:
        super().__init__()
        self.tokens = nn.Embedding(gpt.VOCABULARY, width)
        self.linear1, self.linear2 = nn.Linear(2 * width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, gpt.VOCABULARY, bias=False)

    @classmethod
    def of(cls, teacher: gpt.GPT) -> RecurrentDraft:
        """An untrained one, with the embedding and the last layer of the GPT."""
        draft = cls(teacher.size.hidden)
        draft.tokens.weight.data.copy_(teacher.ar_audio_embedding.word_embeddings.weight)
        draft.predict.weight.data.copy_(teacher.ar_predict_layer.weight)
        return draft.to(DEVICE)

    def forward(self, state: Tensor, codes: Tensor) -> Tensor:
        inner = F.relu(self.linear1(torch.cat([state, self.tokens(codes)], -1)))
        return self.norm(state + self.linear2(inner))


@dataclass(frozen=True)
class Prompt:
    """What a voice's reference yields, as the voice's cache holds it."""

    phones: tuple[int, ...]
    codes: tuple[int, ...]

    @classmethod
    def of(cls, voice: Path) -> Prompt:
        cache = voice / "cache.safetensors"
        if not cache.is_file():
            raise FileNotFoundError(f"no {cache}: load the voice once")
        tensors = load_file(cache)
        return cls(tuple(tensors["phones"].tolist()), tuple(tensors["tokens"].tolist()))


@dataclass(frozen=True)
class Sentence:
    """Phones behind a prompt, and the codes that the GPT made of them."""

    prompt: Prompt
    phones: tuple[int, ...]
    codes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.prompt.phones) + len(self.phones) + len(self.prompt.codes) + len(self.codes)


@torch.no_grad()
def decode(teacher: gpt.GPT, sentences: Sequence[Sentence], temperature: float) -> list[Sentence]:
    """Sentences of one prompt with their codes, greedy ones at temperature 0; those that do not end are left out."""
    prompt, size = sentences[0].prompt, len(sentences)
    texts, counts = pad_rows([(*prompt.phones, *s.phones) for s in sentences])
    limit = 40 + 3 * max(len(s.phones) for s in sentences)
    slots = texts.shape[1] + len(prompt.codes) + limit
    slot = torch.arange(slots, device=DEVICE)
    real = ((slot < counts[:, None]) | (slot >= texts.shape[1]))[:, None, None]
    caches = teacher.caches(size, slots)
    codes = torch.tensor(prompt.codes, device=DEVICE)[None].expand(size, -1)
    hidden = teacher.hidden(texts.long(), counts, codes, caches)[:, -1]
    ended = torch.full((size,), -1, device=DEVICE)
    made: list[Tensor] = []
    for step in range(limit):
        logits = teacher.ar_predict_layer(hidden).float()
        if step < LEAST:
            logits[:, gpt.EOS] = -1e9
        code = logits.argmax(-1)
        if temperature:
            top, ids = (logits / temperature).topk(5, -1)
            code = ids.gather(1, torch.multinomial(top.softmax(-1), 1))[:, 0]
        ended = torch.where((ended < 0) & (code == gpt.EOS), step, ended)
        made.append(code)
        if step % 16 == 15 and bool((ended >= 0).all()):
            break
        hidden = teacher.hidden_of_next(code, len(prompt.codes) + step, real, caches)
    rows = zip(sentences, torch.stack(made, 1).tolist(), ended.tolist(), strict=True)
    return [Sentence(prompt, s.phones, tuple(codes[:end])) for s, codes, end in rows if end >= 0]


def decode_corpus(teacher: gpt.GPT, corpus: Sequence[Sentence], seconds: float, rows: int) -> list[Sentence]:
    """As much of the corpus, batch by batch of like lengths, as is decoded in time; three in five batches greedily."""
    groups = _groups(corpus, lambda group, _: len(group) < rows)
    found: list[Sentence] = []
    start, count = time.time(), 0
    while time.time() - start < seconds or not count:
        if count % len(groups) == 0:
            random.shuffle(groups)
        temperature = 0.0 if count % 5 < 3 else random.uniform(0.6, 1.0)
        found += decode(teacher, groups[count % len(groups)], temperature)
        count += 1
    print(f"draft: {len(found)} sentences, {sum(len(s.codes) for s in found)} codes to learn from", flush=True)
    return found


def _groups(
    sentences: Sequence[Sentence], has_room: Callable[[Sequence[Sentence], Sentence], bool]
) -> list[list[Sentence]]:
    """Sentences of one prompt and of like lengths together, as long as `has_room(group, sentence)`."""
    groups: list[list[Sentence]] = []
    for sentence in sorted(sentences, key=lambda s: (s.prompt.codes, s.size)):
        last = groups[-1] if groups else []
        if last and last[0].prompt == sentence.prompt and has_room(last, sentence):
            last.append(sentence)
        else:
            groups.append([sentence])
    return groups


def losses(logits: Tensor, wanted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """KL divergence from the GPT and half the cross entropy of its likeliest code; the share of right guesses."""
    guess, target = F.log_softmax(logits.float(), -1), F.log_softmax(wanted, -1)
    best = wanted.argmax(-1)
    divergence = (target.exp() * (target - guess)).sum(-1)
    entropy = -guess.gather(-1, best[..., None])[..., 0]
    total = weight.sum().clamp(min=1)
    right = ((guess.argmax(-1) == best) * weight).sum() / total
    return ((divergence + 0.5 * entropy) * weight).sum() / total, right.detach()


class DraftTraining:
    """Guesses as far as `AHEAD` behind every code of a sentence at once."""

    def __init__(self, teacher: gpt.GPT, sentences: Sequence[Sentence], scale: float = 1.0, rate: float = 1e-3) -> None:
        self.teacher, self.rate = teacher, rate
        self.draft = RecurrentDraft.of(teacher)
        self.optimiser = torch.optim.AdamW(self.draft.parameters(), rate, (0.9, 0.98), weight_decay=0.01)
        room = POSITIONS * scale
        groups = _groups(sentences, lambda group, s: (len(group) + 1) * s.size <= room)
        random.shuffle(groups)
        kept = min(HELD_OUT, len(groups) // 2)
        self.held_out, self.groups = groups[:kept], groups[kept:]

    def loss(self, group: Sequence[Sentence]) -> tuple[Tensor, list[Tensor]]:
        """The mean loss of the guesses, and for each place ahead the share of right ones."""
        prompt = group[0].prompt
        texts, counts = pad_rows([(*prompt.phones, *s.phones) for s in group])
        codes, _ = pad_rows([(*prompt.codes, *s.codes) for s in group])
        labels, lengths = pad_rows([(*s.codes, gpt.EOS) for s in group])
        labels, last = labels.long(), labels.shape[1]
        weight = (torch.arange(last, device=DEVICE) < lengths[:, None]).float()
        with torch.no_grad():
            hidden = self.teacher.hidden(texts.long(), counts, codes.long())[:, len(prompt.codes) - 1 :]
            wanted = self.teacher.ar_predict_layer(hidden).float()
        state, parts, shares = hidden.float(), [], []
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            for ahead in range(1, min(AHEAD, last - 1) + 1):
                state = self.draft(state[:, :-1], labels[:, ahead - 1 : -1])
                part, right = losses(self.draft.predict(state), wanted[:, ahead:], weight[:, ahead:])
                parts.append(part)
                shares.append(right)
        return torch.stack(parts).mean(), shares

    @torch.no_grad()
    def validate(self) -> list[float]:
        shares = [torch.stack(self.loss(group)[1][:3]) for group in self.held_out]
        return torch.stack(shares).mean(0).tolist() if shares else []

    def run(self, seconds: float, every: float = 30) -> None:
        start, count, done, next_report = time.time(), 0, 0.0, 5.0
        while done < 1:
            done = min(1.0, (time.time() - start) / seconds)
            rate = self.rate * min(1, (count + 1) / 100) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * done))
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss, _ = self.loss(random.choice(self.groups))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.draft.parameters(), 1.0)
            self.optimiser.step()
            count += 1
            if time.time() - start > next_report or done == 1:
                next_report = time.time() - start + every
                shares = ", ".join(f"{share:.3f}" for share in self.validate())
                text = f"loss {float(loss.detach()):.3f}, held-out right {shares}"
                print(f"draft step {count} {time.time() - start:.0f} s: {text}", flush=True)


def train(corpus: Sequence[Sentence], voice: Path, seconds: float, scale: float) -> None:
    """Train a draft for a voice's GPT, a fifth of the time on making codes, and write it beside the GPT."""
    from gpt_sovits_mlx.convert.output import write_model
    from gpt_sovits_mlx.files import file_sha256
    from gpt_sovits_mlx.models.draft import FILE
    from gpt_sovits_mlx.quantization import Quantization

    path = voice / "gpt.safetensors"
    teacher = gpt.GPT(dropout=0)
    teacher.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    teacher = teacher.to(DEVICE, torch.float16 if DEVICE == "cuda" else torch.float32).eval().requires_grad_(False)
    sentences = decode_corpus(teacher, corpus, seconds / 5, max(2, int(ROWS * scale)))
    training = DraftTraining(teacher, sentences, scale)
    training.run(seconds * 4 / 5)
    tensors = {name: tensor.cpu().numpy().astype(np.float16) for name, tensor in training.draft.state_dict().items()}
    # as many guesses are right as in float16 (2.57 and 2.58 tokens a block), in a quarter of the space
    config = {"gpt_sha256": file_sha256(path), "dtype": "float16"}
    write_model(voice / FILE, tensors, config, quantization=Quantization(bits=4))
