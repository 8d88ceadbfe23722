"""Corpus rows -> speech with frame labels, from the free synthesisers that Debian packages.

English is spoken by flite (rms, awb), by festival's HTS voice slt (32 kHz) and, for more timbres, by
espeak-ng; Mandarin by espeak-ng from the pinyin of our own phones. Each synthesiser also says when each
phone ends: those times become the labels that train the tokenizer.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import soundfile
import soxr

from .corpus import Row, split_words

SAMPLE_RATE = 32000
FRAME_RATE = 50

# Phone classes of the frame labels. "pau" is silence; the first line is the set of flite and festival,
# the second what espeak-ng's Mandarin adds.
PHONES = split_words(
    "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh "
    "tS; tS;h S; ts. ts.h s. z. ts tsh i. i[ iA iE io iou iu y yE y& y@ yi yu ua u@ uo uA uai uei A o o- ong aI"
)
PHONE_ID = {p: i for i, p in enumerate(PHONES)}
# espeak-ng's Mandarin phonemes that sound like a phone of the first line.
_MANDARIN = {
    "p": "b", "ph": "p", "t": "d", "th": "t", "k": "g", "kh": "k", "X": "hh", "j": "y", ";": "y", "N": "ng",
    "i": "iy", "u": "uw", "@": "ax", "@r": "er", "ai": "ay", "Au": "aw", "ei": "ey", "ou": "ow", "a": "aa",
    "A": "aa", "E": "eh", "o": "ao",
}  # fmt: skip
# ARPABET -> espeak-ng's English phonemes, so that it says exactly the phones of the corpus.
_ARPABET = {
    "AA": "A:", "AE": "a", "AH": "V", "AO": "O:", "AW": "aU", "AY": "aI", "B": "b", "CH": "tS", "D": "d",
    "DH": "D", "EH": "E", "ER": "3:", "EY": "eI", "F": "f", "G": "g", "HH": "h", "IH": "I", "IY": "i:",
    "JH": "dZ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "N", "OW": "oU", "OY": "OI", "P": "p", "R": "r",
    "S": "s", "SH": "S", "T": "t", "TH": "T", "UH": "U", "UW": "u:", "V": "v", "W": "w", "Y": "j", "Z": "z",
    "ZH": "Z",
}  # fmt: skip
_ENGLISH = {v: k.lower() for k, v in _ARPABET.items()} | {
    "@": "ax", "3": "er", "t2": "t", "t#": "t", "l#": "l", ";": "y", "aI@": "ay", "aI3": "ay", "aU@": "aw",
}  # fmt: skip


@dataclass(frozen=True)
class Speaker:
    """One timbre: a synthesiser's voice, played `rate` times as fast (pitch and formants move with it)."""

    name: str
    engine: str
    voice: str
    language: str
    share: float
    rate: float = 1.0


SPEAKERS = (
    Speaker("rms", "flite", "rms", "en", 0.44),
    Speaker("slt", "festival", "cmu_us_slt_arctic_hts", "en", 0.26),
    Speaker("awb", "flite", "awb", "en", 0.10),
    Speaker("rms-high", "flite", "rms", "en", 0.04, 1.15),
    Speaker("slt-low", "festival", "cmu_us_slt_arctic_hts", "en", 0.04, 0.88),
    Speaker("awb-high", "flite", "awb", "en", 0.04, 1.22),
    Speaker("espeak-m", "espeak", "en-us", "en", 0.04),
    Speaker("espeak-f", "espeak", "en-us+f2", "en", 0.04),
    Speaker("espeak-m", "espeak", "cmn-latn-pinyin", "zh", 0.26),
    Speaker("espeak-f", "espeak", "cmn-latn-pinyin+f2", "zh", 0.50),
    Speaker("espeak-m3", "espeak", "cmn-latn-pinyin+m3", "zh", 0.08),
    Speaker("espeak-f4", "espeak", "cmn-latn-pinyin+f4", "zh", 0.08),
    Speaker("espeak-m-low", "espeak", "cmn-latn-pinyin", "zh", 0.08, 0.9),
)
SPEAKER_NAMES = tuple(dict.fromkeys(s.name for s in SPEAKERS))


@dataclass
class Spoken:
    """One utterance: int16 at 32 kHz; phone classes and tones (0 none, 1 to 5) at 50 frames a second."""

    pcm: np.ndarray
    labels: np.ndarray
    tones: np.ndarray


