"""Rebuild the demo voice, stage by stage, in one work folder W; T is the teacher's folder.

On any machine (the teacher's and the texts' packages: see `prose`, `phonemes` and `assets`):

    python -m scripts.train_demo_voice corpus     --work W --texts ROOT   # sentences, read for both; corpus.jsonl.gz
    python -m scripts.train_demo_voice reread     --work W                # the same texts, by a newer front end
    python -m scripts.train_demo_voice speakers   --teacher T             # speakers.json anew, by a speaker encoder
    python -m scripts.train_demo_voice audit      --work W --teacher T    # leaves out what whisper-base mishears
    python -m scripts.train_demo_voice script     --work W --teacher T    # script.npz: the corpus as numbers

On a machine with GPUs (which needs W/script.npz, T and this folder, not the package):

    python -m scripts.train_demo_voice prepare    --teacher T             # the teacher's weights out of T/kokoro.onnx
    python -m scripts.train_demo_voice lease      --work W --teacher T --seconds 600   # all that follows, on all GPUs
    python -m scripts.train_demo_voice speech     --work W --teacher T --limits 100 100
    python -m scripts.train_demo_voice tokenizer  --work W --seconds 80
    python -m scripts.train_demo_voice codes      --work W --share 0 1
    python -m scripts.train_demo_voice gpt        --work W --seconds 600
    python -m scripts.train_demo_voice sovits     --work W --seconds 600 --gpus 3

And again anywhere:

    python -m scripts.train_demo_voice export     --work W                # official-format files
    python -m scripts.train_demo_voice deliver    --work W --teacher T --voices voices
    python -m scripts.train_demo_voice take-up    --work W --voices voices   # the shipped weights, to train on from

`gpt` and `sovits` resume from gpt.pt, sovits.pt and sovits.judges.pt where W holds them, and `lease` keeps a
tokenizer.pt that W holds: then codes mean what they meant. Whatever has another shape there starts anew. To go on from
the shipped weights alone, which know neither the tokenizer's heads nor the discriminators: take-up, script, prepare,
lease. With another tokenizer than gpt.pt was trained with, leave gpt.pt out: its codes would mean something else.

Speech is made again on every machine, the same but for the kernels' rounding and the noise in it: it is too large to be
carried. Its text and phones are kept (corpus.jsonl.gz).
"""

from __future__ import annotations

import argparse
import math
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data import SpeechData

STAGES = (
    "corpus", "reread", "speakers", "audit", "script", "prepare", "lease", "speech", "tokenizer", "codes", "gpt",
    "sovits", "export", "deliver", "take-up",
)  # fmt: skip
SENTENCES = Path(__file__).resolve().parent.parent / "demo_voice_sentences"


def judged_sentences() -> list[str]:
    """What the voice is judged by, whole lines and each sentence of them: none of it is trained on."""
    lines = [line for path in sorted(SENTENCES.glob("*.txt")) for line in path.read_text("utf-8").splitlines()]
    return lines + [s for line in lines for s in re.findall(r"[^.?!。？！]+[.?!。？！]", line)]


def make_corpus(a: argparse.Namespace) -> None:
    from . import corpus

    corpus.save(a.work / "corpus.jsonl.gz", corpus.rows(a.rows, judged_sentences(), a.texts, a.seed, a.processes))


def reread(a: argparse.Namespace) -> None:
    from . import corpus

    path = a.work / "corpus.jsonl.gz"
    corpus.save(path, corpus.reread(corpus.load(path)))


