"""Turn the exported files into the shipped voices: one set of weights, several references."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from gpt_sovits_mlx.voices.format import Reference

from . import package, phonemes, speakers, teacher


@dataclass(frozen=True)
class Shipped:
    """A voice in the box: the teacher's voice that says its reference, in which language, and who that is."""

    speaker: str
    language: str
    who: str


VOICES = {
    "demo": Shipped("am_michael", "en", "a man, American English"),
    "demo-female": Shipped("af_heart", "en", "a woman, American English"),
    "demo-mandarin": Shipped("zf_xiaoxiao", "zh", "a woman, Mandarin"),
    "demo-mandarin-male": Shipped("zm_yunxi", "zh", "a man, Mandarin"),
    "demo-british": Shipped("bm_lewis", "en", "a man, British English"),
    "demo-british-female": Shipped("bf_alice", "en", "a woman, British English"),
}
TEXTS = {
    "en": "Good evening. The lamps are lit, the tea is warm, and there is plenty of time to talk.",
    "zh": "晚上好，灯已经亮了，茶还是热的，我们慢慢聊吧。",
}
DEFAULTS = {"top_k": 1, "temperature": 1.0, "repetition_penalty": 1.0}
CARD = (
    "A small GPT-SoVITS v2 model trained from nothing by scripts/train_demo_voice on speech that the synthesiser "
    "Kokoro-82M made; no human recording, no weights of others. The reference is Kokoro's voice {speaker}, {who}. "
    "What strangers' judges say of it stands in the README. See NOTICE for Kokoro's licence."
)
LICENCE = "MIT; learnt from Kokoro-82M, Apache-2.0, see NOTICE"


def write_references(folder: Path, out: Path) -> dict[str, Path]:
    """Let the teacher in `folder` say each voice's reference, at its own rate."""
    out.mkdir(parents=True, exist_ok=True)
    spoken, read = teacher.Teacher(folder, "cpu"), phonemes.readers()
    voices, vocab = speakers.read_voices(folder), teacher.vocabulary(folder)
    paths = {}
    for name, voice in VOICES.items():
        reading = read[voice.language](TEXTS[voice.language])
        if reading is None:
            raise RuntimeError(f"{name}: its reference is not read alike by the teacher and by us")
        tokens = np.array([vocab[c] for c in reading.said if c in vocab], np.uint8)
        ((audio, _),) = spoken.say([tokens], [voices[voice.speaker]])
        paths[name] = out / f"{name}.wav"
        soundfile.write(paths[name], audio * (0.5 / np.abs(audio).max()), teacher.RATE, subtype="PCM_16")
    return paths


def write(work: Path, folder: Path, voices: Path) -> None:
    """`work`/export and fresh references -> `voices`/demo with the weights, its siblings with recordings only."""
    paths, first = write_references(folder, work / "references"), VOICES["demo"]
    made = package.convert(
        work / "export", paths["demo"], TEXTS[first.language], first.language, voices / "demo", defaults=DEFAULTS,
        licence=LICENCE, card=CARD.format(speaker=first.speaker, who=first.who),
    )  # fmt: skip
    made.reference.audio.unlink()
    for name, voice in VOICES.items():
        (voices / name).mkdir(parents=True, exist_ok=True)
        recording = _smaller(paths[name], voices / name / "reference.flac")
        replace(
            made,
            path=voices / name,
            name=name,
            reference=Reference(recording, TEXTS[voice.language], voice.language),
            card=CARD.format(speaker=voice.speaker, who=voice.who),
        ).write()
    for name in VOICES:
        package.enrol(voices / name)


def _smaller(recording: Path, output: Path) -> Path:
    """The recording in half the space."""
    samples, rate = soundfile.read(recording, dtype="int16")
    soundfile.write(output, samples, rate, subtype="PCM_16")
    return output
