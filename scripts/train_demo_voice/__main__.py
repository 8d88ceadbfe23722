"""Rebuild the demo voice, stage by stage, in one work folder.

    python -m scripts.train_demo_voice corpus    --work W    # sentences and their phones (needs gpt_sovits_mlx)
    python -m scripts.train_demo_voice speech    --work W    # flite, festival, espeak-ng; all processors
    python -m scripts.train_demo_voice tokenizer --work W --seconds 100
    python -m scripts.train_demo_voice codes     --work W
    python -m scripts.train_demo_voice gpt       --work W --seconds 600
    python -m scripts.train_demo_voice sovits    --work W --seconds 2400
    python -m scripts.train_demo_voice listen    --work W    # speaks the evaluation sentences, word error rate
    python -m scripts.train_demo_voice export    --work W    # official-format files
    python -m scripts.train_demo_voice recogniser --work R --seconds 600   # for evaluate_demo_voice.py, from a
                                                          # corpus of its own: R made with another --seed
    python -m scripts.train_demo_voice deliver   --work W --voices voices
    python -m scripts.train_demo_voice take-up   --work W    # the shipped weights, to train on from them

Needs Debian's flite, festival, festvox-us-slt-hts, espeak-ng, fortunes and fortunes-zh, PyTorch with a GPU for
the training stages, and pocketsphinx for `listen`. `gpt` and `sovits` resume from what W holds.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from .corpus import Row
    from .data import SpeechData

    Codes = tuple[Tensor, Tensor]

STAGES = (
    "corpus",
    "speech",
    "tokenizer",
    "codes",
    "gpt",
    "sovits",
    "listen",
    "recogniser",
    "export",
    "deliver",
    "take-up",
)
SENTENCES = Path(__file__).resolve().parent.parent / "demo_voice_sentences"
VOICE = Path(__file__).resolve().parent.parent.parent / "voices" / "demo"


def _lines(name: str) -> list[str]:
    return (SENTENCES / name).read_text(encoding="utf-8").splitlines()


def _sentences(name: str) -> list[str]:
    return [s for line in _lines(name) for s in re.findall(r"[^.?!]+[.?!]", line)]


def make_corpus(work: Path, english: int, mandarin: int, seed: int, processes: int) -> None:
    from gpt_sovits_mlx.text.symbols import symbol_table

    from . import corpus
    from .deliver import REFERENCES

    phonemise = corpus.front_end()
    wanted = [(t, lang, name) for name, (lang, t) in REFERENCES.items()]
    wanted += [(t, "en", name) for name in ("rms", "slt") for t in _lines("english.txt")]
    wanted += [(t, "zh", "espeak-f") for t in _lines("mandarin.txt")]
    wanted += [(t, "en", "rms") for name in ("lengths.txt", "paragraph.txt") for t in _sentences(name)]
    fixed = [corpus.make_row(t, lang, phonemise, name) for t, lang, name in wanted]
    held_out = [
        line for name in ("english.txt", "paragraph.txt", "lengths.txt", "mandarin.txt") for line in _lines(name)
    ]
    rows = corpus.rows(english, mandarin, held_out, seed, processes)
    corpus.save(work / "corpus.jsonl.gz", [r for r in fixed if r] + rows)
    symbols = {symbol: i for i, symbol in enumerate(symbol_table("v2").symbols)}
    (work / "symbols.json").write_text(json.dumps(symbols, ensure_ascii=False))
    print(f"corpus: {len(rows)} rows and {len(fixed)} to evaluate with")


@functools.cache
def _rows(work: Path) -> list[Row]:
    """The corpus; reading it takes seconds, and `codes` wants it for every shard."""
    from . import corpus

    return corpus.load(work / "corpus.jsonl.gz")


def _data(work: Path, shards: Sequence[int], sound: bool = True) -> SpeechData:
    from .data import SpeechData, wait_for

    symbols = json.loads((work / "symbols.json").read_text())
    return SpeechData(wait_for(work / "speech", shards, "npz"), _rows(work), symbols, sound)


def _shards(work: Path, count: int) -> range:
    """The numbers of the first `count` shards, or of all."""
    from .speech import SHARD

    there = -(-len(_rows(work)) // SHARD)
    return range(min(count or there, there))


def _write_codes(work: Path, shards: Sequence[int]) -> None:
    """Each shard's codes, as soon as it is spoken, with and without the silence behind a reference."""
    import torch

    from . import tokenizer

    model = tokenizer.load(work / "tokenizer.pt")
    (work / "codes").mkdir(exist_ok=True)
    used = torch.zeros(1024)
    for number in shards:
        data = _data(work, [number])
        codes, prompts = tokenizer.encode(model, data, 0), tokenizer.encode(model, data, tokenizer.SILENCE)
        temporary = work / "codes" / f"{number:03d}.tmp"
        torch.save([t.cpu() for t in (*codes, *prompts)], temporary)
        temporary.rename(temporary.with_suffix(".pt"))
        used += torch.bincount(torch.cat([c[:n] for c, n in zip(*codes, strict=True)]).long(), minlength=1024).cpu()
    share = used / used.sum()
    perplexity = float((-(share * (share + 1e-9).log()).sum()).exp())
    print(f"codes: {int((share > 0).sum())} used, perplexity {perplexity:.0f}", flush=True)


