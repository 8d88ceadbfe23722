"""Measure the shipped voices through the engine: words understood, endings, pitch, Mandarin syllables.

    PYTHONPATH=python python scripts/evaluate_demo_voice.py                       # all sets
    PYTHONPATH=python python scripts/evaluate_demo_voice.py --set english lengths --out spoken/
    PYTHONPATH=python python scripts/evaluate_demo_voice.py --recogniser W/recogniser.pt --set mandarin

English is heard by pocketsphinx's US English model. Mandarin syllables are read by a recogniser that
scripts/train_demo_voice trains on the synthesiser's own speech (stage `recogniser`), and only measured against
that synthesiser's sentences. None of the sentences was trained on.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.train_demo_voice.scoring import edit_distance, median_pitch, word_error_rate

from gpt_sovits_mlx import GPTSoVITSEngine, SynthesisResult
from gpt_sovits_mlx.voices.voice import Voice

SENTENCES = Path(__file__).resolve().parent / "demo_voice_sentences"
SETS = ("english", "paragraph", "lengths", "pitch", "mandarin")
RATE = 16000
# An utterance is taken as run on, or as empty, beyond these many seconds a word.
LONGEST, SHORTEST = 1.0, 0.1


def lines(name: str) -> list[str]:
    return (SENTENCES / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]


def to_16k(result: SynthesisResult) -> np.ndarray:
    return soxr.resample(result.audio, result.sample_rate, RATE)


class Evaluation:
    def __init__(self, voice: str, seed: int, out: Path | None, count: int) -> None:
        self.engine = GPTSoVITSEngine()
        self.voice, self.seed, self.out, self.count = voice, seed, out, count

    def speak(
        self, name: str, texts: Sequence[str], voice: str, language: str, split: str = "cut5"
    ) -> list[SynthesisResult]:
        results = []
        for i, text in enumerate(texts):
            result = self.engine.synthesize(text, language, self._voice(voice), seed=self.seed + i, split_method=split)
            if self.out:
                self.out.mkdir(parents=True, exist_ok=True)
                soundfile.write(self.out / f"{name}-{voice}-{i:03d}.wav", result.audio, result.sample_rate)
            results.append(result)
        return results

    def _voice(self, name: str) -> Voice:
        return self.engine.load_voice(name)

    def english(self) -> None:
        texts = lines("english")[: self.count]
        for voice in (self.voice, "demo-female"):
            results = self.speak("english", texts, voice, "en")
            rate, heard = word_error_rate([to_16k(r) for r in results], texts)
            print(f"english, {voice}: WER {100 * rate:.1f} % on {len(texts)} sentences", flush=True)
            for text, said in zip(texts, heard, strict=True):
                print(f"    {text} -> {said}")

    def paragraph(self) -> None:
        text = " ".join(lines("paragraph"))
        result = self.speak("paragraph", [text], self.voice, "en")[0]
        rate, heard = word_error_rate([to_16k(result)], [text])
        print(f"ten sentences in one call, {self.voice}: WER {100 * rate:.1f} %, {result.duration:.1f} s: {heard[0]}")

    def lengths(self) -> None:
        texts = lines("lengths")[:: max(1, 200 // self.count)] if self.count < 200 else lines("lengths")
        results = self.speak("lengths", texts, self.voice, "en", "cut0")
        words = [len(t.split()) for t in texts]
        # the pause behind a sentence is no speech
        spoken = [r.duration - 0.3 for r in results]
        endless = [t for t, r in zip(texts, results, strict=True) if any(s.tokens >= 1400 for s in r.sentences)]
        long = sum(s > LONGEST * w + 1.5 for s, w in zip(spoken, words, strict=True))
        short = sum(s < SHORTEST * w for s, w in zip(spoken, words, strict=True))
        rate, _ = word_error_rate([to_16k(r) for r in results], texts)
        print(
            f"{len(texts)} sentences of 1 to 40 words: {len(endless)} did not end, {long} too long, {short} too short,"
            f" WER {100 * rate:.1f} %"
        )

    def pitch(self) -> None:
        for voice in (self.voice, "demo-female", "demo-mandarin"):
            folder = self._voice(voice).folder
            samples, rate = soundfile.read(folder.reference.audio, dtype="float32")
            wanted = median_pitch(soxr.resample(samples, rate, RATE))
            language = "zh" if folder.reference.language == "zh" else "en"
            texts = lines("mandarin" if language == "zh" else "english")[: min(10, self.count)]
            said = [to_16k(r) for r in self.speak("pitch", texts, voice, language)]
            got = median_pitch(np.concatenate(said))
            print(f"{voice}: median F0 {got:.0f} Hz, reference {wanted:.0f} Hz ({100 * (got / wanted - 1):+.0f} %)")

    def mandarin(self, recogniser: Path | None) -> None:
        if recogniser is None:
            print("mandarin: not measured, no --recogniser")
            return
        from scripts.train_demo_voice.recogniser import Recogniser

        reader = Recogniser.load(recogniser)
        frontend = self._voice("demo-mandarin").frontend
        texts = lines("mandarin")[: self.count]
        for voice in ("demo-mandarin", self.voice):
            errors = total = 0
            for text, result in zip(texts, self.speak("mandarin", texts, voice, "zh"), strict=True):
                pieces = frontend.utterances(text, "zh", "cut5")
                wanted = syllables([p for piece in pieces for p in piece.phones])
                errors += edit_distance(wanted, syllables(reader.read(to_16k(result))))
                total += len(wanted)
            print(f"mandarin, {voice}: syllable error rate {100 * errors / total:.1f} % on {len(texts)} sentences")


def syllables(phones: Sequence[str]) -> list[str]:
    """Phones of initials and toned finals -> one string a syllable; punctuation falls away."""
    letters = [p for p in phones if re.fullmatch(r"[A-Za-z]+[0-5]*", p)]
    return re.findall(r"\S+ \S+?[1-5](?= |$)", " ".join(letters))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", default="demo")
    parser.add_argument("--set", nargs="*", choices=SETS, default=list(SETS))
    parser.add_argument("--recogniser", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the audio here")
    parser.add_argument("--count", type=int, default=200, help="at most so many sentences a set")
    a = parser.parse_args()
    it = Evaluation(a.voice, a.seed, a.out, a.count)
    jobs: dict[str, Callable[[], None]] = {
        "english": it.english, "paragraph": it.paragraph, "lengths": it.lengths, "pitch": it.pitch,
        "mandarin": lambda: it.mandarin(a.recogniser),
    }  # fmt: skip
    for name in a.set:
        jobs[name]()


if __name__ == "__main__":
    main()