def frame_labels(ends: Sequence[tuple[float, int]], samples: int) -> np.ndarray:
    """(end in seconds, class) of successive segments -> uint8 class of each 20 ms frame of `samples` at 32 kHz.

    Frame t is centred where the encoder's is: on sample 320 t + 200 at 16 kHz.
    """
    count = max((samples // 2 - 400) // 320 + 1, 1)
    centres = (np.arange(count) * 320 + 200) / 16000
    bounds = np.maximum.accumulate(np.array([e for e, _ in ends])) if ends else np.zeros(0)
    classes = np.array([c for _, c in ends] + [0], np.uint8)
    return classes[np.searchsorted(bounds, centres, side="right")]


def _finish(wave: np.ndarray, rate: int, speed: float, ends: list[tuple[float, int, int]], pad: float) -> Spoken:
    """Resample to 32 kHz, set the level, pad with `pad` seconds of silence on both sides, label the frames."""
    y = soxr.resample(wave.astype(np.float32) / 32768, rate * speed, SAMPLE_RATE)
    level = np.sqrt(np.mean(y**2)) + 1e-6
    y = y * min(0.08 / level, 0.9 / (np.abs(y).max() + 1e-6))
    silence = np.zeros(int(pad * SAMPLE_RATE), np.float32)
    y = np.concatenate([silence, y, silence])
    shifted = [(pad, 0, 0)] + [(e / speed + pad, c, t) for e, c, t in ends]
    return Spoken(
        (y * 32767).astype(np.int16),
        frame_labels([(e, c) for e, c, _ in shifted], len(y)),
        frame_labels([(e, t) for e, _, t in shifted], len(y)),
    )


def _flite(speaker: Speaker, row: Row, folder: Path) -> Spoken:
    path = folder / "flite.wav"
    command = ["flite", "-voice", speaker.voice, "-psdur", "-t", row.say, "-o", str(path)]
    if speaker.rate != 1:
        command += ["--setf", f"duration_stretch={speaker.rate}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ends = [(float(e), PHONE_ID.get(p, 0), 0) for p, _, e in (item.rpartition(":") for item in out.split())]
    wave, rate = soundfile.read(path, dtype="int16")
    return _finish(wave, rate, speaker.rate, ends, 0.0)


def _festival(speaker: Speaker, rows: Sequence[Row], folder: Path) -> list[Spoken]:
    """A whole chunk in one process: loading the voice costs more than speaking a sentence."""
    lines = [f"(voice_{speaker.voice})"]
    lines += [
        "(define (say text base) (let ((u (utt.synth (eval (list 'Utterance 'Text text)))) "
        '(f (fopen (string-append base ".lab") "w"))) (utt.save.wave u (string-append base ".wav") \'riff) '
        '(mapcar (lambda (s) (format f "%s %f\\n" (item.name s) (item.feat s \'end))) '
        "(utt.relation.items u 'Segment)) (fclose f)))"
    ]
    lines += [f'(say "{row.say}" "{folder}/{i}")' for i, row in enumerate(rows)]
    script = folder / "say.scm"
    script.write_text("\n".join(lines))
    subprocess.run(["festival", "-b", str(script)], capture_output=True, check=True)
    spoken = []
    for i in range(len(rows)):
        wave, rate = soundfile.read(folder / f"{i}.wav", dtype="int16")
        fields = (line.split() for line in (folder / f"{i}.lab").read_text().splitlines())
        ends = [(float(e), PHONE_ID.get(p, 0), 0) for p, e in fields]
        spoken.append(_finish(wave, rate, speaker.rate, ends, 0.0))
        (folder / f"{i}.wav").unlink()
    return spoken


class _EventName(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_ms", ctypes.c_int), ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p), ("id", _EventName),
    )  # fmt: skip


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))
_SYNCHRONOUS, _PHONEME_EVENTS, _PHONEME = 2, 1, 7
_UTF8, _PHONEME_TEXT = 1, 0x100


class Espeak:
    """libespeak-ng through ctypes: the program itself does not tell phoneme times."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libespeak-ng.so.1")
        self.rate: int = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        if self.rate <= 0:
            raise RuntimeError("libespeak-ng does not start: install espeak-ng and espeak-ng-data.")
        self._pcm: list[bytes] = []
        self._events: list[tuple[float, str]] = []
        self._callback = _CALLBACK(self._take)  # kept alive as long as the library may call it
        self._lib.espeak_SetSynthCallback(self._callback)

    def _take(self, wave: int | None, count: int, events: ctypes._Pointer[_Event]) -> int:
        if wave and count > 0:
            self._pcm.append(ctypes.string_at(wave, 2 * count))
        i = 0
        while events[i].type:
            if events[i].type == _PHONEME:
                self._events.append((events[i].audio_ms / 1000, events[i].id.string.decode()))
            i += 1
        return 0

    def say(self, voice: str, text: str) -> tuple[np.ndarray, list[tuple[float, str]]]:
        """int16 samples and (start in seconds, phoneme) of `text`; phonemes may stand in [[ ]]."""
        self._pcm.clear()
        self._events.clear()
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice!r}: install espeak-ng-data.")
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8 | _PHONEME_TEXT, None, None)
        self._lib.espeak_Synchronize()
        return np.frombuffer(b"".join(self._pcm), np.int16), list(self._events)


_espeak: Espeak | None = None


def _arpabet_text(phones: Sequence[str]) -> str:
    """Phones with stress and punctuation -> espeak-ng's phoneme input, clause by clause."""
    out = []
    for phone in phones:
        match = re.fullmatch(r"([A-Z]+)([012]?)", phone)
        if match and match[1] in _ARPABET:
            sound = "@" if match[0] == "AH0" else _ARPABET[match[1]]
            out.append({"1": "'", "2": ","}.get(match[2], "") + sound)
        elif phone in ",.?!":
            out.append("]]" + phone + " [[")
    return ("[[" + "".join(out) + "]]").replace("[[]]", "")


def _espeak_say(speaker: Speaker, row: Row) -> Spoken | None:
    """None where espeak-ng stays silent (it rarely does, on a lone interjection)."""
    global _espeak
    _espeak = _espeak or Espeak()
    mandarin = row.language == "zh"
    wave, events = _espeak.say(speaker.voice, row.say if mandarin else _arpabet_text(row.phones))
    if not events:
        return None
    tones = [int(t) for t in re.findall(r"[a-z]([1-5])", row.say)] if mandarin else []
    names = _MANDARIN if mandarin else _ENGLISH
    ends: list[tuple[float, int, int]] = []
    syllable, inside = 0, False
    for (_, name), end in zip(events, [s for s, _ in events[1:]] + [len(wave) / _espeak.rate], strict=True):
        boundary = name.startswith("_")
        if boundary and inside:
            syllable += 1
        inside = not boundary
        label = 0 if boundary else PHONE_ID.get(names.get(name, name), -1)
        if label < 0:
            raise KeyError(f"espeak-ng's phoneme {name!r} has no class")
        ends.append((end, label, 0 if boundary or syllable >= len(tones) else tones[syllable]))
    if mandarin and syllable != len(tones):
        ends = [(e, c, 0) for e, c, _ in ends]  # pinyin and phonemes disagree: no tone is better than a wrong one
    return _finish(wave, _espeak.rate, speaker.rate, ends, 0.08)


def speak_chunk(job: tuple[int, list[Row]]) -> Sequence[Spoken | None]:
    """All rows of one chunk by the same speaker."""
    speaker = SPEAKERS[job[0]]
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        if speaker.engine == "festival":
            return _festival(speaker, job[1], folder)
        if speaker.engine == "flite":
            return [_flite(speaker, row, folder) for row in job[1]]
        return [_espeak_say(speaker, row) for row in job[1]]


def assign(rows: Sequence[Row], seed: int = 7) -> np.ndarray:
    """An index into SPEAKERS for every row: the row's own, if it names one, else drawn by the shares."""
    rng = np.random.default_rng(seed)
    out = np.zeros(len(rows), np.int64)
    for i, row in enumerate(rows):
        fits = [k for k, s in enumerate(SPEAKERS) if s.language == row.language and row.speaker in ("", s.name)]
        weights = np.array([SPEAKERS[k].share for k in fits])
        out[i] = rng.choice(fits, p=weights / weights.sum())
    return out


SHARD = 4000
LONGEST = 60 * SAMPLE_RATE  # samples of an utterance that is kept


def synthesise(rows: Sequence[Row], out: Path, processes: int, shards: Sequence[int] = (), chunk: int = 16) -> None:
    """Speak all rows and write `out`/NNN.npz: flat samples, labels, tones, lengths, speakers, row numbers.

    A shard holds 4,000 rows; `shards` names those to make, none meaning all.
    """
    out.mkdir(parents=True, exist_ok=True)
    voice = assign(rows)
    with Pool(processes) as pool:
        for number in shards or range(-(-len(rows) // SHARD)):
            index = np.arange(number * SHARD, min((number + 1) * SHARD, len(rows)))
            order = index[np.argsort(voice[index], kind="stable")]
            jobs, parts = [], []
            for k in np.unique(voice[order]):
                mine = order[voice[order] == k]
                for i in range(0, len(mine), chunk):
                    parts.append(mine[i : i + chunk])
                    jobs.append((int(k), [rows[j] for j in mine[i : i + chunk]]))
            # the slow synthesiser first, so that no worker waits for it at the end
            rank = sorted(range(len(jobs)), key=lambda j: SPEAKERS[jobs[j][0]].engine != "festival")
            results = [u for us in pool.imap(speak_chunk, [jobs[j] for j in rank], chunksize=1) for u in us]
            numbers = np.concatenate([parts[j] for j in rank])
            # once in some 80,000 utterances a synthesiser talks on for hours
            fine = [u is not None and len(u.pcm) <= LONGEST for u in results]
            spoken = [u for u, keep in zip(results, fine, strict=True) if u is not None and keep]
            done = numbers[np.array(fine)]
            names = [SPEAKER_NAMES.index(SPEAKERS[voice[j]].name) for j in done]
            temporary = out / f"{number:03d}.tmp.npz"
            np.savez(
                temporary,
                pcm=np.concatenate([u.pcm for u in spoken]),
                labels=np.concatenate([u.labels for u in spoken]),
                tones=np.concatenate([u.tones for u in spoken]),
                samples=np.array([len(u.pcm) for u in spoken]),
                frames=np.array([len(u.labels) for u in spoken]),
                speaker=np.array(names),
                row=done,
            )
            temporary.rename(out / f"{number:03d}.npz")
            print(f"speech: shard {number}, {sum(len(u.pcm) for u in spoken) / SAMPLE_RATE / 3600:.2f} h", flush=True)
