"""Turn the exported files into the shipped voices: one set of weights, three references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import soundfile
import soxr

from gpt_sovits_mlx.voices.format import Reference

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
    """`work`/export and fresh references -> `voices`/demo with the weights, its siblings with recordings only.

    The Mandarin speaker says the Chinese sentences of the English speakers.
    """
    from gpt_sovits_mlx.convert import VoiceRecipe, convert_cnhubert, convert_voice

    paths = write_references(work / "references")
    language, text = REFERENCES[VOICES["demo"][0]]
    export, demo = work / "export", voices / "demo"
    recipe = VoiceRecipe(
        export / "demo.ckpt", export / "demo.pth", paths["demo"], text, language, dtype="float16", licence=LICENCE,
        defaults=DEFAULTS, encoders={"cnhubert": "cnhubert.safetensors", "roberta": None},
    )  # fmt: skip
    made = convert_voice(recipe, output=demo, overwrite=True).voice
    made.reference.audio.unlink()
    convert_cnhubert(export / "cnhubert", demo / "cnhubert.safetensors", dtype="float16")
    for name, (speaker, _, who) in VOICES.items():
        language, text = REFERENCES[speaker]
        (voices / name).mkdir(parents=True, exist_ok=True)
        replace(
            made,
            path=voices / name,
            name=name,
            reference=Reference(_smaller(paths[name], voices / name / "reference.flac"), text, language),
            card=CARD.format(speaker=who, ability=ABILITY[name]),
            companions={"zh": voices / "demo-mandarin"} if language == "en" else {},
        ).write()


def _smaller(recording: Path, output: Path) -> Path:
    """The recording in half the space."""
    samples, rate = soundfile.read(recording, dtype="int16")
    soundfile.write(output, samples, rate, subtype="PCM_16")
    return output
