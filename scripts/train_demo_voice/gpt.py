"""Text to semantic codes: the reference's GPT in small, and its training on pairs of utterances.

Post-norm layers, ReLU, sinusoidal positions with learned scales that start at 0 for text and for audio;
text sees all text, audio sees all text and the audio before it. Tensor names are the reference's.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import DEVICE, BySpeaker, SpeechData
from .graphs import Average, capture, optimiser
from .weights import read, save

EOS, VOCABULARY = 1024, 1025
REPETITION_PENALTY = 1.35


@dataclass(frozen=True)
class Size:
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    symbols: int = 732
    features: int = 1024  # BERT features a character; zeros here, kept for the reference's sake


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.drop(self.self_attn(x, mask)))
        return self.norm2(x + self.drop(self.linear2(self.drop(F.relu(self.linear1(x))))))


class _Embedding(nn.Module):
    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(count, width)
        nn.init.normal_(self.word_embeddings.weight, std=0.5)


class _Position(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))


class GPT(nn.Module):
    """Phones (B, X) with their counts and codes (B, Y) -> logits (B, Y, 1025) of the code after each."""

    table: Tensor

    def __init__(self, size: Size | None = None, dropout: float = 0.15) -> None:
        super().__init__()
        size = size or Size()
        self.size = size
        width = size.hidden
        self.bert_proj = nn.Linear(size.features, width)
        self.ar_text_embedding, self.ar_text_position = _Embedding(size.symbols, width), _Position()
        self.ar_audio_embedding, self.ar_audio_position = _Embedding(VOCABULARY, width), _Position()
        self.h = nn.Module()
        self.h.layers = nn.ModuleList(_Layer(width, size.heads, dropout) for _ in range(size.layers))
        self.ar_predict_layer = nn.Linear(width, VOCABULARY, bias=False)
        self.drop = nn.Dropout(dropout)
        nn.init.zeros_(self.bert_proj.weight)  # trained without BERT: zero features, and only the bias counts
        position = torch.arange(4000.0)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.stack([position.sin(), position.cos()], -1).flatten(1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, phones: Tensor, phone_count: Tensor, codes: Tensor) -> Tensor:
        texts, audios = phones.shape[1], codes.shape[1]
        text = self.ar_text_embedding.word_embeddings(phones) + self.bert_proj.bias
        text = text + self.ar_text_position.alpha * self.table[:texts]
        audio = self.ar_audio_embedding.word_embeddings(codes) + self.ar_audio_position.alpha * self.table[:audios]
        x = self.drop(torch.cat([text, audio], 1))
        mask = attention_mask(phone_count, texts, audios)
        for layer in self.h.layers:  # type: ignore[union-attr]
            x = layer(x, mask)
        return self.ar_predict_layer(x[:, texts:])


def attention_mask(phone_count: Tensor, texts: int, audios: int) -> Tensor:
    """(B, 1, X + Y, X + Y) of True where a row (query) may look."""
    index = torch.arange(texts + audios, device=phone_count.device)
    causal = (index[None] <= index[:, None]) & (index[:, None] >= texts)
    is_text = index < texts
    real = ~is_text | (index < phone_count[:, None])
    return ((causal | is_text)[None] & real[:, None])[:, None]


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """The reference's repetition penalty where `seen`."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


@dataclass(frozen=True)
class Bucket:
    """One fixed shape of a training batch, and what fits into it."""

    batch: int
    texts: int
    audios: int
    prompt_codes: int
    target_phones: int
    target_codes: int


BUCKETS = (Bucket(128, 160, 304, 170, 92, 130), Bucket(24, 480, 896, 250, 290, 640))
TURNS = (0, 0, 1)  # which bucket takes the next step