def pick_speakers(a: argparse.Namespace) -> None:
    from . import speakers
    from .assets import speaker_embedder

    voices = speakers.read_voices(a.teacher)
    names = [n for n in voices if n not in speakers.HELD_OUT]
    embed = speaker_embedder(a.teacher, voices)
    strangers = [embed(speakers.alone(n)) for n in speakers.HELD_OUT]
    plain = list(speakers.candidates(names, a.rows))
    order = [*plain[: len(names)], *speakers.beyond(names, a.rows // 2), *plain[len(names) :]]
    found = speakers.pick(order, embed, strangers)
    speakers.save(found)
    print(f"speakers: {len(found)}")


def audit_speakers(a: argparse.Namespace) -> None:
    from . import speakers
    from .assets import listener

    before = speakers.load()
    after = speakers.understood(before, listener(a.teacher, a.work, speakers.read_voices(a.teacher)))
    speakers.save(after)
    left = sum(len(s.prosody) for s in before) - sum(len(s.prosody) for s in after)
    print(f"audit: {len(after)} speakers, {left} of their languages left out")


def make_script(a: argparse.Namespace) -> None:
    from . import corpus, package, speakers, teacher

    rows = corpus.load(a.work / "corpus.jsonl.gz")
    there = speakers.load()
    speaking = {lang: [i for i, s in enumerate(there) if lang in s.prosody] for lang in corpus.LANGUAGES}
    script = corpus.make_script(rows, teacher.vocabulary(a.teacher), package.symbols(), speaking)
    corpus.save_script(a.work / "script.npz", script)
    print(f"script: {len(script)} rows")


def _blocks(a: argparse.Namespace) -> list[Path]:
    """The files of speech written between `--after` and `--before`."""
    there = sorted((a.work / "speech").glob("????.npz"))
    return [path for path in there if a.after <= path.stat().st_mtime < (a.before or math.inf)]


def _data(a: argparse.Namespace, blocks: list[Path], sound: bool = True) -> SpeechData:
    from .corpus import load_script
    from .data import SpeechData

    return SpeechData(blocks, load_script(a.work / "script.npz"), sound)


def train_tokenizer(a: argparse.Namespace) -> None:
    from . import tokenizer

    training = tokenizer.TokenizerTraining(_data(a, _blocks(a)), a.seconds)
    training.run()
    tokenizer.save(training.model, a.work / "tokenizer.pt")


def write_codes(a: argparse.Namespace) -> None:
    from . import codes, tokenizer

    share, count = a.share
    blocks = _blocks(a)[share::count]
    if not blocks:
        print("codes: nothing is spoken yet that has none")
        return
    model = tokenizer.load(a.work / "tokenizer.pt")
    codes.write(_data(a, blocks), model, a.work / "codes" / f"{blocks[0].stem}.pt")


def train_gpt(a: argparse.Namespace) -> None:
    from . import codes, gpt

    data = _data(a, _blocks(a), sound=False)
    plain, prompts = codes.read(sorted((a.work / "codes").glob("*.pt")), data.row)
    training = gpt.GPTTraining(data, plain, prompts, rate=a.rate or 7e-4, scale=a.scale)
    out = a.work / "gpt.pt"
    if resumed := out.exists():
        training.resume(out)
    training.run(_left(a), out, warm=resumed)


def train_sovits(a: argparse.Namespace) -> None:
    import torch

    from . import codes, sovits

    _set_up(a)
    data = _data(a, _blocks(a))
    plain, _ = codes.read(sorted((a.work / "codes").glob("*.pt")), data.row)
    book = codes.book(a.work / "tokenizer.pt")
    training = sovits.SoVITSTraining(data, plain, book, rate=a.rate or 4e-4, scale=a.scale)
    out = a.work / "sovits.pt"
    with_judges = out.exists() and training.resume(out)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    training.run(_left(a), out, 0.0 if with_judges else a.gan_from, warm=with_judges)


def _left(a: argparse.Namespace) -> float:
    """Seconds to train: up to `--until`, a moment in seconds since 1970, or `--seconds`."""
    return a.until - time.time() if a.until else a.seconds


def _set_up(a: argparse.Namespace) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = a.stage in ("tokenizer", "gpt", "sovits")  # the others see ever new lengths
    torch.backends.cudnn.benchmark_limit = 4  # all ten take half a minute for every shape
    torch.manual_seed(a.seed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--teacher", type=Path, default=Path("teacher"))
    parser.add_argument("--texts", type=Path, default=Path("/"), help="corpus: where Debian's texts are unpacked")
    parser.add_argument("--voices", type=Path, default=Path("voices"), help="deliver, take-up: where the voices are")
    parser.add_argument("--rows", type=int, default=50000, help="corpus: sentences; speakers: candidates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="corpus: in all; speech, lease: on each GPU")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--until", type=float, default=0, help="gpt, sovits: when to stop, instead of --seconds")
    parser.add_argument("--after", type=float, default=0, help="only speech written from this moment on")
    parser.add_argument("--before", type=float, default=0, help="only speech written before this moment")
    parser.add_argument("--limits", type=float, nargs="+", default=[120.0], help="speech: seconds for each GPU")
    parser.add_argument("--share", type=int, nargs=2, default=[0, 1], help="codes: which of how many shares")
    parser.add_argument("--gpus", type=int, default=1, help="sovits, lease: on how many")
    parser.add_argument("--rate", type=float, default=0, help="gpt, sovits: learning rate; 0 for the usual one")
    parser.add_argument("--gan-from", type=float, default=0.2, help="share of the time after which judges join")
    parser.add_argument("--scale", type=float, default=1.0, help="batch size, times this")
    return parser.parse_args()


def run(a: argparse.Namespace) -> None:
    a.work.mkdir(parents=True, exist_ok=True)
    if a.stage in ("tokenizer", "codes", "gpt"):
        _set_up(a)
    if a.stage == "prepare":
        from . import teacher

        teacher.prepare(a.teacher / "kokoro.onnx", a.teacher)
    elif a.stage == "speech":
        from . import speech

        speech.synthesise(a.work, a.teacher, a.limits, a.processes)
    elif a.stage == "lease":
        from . import lease

        lease.run(a.work, a.teacher, a.gpus, a.processes, a.limits, a.seconds, a.until)
    elif a.stage == "sovits":
        from . import parallel

        parallel.run(partial(train_sovits, a), a.gpus)
    elif a.stage == "export":
        from . import export

        export.write(a.work, a.work / "export")
    elif a.stage == "deliver":
        from . import deliver

        deliver.write(a.work, a.teacher, a.voices)
    elif a.stage == "take-up":
        from . import export

        export.take_up(a.voices / "demo", a.work)
    else:
        stages = {
            "corpus": make_corpus, "reread": reread, "speakers": pick_speakers, "audit": audit_speakers,
            "script": make_script,
            "tokenizer": train_tokenizer, "codes": write_codes, "gpt": train_gpt,
        }  # fmt: skip
        stages[a.stage](a)


if __name__ == "__main__":
    run(_arguments())