def _codes(work: Path, shards: Sequence[int]) -> tuple[Codes, Codes]:
    """Codes of the shards' utterances: (N, longest) and their lengths, without and with the silence."""
    import torch

    from .data import DEVICE, wait_for

    files = [torch.load(path) for path in wait_for(work / "codes", shards, "pt")]

    def join(place: int) -> Codes:
        width = max(f[place].shape[1] for f in files)
        rows = [torch.nn.functional.pad(f[place], (0, width - f[place].shape[1])) for f in files]
        return torch.cat(rows).to(DEVICE), torch.cat([f[place + 1] for f in files]).to(DEVICE)

    return join(0), join(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--voices", type=Path, default=Path("voices"), help="deliver: where the voices go")
    parser.add_argument("--english", type=int, default=40000)
    parser.add_argument("--mandarin", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--shards", type=int, default=0, help="use the first so many shards; 0 for all")
    parser.add_argument("--pick", type=int, nargs="*", default=[], help="speech: only these shards")
    parser.add_argument("--rate", type=float, default=0, help="gpt, sovits: learning rate; 0 for the usual one")
    parser.add_argument("--gan-from", type=float, default=0.2, help="share of the time after which judges join")
    parser.add_argument("--scale", type=float, default=1.0, help="batch size, times this")
    parser.add_argument("--only", default="", help="listen: only the sets whose name holds this")
    run(parser.parse_args())


def run(a: argparse.Namespace) -> None:
    work: Path = a.work
    work.mkdir(parents=True, exist_ok=True)
    if a.stage == "corpus":
        make_corpus(work, a.english, a.mandarin, a.seed, a.processes)
        return
    if a.stage == "speech":
        from . import speech

        speech.synthesise(_rows(work), work / "speech", a.processes, a.pick)
        return
    if a.stage == "take-up":
        from . import export

        export.take_up(VOICE, work)
        return
    if a.stage == "export":
        from . import export

        export.write(work, work / "export")
        return
    if a.stage == "deliver":
        from . import deliver

        deliver.write(work, a.voices)
        return
    if a.stage == "recogniser":
        from . import recogniser

        recogniser.train_on(work / "corpus.jsonl.gz", work / "recogniser.pt", a.seconds, a.processes)
        return
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = a.stage in ("tokenizer", "gpt", "sovits")  # the others see ever new lengths
    torch.manual_seed(a.seed)
    shards = _shards(work, a.shards)
    if a.stage == "listen":
        from . import listen

        listen.run(work, _data(work, shards[:1]), a.only, a.processes)
    elif a.stage == "tokenizer":
        from . import tokenizer

        training = tokenizer.TokenizerTraining(_data(work, shards), a.seconds)
        training.run()
        tokenizer.save(training.model, work / "tokenizer.pt")
    elif a.stage == "codes":
        _write_codes(work, shards)
    elif a.stage == "gpt":
        from . import gpt

        codes, prompts = _codes(work, shards)
        training = gpt.GPTTraining(_data(work, shards, sound=False), codes, prompts, rate=a.rate or 7e-4, scale=a.scale)
        out = work / "gpt.pt"
        if resumed := out.exists():
            training.resume(out)
        training.run(a.seconds, out, warm=resumed)
    else:
        _train_sovits(a, shards)


def _train_sovits(a: argparse.Namespace, shards: Sequence[int]) -> None:
    from . import sovits, tokenizer

    codes, _ = _codes(a.work, shards)
    book = tokenizer.load(a.work / "tokenizer.pt").embed
    training = sovits.SoVITSTraining(_data(a.work, shards), codes, book, rate=a.rate or 4e-4, scale=a.scale)
    out = a.work / "sovits.pt"
    with_judges = out.exists() and training.resume(out)
    training.run(a.seconds, out, 0.0 if out.exists() else a.gan_from, warm=with_judges)


if __name__ == "__main__":
    main()