def join(x: Tensor, x_count: Tensor, y: Tensor, y_count: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Rows x[:x_count] + y[:y_count], zeros behind, (B, width)."""
    index = torch.arange(width, device=x.device)[None].expand(len(x), -1)
    left = x.gather(1, index.clamp(max=x.shape[1] - 1))
    right = y.gather(1, (index - x_count[:, None]).clamp(0, y.shape[1] - 1))
    both = torch.where(index < x_count[:, None], left, right)
    count = x_count + y_count
    return both * (index < count[:, None]), count


class GPTTraining:
    """Pairs: a prompt with its silence, then a target, often of another speaker or language."""

    def __init__(
        self, data: SpeechData, codes: tuple[Tensor, Tensor], prompts: tuple[Tensor, Tensor], rate: float = 7e-4,
        dropout: float = 0.15, scale: float = 1.0, size: Size | None = None,
    ) -> None:  # fmt: skip
        self.data, self.rate = data, rate
        self.codes, self.code_count = codes[0].long(), codes[1]
        self.prompts, self.prompt_count = prompts[0].long(), prompts[1]
        self.phones, self.phone_count = data.phones.long(), data.phone_count
        self.model = GPT(size, dropout).to(DEVICE)
        self.average = Average(self.model, 0.999)
        self.learning_rate = torch.tensor(rate, device=DEVICE)
        self.optimiser = optimiser(list(self.model.parameters()), self.learning_rate, (0.9, 0.98), 0.05)
        self.scale = scale
        self.pools = [self._pools(b, data.train) for b in BUCKETS]
        held_out = self._pools(BUCKETS[1], ~data.train)
        self.held_out = [self._batch(BUCKETS[1], held_out, 64) for _ in range(3)]

    def _pools(self, bucket: Bucket, keep: Tensor) -> tuple[BySpeaker, Tensor]:
        room = bucket.texts - bucket.target_phones
        prompt = (
            keep & (self.prompt_count <= bucket.prompt_codes) & (self.prompt_count >= 55) & (self.phone_count <= room)
        )
        target = keep & (self.code_count <= bucket.target_codes) & (self.phone_count <= bucket.target_phones)
        target &= self.code_count >= 4
        speakers = BySpeaker(torch.nonzero(prompt)[:, 0], self.data.speaker, self.data.speakers)
        return speakers, torch.nonzero(target)[:, 0]

    def _batch(self, bucket: Bucket, pools: tuple[BySpeaker, Tensor], size: int) -> tuple[Tensor, ...]:
        prompts, targets = pools
        target = targets[torch.randint(len(targets), (size,), device=DEVICE)]
        anyone = prompts.order[torch.randint(len(prompts.order), (size,), device=DEVICE)]
        luck = torch.rand(size, device=DEVICE)
        prompt = torch.where(luck < 0.35, anyone, prompts.draw(self.data.speaker[target]))
        used = (luck < 0.93).long()  # a few without any prompt
        phones, phone_count = join(
            self.phones[prompt], self.phone_count[prompt] * used, self.phones[target], self.phone_count[target],
            bucket.texts,
        )  # fmt: skip
        begin = self.prompt_count[prompt] * used
        codes, count = join(self.prompts[prompt], begin, self.codes[target], self.code_count[target], bucket.audios)
        return phones, phone_count, codes, count, begin

    def loss(self, net: nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        phones, phone_count, codes, count, begin = batch
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            logits = net(phones, phone_count, codes)[:, :-1].float()
        index = torch.arange(codes.shape[1], device=DEVICE)[None]
        wanted = torch.where(index == count[:, None], EOS, codes)[:, 1:]
        weight = ((index <= count[:, None]) & (index > 0))[:, 1:].float()
        # half of the batch meets the logits as the reference's sampler would change them
        half = len(codes) // 2
        first = torch.full((half, VOCABULARY), codes.shape[1], device=DEVICE)
        real = torch.where(index < count[:half, None], codes[:half], EOS)
        first = first.scatter_reduce(1, real, index.expand(half, -1), "amin")
        seen = first[:, None] <= index[:, :-1, None]
        logits = torch.cat([penalise(logits[:half], seen, REPETITION_PENALTY), logits[half:]])
        entropy = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
        target = weight * (index[:, 1:] >= begin[:, None])
        right = (logits.argmax(-1) == wanted).float()
        return {
            "loss": (entropy * weight).sum() / weight.sum(),
            "target": (entropy * target).sum() / target.sum(),
            "accuracy": (right * target).sum() / target.sum(),
        }

    def _step(self, which: int) -> dict[str, Tensor]:
        bucket = BUCKETS[which]
        size = max(int(bucket.batch * self.scale), 2)
        self.optimiser.zero_grad(set_to_none=True)
        parts = self.loss(self.model, self._batch(bucket, self.pools[which], size))
        parts["loss"].backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update()
        return parts

    @torch.no_grad()
    def validate(self) -> dict[str, Tensor]:
        """Losses on held-out pairs, always the same ones, of the averaged weights."""
        net = GPT(self.model.size).to(DEVICE).eval()
        net.load_state_dict(self.average.state())
        found = [self.loss(net, batch) for batch in self.held_out]
        return {name: torch.stack([parts[name] for parts in found]).mean() for name in found[0]}

    def resume(self, path: Path) -> None:
        """Take up the weights that an earlier run left at `path`."""
        self.model.load_state_dict(read(path, DEVICE))

    def run(self, seconds: float, out: Path, warm: bool = False, every: float = 60) -> None:
        """Train for `seconds`; `out` gets the averaged weights (float16) whenever they do better than before on pairs
        held out: on little speech the model soon knows its pairs by heart.
        """
        self.model.train()
        self.learning_rate.fill_(1e-6)  # capture takes a few steps of its own
        steps = [capture(lambda w=w: self._step(w)) for w in range(len(BUCKETS))]
        self.average.restart()
        start, count, done, next_report, best = time.time(), 0, 0.0, 10.0, math.inf
        while done < 1:
            done = (time.time() - start) / seconds
            ramp = 1.0 if warm else min(1, (count + 1) / 500)
            self.learning_rate.fill_(self.rate * ramp * max(0.02, min(1, (1 - done) / 0.7)))
            parts = steps[TURNS[count % len(TURNS)]]()
            count += 1
            if count == 200:
                self.average.restart()
            if count % 20 == 0 and DEVICE == "cuda":
                torch.cuda.synchronize()
            if time.time() - start > next_report or done >= 1:
                next_report = time.time() - start + every
                held = {f"held-out {k}": v for k, v in self.validate().items()}
                loss = float(held["held-out loss"])
                text = ", ".join(f"{k} {float(v.detach()):.3f}" for k, v in (parts | held).items())
                print(f"gpt step {count} {time.time() - start:.0f} s: {text}", flush=True)
                if loss < best:
                    best = loss
                    save(self.average.state(), out)


def load(path: Path, dropout: float = 0.0) -> GPT:
    model = GPT(dropout=dropout).to(DEVICE)
    model.load_state_dict(read(path, DEVICE))
    return model.eval()
