"""Turn the exported files into the shipped voices: one set of weights, three references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import soundfile
import soxr

from . import corpus, speech

# Each shipped voice: its speaker, the rate of its recording, and who speaks.
VOICES = {
    "demo": ("rms", 16000, "flite's voice rms, a man, American English"),
    "demo-female": ("slt", 32000, "festival's HTS voice slt, a woman, American English"),
    "demo-mandarin": ("espeak-f", 22050, "espeak-ng's Mandarin, variant f2, a woman's voice"),
}
REFERENCES = {
    "rms": ("en", "Good evening. The lamps are lit, the tea is warm, and there is plenty of time to talk."),
    "slt": ("en", "Good evening. The lamps are lit, the tea is warm, and there is plenty of time to talk."),
    "espeak-f": ("zh", "晚上好，灯已经亮了，茶还是热的，我们慢慢聊吧。"),
}
DEFAULTS = {"top_k": 1, "temperature": 1.0, "repetition_penalty": 1.0}
CARD = (
    "A small GPT-SoVITS v2 model trained from nothing on synthetic speech by scripts/train_demo_voice; no human "
    "recording, no published weights. The reference is {speaker}. {ability} The sound is that of the synthesisers it "
    "learnt from. See NOTICE for the synthesisers' licences."
)
ABILITY = {
    "demo": "It speaks plain English, about one word in thirty misheard by a recogniser; Chinese sentences are spoken "
    "by demo-mandarin, since this speaker's own Mandarin cannot be understood.",
    "demo-female": "It speaks plain English, about one word in eight misheard by a recogniser; Chinese sentences are "
    "spoken by demo-mandarin.",
    "demo-mandarin": "It speaks Mandarin, about one syllable in thirty misheard by a recogniser trained on the same "
    "synthesiser.",
}
LICENCE = "MIT; synthesisers' notices in NOTICE"


def write_references(out: Path) -> dict[str, Path]:
    """Let each speaker say its reference."""
    out.mkdir(parents=True, exist_ok=True)
    phonemise = corpus.front_end()
    paths = {}
    for name, (speaker, rate, _) in VOICES.items():
        language, text = REFERENCES[speaker]
        row = corpus.make_row(text, language, phonemise, speaker)
        places = enumerate(speech.SPEAKERS)
        place = next(i for i, s in places if (s.name, s.language) == (speaker, language))
        spoken = speech.speak_chunk((place, [row] if row else []))[0]
        if spoken is None:
            raise RuntimeError(f"{speaker} does not speak its reference")
        paths[name] = out / f"{name}.wav"
        samples = soxr.resample(spoken.pcm, speech.SAMPLE_RATE, rate)
        soundfile.write(paths[name], samples, rate, subtype="PCM_16")
    return paths


def write(work: Path, voices: Path) -> None:
    """`work`/export and fresh references -> `voices`/demo with the weights, its siblings with recordings only."""
    from gpt_sovits_mlx.convert import convert_cnhubert
    from gpt_sovits_mlx.convert.voice import convert_voice

    paths = write_references(work / "references")
    language, text = REFERENCES[VOICES["demo"][0]]
    export = work / "export"
    made = convert_voice(
        export / "demo.ckpt", export / "demo.pth", paths["demo"], text, language, voices / "demo",
        encoders={"cnhubert": "cnhubert.safetensors", "roberta": None}, defaults=DEFAULTS, languages=None,
        licence=LICENCE, card=CARD.format(speaker=VOICES["demo"][2], ability=ABILITY["demo"]), dtype="float16",
        overwrite=True,
    )  # fmt: skip
    (voices / "demo" / "reference.wav").unlink()
    _add_companion(
        voices / "demo", made.voice | {"reference": _recording(voices / "demo", paths["demo"], text, language)}
    )
    convert_cnhubert(export / "cnhubert", voices / "demo" / "cnhubert.safetensors", dtype="float16")
    for name, (speaker, _, who) in VOICES.items():
        if name == "demo":
            continue
        folder = voices / name
        folder.mkdir(parents=True, exist_ok=True)
        language, text = REFERENCES[speaker]
        voice = {
            **made.voice,
            "name": name,
            "weights": "demo",
            "reference": _recording(folder, paths[name], text, language),
            "card": CARD.format(speaker=who, ability=ABILITY[name]),
        }
        if language == "en":
            _add_companion(folder, voice)
        else:
            _write(folder, voice)


def _recording(folder: Path, recording: Path, text: str, language: str) -> dict[str, Any]:
    """The recording in half the space, as a voice's reference."""
    samples, rate = soundfile.read(recording, dtype="int16")
    soundfile.write(folder / "reference.flac", samples, rate, subtype="PCM_16")
    return {"audio": "reference.flac", "text": text, "language": language, "auxiliary": []}


def _add_companion(folder: Path, voice: dict[str, Any]) -> None:
    """Let the Mandarin speaker say the Chinese sentences of an English speaker."""
    _write(folder, voice | {"companions": {"zh": "demo-mandarin"}})


def _write(folder: Path, voice: dict[str, Any]) -> None:
    (folder / "voice.json").write_text(json.dumps(voice, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
