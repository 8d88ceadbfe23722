"""Judge the shipped voices by strangers, the teacher beside them in the same run.

    PYTHONPATH=python python scripts/evaluate_demo_voice.py --teacher T                       # all sets
    PYTHONPATH=python python scripts/evaluate_demo_voice.py --set speech --languages en zh --count 10 --out spoken/

speech: each voice says each language's sentences; misheard by whisper-base, naturalness by distillmos, DNSMOS.
lengths: texts of 1 to 40 words; which do not end, are too long or too short.
paragraph: ten sentences in one call.
cloning: strangers, voices of the teacher that nothing was trained on and mixtures of them, lend the demo voice's
weights their sound with one sentence; Resemblyzer compares what it then says with what they say themselves.

None of the sentences was trained on. T is the teacher's folder (see scripts/train_demo_voice); without it the teacher
is left out, and cloning. Needs the extra `judge`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.judges import LANGUAGES, RATE, Identity, Naturalness, Quality, Whisper, errors

from gpt_sovits_mlx import GPTSoVITSEngine
from gpt_sovits_mlx.voices.voice import Voice

SENTENCES = Path(__file__).resolve().parent / "demo_voice_sentences"
FILES = {"en": "english", "zh": "mandarin", "ja": "japanese"}
SETS = ("speech", "lengths", "paragraph", "cloning")
TEACHERS = {"en": ("af_heart", "am_michael"), "zh": ("zf_xiaoxiao", "zm_yunxi"), "ja": ("jf_alpha", "jm_kumo")}
PROMPTS = {"en": "The train was late because of the heavy snow, so we waited in the warm cafe until the evening.",
           "zh": "昨天晚上下了一场大雪，所以火车晚点了，我们在温暖的咖啡馆里一直等到天黑。"}  # fmt: skip
LONGEST, SHORTEST = 1.0, 0.1
"""An utterance counts as run on, or as empty, beyond these many seconds a word."""

Say = Callable[[str, str, int], np.ndarray]
"""Text, language and seed -> (N,) float32 at 16 kHz."""


def lines(name: str) -> list[str]:
    return (SENTENCES / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@dataclass
class Judges:
    whisper: Whisper
    naturalness: Naturalness
    quality: Quality

    def report(self, name: str, language: str, texts: Sequence[str], say: Say) -> None:
        """One line of figures for what a speaker makes of `texts`, and the texts misheard."""
        wrong = count = 0
        scores, misheard = [], []
        for i, text in enumerate(texts):
            audio = say(text, language, i)
            heard = self.whisper(audio, language)
            mistakes, units = errors(text, heard, language)
            wrong, count = wrong + mistakes, count + units
            scores.append((self.naturalness(audio), *self.quality(audio)))
            if mistakes:
                misheard.append(f"    {text} -> {heard}")
        natural, overall, p808 = np.mean(scores, 0)
        print(
            f"{name}, {language}, {len(texts)} texts: {LANGUAGES[language]} {100 * wrong / count:.1f} % "
            f"({wrong}/{count}), "
            f"distillmos {natural:.2f}, DNSMOS {overall:.2f}, P.808 {p808:.2f}", *misheard, sep="\n", flush=True,
        )  # fmt: skip


class Ours:
    """The package's engine with a voice; keeps what is said in `out`."""

    def __init__(self, voice: str, out: Path | None, seed: int) -> None:
        self.engine, self.name, self.out, self.seed = GPTSoVITSEngine(), voice, out, seed

    def say(self, voice: str | Voice, text: str, language: str, number: int, split: str = "cut5") -> np.ndarray:
        result = self.engine.synthesize(
            text, language, voice=voice, seed=self.seed + number, split_method=split, pause=0.0
        )
        audio = soxr.resample(result.audio, result.sample_rate, RATE).astype(np.float32)
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            name = voice if isinstance(voice, str) else voice.name
            soundfile.write(self.out / f"{name}-{language}-{number:03d}.wav", audio, RATE)
        return audio

    def speaker(self, voice: str) -> Say:
        return lambda text, language, number: self.say(voice, text, language, number)


