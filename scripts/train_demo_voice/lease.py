"""All stages that need GPUs, side by side and one after another, within a given time: for a machine on loan.

All GPUs speak. GPU 0 stops first and trains the tokenizer on what has been spoken by then. All but the last turn into
codes what there is then, and train SoVITS. The last speaks on, since the GPT wants the most text, encodes the rest, and
trains the GPT on all of it. Both trainings stop at the same moment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SETTLING = 12.0
"""Seconds that the last blocks of speech may still take."""


def _begin(work: Path, gpus: Sequence[int], stage: str, *options: str) -> subprocess.Popen[bytes]:
    """A stage in a process of its own that sees some of the GPUs; its output goes to `work`/STAGE.log."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "scripts.train_demo_voice", stage, "--work", str(work), *options]
    with open(work / f"{stage}.log", "ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _finish(name: str, jobs: Sequence[subprocess.Popen[bytes]], start: float) -> None:
    codes = [job.wait() for job in jobs]
    print(f"lease: {name} ended with {codes} at {time.time() - start:.0f} s", flush=True)
    if any(codes):
        raise RuntimeError(f"{name} failed: see its log")


def _wait(job: subprocess.Popen[bytes], moment: float) -> None:
    """Until `moment`, or until the job has ended (when all has been spoken)."""
    while time.time() < moment and job.poll() is None:
        time.sleep(0.5)


def run(
    work: Path, teacher: Path, gpus: int, processes: int, limits: Sequence[float], seconds: float, until: float
) -> None:
    """`limits`: for how many seconds GPU 0, those between, and the last one speak (the first and last number where
    there are two). `seconds`: for the tokenizer. `until`: when the trainings stop, in seconds since 1970."""
    if gpus < 2:
        raise ValueError("a lease wants two GPUs or more: run the stages one by one on a single one")
    start = time.time()
    every, last = list(range(gpus)), gpus - 1
    spoken = [limits[0], *[limits[len(limits) // 2]] * (gpus - 2), limits[-1]]
    speaking = _begin(
        work, every, "speech", "--teacher", str(teacher), "--processes", str(processes), "--limits", *map(str, spoken)
    )
    _wait(speaking, start + limits[0] + SETTLING)
    if not (work / "tokenizer.pt").exists():
        _finish("tokenizer", [_begin(work, [0], "tokenizer", "--seconds", str(seconds))], start)
    _wait(speaking, start + spoken[-2] + SETTLING)
    now = str(time.time())
    encoding = [
        _begin(work, [gpu], "codes", "--share", str(gpu), str(last), "--before", now) for gpu in every[:last]
    ]  # fmt: skip
    _finish("first codes", encoding, start)
    stop = ("--until", str(until))
    options = ("--gpus", str(last), "--gan-from", "-1", "--before", now)
    training = [_begin(work, every[:last], "sovits", *stop, *options)]
    _finish("speech", [speaking], start)
    _finish("last codes", [_begin(work, [last], "codes", "--share", "0", "1", "--after", now)], start)
    training.append(_begin(work, [last], "gpt", *stop))
    _finish("training", training, start)