class Theirs:
    """The teacher with its own phonemes."""

    def __init__(self, folder: Path) -> None:
        from scripts.train_demo_voice import phonemes, speakers, teacher

        self._teacher, self._read = teacher.Teacher(folder, "cpu"), phonemes.teachers_own()
        self.voices, self._vocabulary = speakers.read_voices(folder), teacher.vocabulary(folder)
        self._rate, self.strangers = teacher.RATE, speakers.strangers()

    def say(self, styles: np.ndarray, text: str, language: str) -> np.ndarray:
        said = self._read[language](text)
        tokens = np.array([self._vocabulary[c] for c in said if c in self._vocabulary], np.uint8)
        ((audio, _),) = self._teacher.say([tokens], [styles])
        return soxr.resample(audio, self._rate, RATE).astype(np.float32)

    def speaker(self, voice: str) -> Say:
        styles = self.voices[voice]
        return lambda text, language, _: self.say(styles, text, language)


def speech(a: argparse.Namespace, ours: Ours, theirs: Theirs | None) -> None:
    judges = Judges(Whisper(a.cache), Naturalness(), Quality())
    for language in a.languages:
        texts = lines(FILES[language])[: a.count]
        for voice in a.voices:
            judges.report(voice, language, texts, ours.speaker(voice))
        for voice in TEACHERS[language] if theirs else ():
            assert theirs is not None
            judges.report(f"teacher {voice}", language, texts, theirs.speaker(voice))


def lengths(a: argparse.Namespace, ours: Ours, _: Theirs | None) -> None:
    texts = lines("lengths")[:: max(1, 200 // a.count)]
    long = short = 0
    for i, text in enumerate(texts):
        spoken, words = len(ours.say(a.voices[0], text, "en", i, "cut0")) / RATE, len(text.split())
        long += spoken > LONGEST * words + 1.5
        short += spoken < SHORTEST * words
    print(f"{a.voices[0]}: of {len(texts)} texts of 1 to 40 words {long} run on, {short} break off", flush=True)


def paragraph(a: argparse.Namespace, ours: Ours, _: Theirs | None) -> None:
    text = " ".join(lines("paragraph"))
    heard = Whisper(a.cache)(ours.say(a.voices[0], text, "en", 0), "en")
    wrong, count = errors(text, heard, "en")
    print(f"{a.voices[0]}: ten sentences in one call, WER {100 * wrong / count:.1f} %: {heard}", flush=True)


def cloning(a: argparse.Namespace, ours: Ours, theirs: Theirs | None) -> None:
    """Same language and across: mean similarity to the stranger, and how often it is the nearest of all strangers."""
    if theirs is None:
        print("cloning: not measured, no --teacher")
        return
    identity, folder = Identity(), (a.out or a.cache) / "strangers"
    folder.mkdir(parents=True, exist_ok=True)
    text = lines("english")[0]
    own, voices = [], []
    for speaker in theirs.strangers[: a.count]:
        path = folder / f"{speaker.name}.wav"
        soundfile.write(path, theirs.say(speaker.style(theirs.voices, "en"), PROMPTS["en"], "en"), RATE)
        own.append(identity(theirs.say(speaker.style(theirs.voices, "en"), text, "en")))
        voices.append(ours.engine.load_voice(a.voices[0], path, PROMPTS["en"], "en"))
    for language in ("en", "zh"):
        sentence = lines(FILES[language])[1]
        said = np.array([identity(ours.say(v, sentence, language, i)) for i, v in enumerate(voices)])
        table = said @ np.array(own).T
        right = int((table.argmax(1) == np.arange(len(own))).sum())
        print(
            f"cloning, en -> {language}: similarity {table.diagonal().mean():.3f}, least {table.diagonal().min():.3f}, "
            f"nearest right {right} of {len(own)}", flush=True,
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", nargs="+", default=["demo", "demo-female", "demo-mandarin"])
    parser.add_argument("--set", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--languages", nargs="*", choices=list(FILES), default=["en", "zh"])
    parser.add_argument("--teacher", type=Path, help="the teacher's folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the audio here")
    parser.add_argument("--cache", type=Path, default=Path(".judges"), help="where a judge's files are put together")
    parser.add_argument("--count", type=int, default=200, help="at most so many sentences a set, or strangers")
    a = parser.parse_args()
    ours = Ours(a.voices[0], a.out, a.seed)
    theirs = Theirs(a.teacher) if a.teacher else None
    jobs = {"speech": speech, "lengths": lengths, "paragraph": paragraph, "cloning": cloning}
    for name in a.set:
        jobs[name](a, ours, theirs)


if __name__ == "__main__":
    main()
