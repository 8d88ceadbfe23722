"""The pure parts of the demo voice's trainer: corpus, labels, masks, error rates, file formats."""

from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts.train_demo_voice import (
    corpus,
    dequantise,
    export,
    gpt,
    hubert,
    phonemes,
    prose,
    speakers,
    speech,
    teacher,
    templates,
    tokenizer,
    vits,
)
from scripts.train_demo_voice.scoring import edit_distance, median_pitch


@pytest.mark.parametrize(
    ("phones", "spoken"),
    [("n i3", "ni3"), ("q van2", "quan2"), ("l v4", "lv4"), ("s i04", "si4"), ("zh ir1", "zhi1"), ("EE er2", "er2"),
     ("y En2", "yan2"), ("y E3", "ye3"), ("AA ai4", "ai4")],
)  # fmt: skip
def test_a_syllable_becomes_pinyin(phones: str, spoken: str) -> None:
    assert phonemes.syllable(*phones.split()) == spoken


def test_a_syllable_needs_a_final() -> None:
    with pytest.raises(ValueError, match="final"):
        phonemes.syllable("n", ".")


def test_readings_agree_by_their_consonants() -> None:
    ours = ["SH", "IY1", "OW1", "P", "AH0", "N", "D", "DH", "AH0", "W", "IH1", "N", "D", "OW0", "."]
    assert phonemes.english_agrees(ours, "ʃˌi ˈOpᵊnd ðə wˈɪndO.")
    assert not phonemes.english_agrees(ours, "ʃˌi klˈOzd ðə wˈɪndO.")


def test_accents_of_japanese_labels() -> None:
    """Two morae, accent on the first, then a phrase of one mora."""
    frame = "x^x-{}+x=x/A:{}+{}+{}/B:x/F:{}_x#x"
    silence = ("sil", "xx", "xx", "xx", "xx")
    morae = [("a", 0, 1, 2, 2), ("m", 1, 2, 1, 2), ("E", 1, 2, 1, 2), ("o", 0, 1, 1, 1)]
    labels = [frame.format(*values) for values in (silence, *morae, silence)]
    assert phonemes.accented_phones(labels) == ["a", "]", "m", "e", "UNK", "o"]


@pytest.mark.parametrize(
    ("language", "given", "wanted"),
    [
        ("en", 'He said--"Go; now!!"', "He said, Go, now!"),
        ("en", "Dial 911", ""),
        ("zh", "「你好」；再見…", "你好，再見。"),
        ("zh", "用GPU算", ""),
        ("ja", "（はい）、行く?", "はい、行く？"),
    ],
)
def test_prose_is_cleaned(language: str, given: str, wanted: str) -> None:
    assert prose.clean(given, language) == wanted


@pytest.mark.parametrize("language", corpus.LANGUAGES)
def test_patterns_are_filled(language: str) -> None:
    made = list(itertools.islice(templates.by_pattern(language, random.Random(1)), 200))
    assert not any("{" in text or "|" in text for text in made) and len(set(made)) > 150
    words = templates.word_strings(language, (["a", "b"], [1, 1]), 8, random.Random(1))
    assert all(1 <= sum(text.count(w) for w in "ab") <= 8 for text in itertools.islice(words, 100))


def test_gettext_catalogues_are_read(tmp_path: Path) -> None:
    original, translation = b"ctx\x04Hello", "你好".encode()
    place = 28 + 16
    head = struct.pack("<7I", 0x950412DE, 0, 1, 28, 36, 0, 0)
    table = struct.pack("<4I", len(original), place, len(translation), place + len(original) + 1)
    (tmp_path / "a.mo").write_bytes(head + table + original + b"\0" + translation + b"\0")
    assert list(prose.catalogue(tmp_path / "a.mo")) == [("Hello", "你好")]


def test_the_script_holds_the_rows_as_numbers(tmp_path: Path) -> None:
    rows = [corpus.Row("en", "Hi.", "hI.", ("HH", "AY1", ".")), corpus.Row("ja", "え？", "e?", ("e", "?"))]
    corpus.save(tmp_path / "rows.gz", rows)
    assert corpus.load(tmp_path / "rows.gz") == rows
    speaking = {"en": [1], "ja": [0, 2]}
    symbols = {"HH": 5, "AY1": 6, ".": 7, "e": 8, "?": 9}
    corpus.save_script(
        tmp_path / "s.npz", corpus.make_script(rows, {"h": 1, "I": 2, "e": 3, "?": 4}, symbols, speaking)
    )
    script = corpus.load_script(tmp_path / "s.npz")
    assert [t.tolist() for t in script.tokens] == [[1, 2], [3, 4]]
    assert [p.tolist() for p in script.phones] == [[5, 6, 7], [8, 9]] and script.language.tolist() == [0, 2]
    assert script.speaker[0] == 1 and script.speaker[1] in (0, 2)


def test_strangers_share_nothing_with_the_speakers() -> None:
    for speaker in speakers.load():
        assert not set(speakers.HELD_OUT) & {*speaker.timbre, *(n for p in speaker.prosody.values() for n in p)}
    strangers = speakers.strangers()
    assert len({s.name for s in strangers}) == 20
    assert all(set(s.timbre) <= set(speakers.HELD_OUT) for s in strangers)


def test_near_duplicates_are_left_out() -> None:
    voices = {
        n: np.full((510, 256), i, np.float32) for i, n in enumerate(("af_a", "am_b", "zf_c", "zm_d", "jf_e", "jm_f"))
    }
    found = list(speakers.candidates(list(voices), 12))
    assert len(found) == 12 and all(set(s.prosody) == {"en", "zh", "ja"} for s in found)
    assert found[2].prosody["zh"] == {"zf_c": 1.0} and found[2].style(voices, "ja")[0, -1] == 4
    kept = speakers.pick(found, lambda s: np.eye(2)[0] if s.name.startswith("mix") else np.eye(2)[1])
    assert len(kept) == 2


def test_a_language_that_is_misheard_is_left_to_others() -> None:
    them = [speakers.alone("af_a"), speakers.alone("zf_b")]
    kept = speakers.understood(them, lambda s, language: float(s.name == "zf_b" or language == "ja"))
    assert [(s.name, sorted(s.prosody)) for s in kept] == [("af_a", ["en", "zh"])]


def test_those_further_out_are_of_one_sex() -> None:
    names = ["af_a", "am_b", "zf_c", "zm_d", "jf_e", "jm_f"]
    for speaker in speakers.beyond(names, 8):
        assert len({name[1] for name in speaker.timbre}) == 1 and sum(speaker.timbre.values()) == 1.0


def test_labels_of_marks_go_to_their_sounds() -> None:
    vocab = {c: i + 1 for i, c in enumerate("ma↘ n.ˈ→↗↓")}
    tokens = np.array([vocab[c] for c in "ˈma↘n m."], np.uint8)
    classes, tones = speech.Labels(vocab).classes(tokens)
    m, a, n = (vocab[c] for c in "man")
    assert classes.tolist() == [m, m, a, a, n, n, m, 0]
    assert tones.tolist() == [4, 4, 4, 4, 0, 0, 0, 0]


def test_frame_labels_take_the_segment_under_the_frame_centre() -> None:
    # centres at 12.5, 32.5, 52.5 and 72.5 ms
    assert speech.frame_labels([0.03, 0.06], [3, 4], 32000 // 10).tolist() == [3, 4, 4, 0]


def test_resampling_keeps_a_tone() -> None:
    t = np.arange(24000) / 24000
    wide = speech.to_32k(np.sin(2 * np.pi * 1000 * t))
    wanted = np.sin(2 * np.pi * 1000 * np.arange(32000) / 32000)
    assert len(wide) == 32000 and np.abs(wide - wanted)[100:-100].max() < 1e-3


def test_batches_are_full_and_of_near_equal_lengths() -> None:
    made = list(speech.batches([7, 8, 9, 10], [100, 900, 110, 2500], room=2400))
    assert made == [[7, 9], [8], [10]]


def test_silence_around_speech_is_cut() -> None:
    audio = np.zeros(48000, np.float32)
    audio[20000:30000] = 0.1
    first, last = speech.audible(audio)
    assert 20000 - first == pytest.approx(speech.EDGES[0], abs=240)
    assert last - 30000 == pytest.approx(speech.EDGES[1], abs=240)
    assert speech.audible(np.zeros(4800, np.float32)) == (0, 0)


@pytest.mark.parametrize("length", [1, 3, 9, 30])
def test_relative_positions_fill_a_band(length: int) -> None:
    band = torch.randn(2, length, 9) * vits.band_mask(length, torch.device("cpu"))
    square = vits.band_to_square(band)
    wanted = torch.zeros(2, length, length)
    for i in range(length):
        for j in range(max(0, i - 4), min(length, i + 5)):
            wanted[:, i, j] = band[:, i, j - i + 4]
    assert torch.equal(square, wanted)
    assert torch.equal(vits.square_to_band(square) * vits.band_mask(length, torch.device("cpu")), band)


def test_gpt_mask_and_joined_rows() -> None:
    mask = gpt.attention_mask(torch.tensor([2]), 3, 2)[0, 0]
    assert mask.int().tolist() == [[1, 1, 0, 0, 0]] * 3 + [[1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    rows, count = gpt.join(torch.tensor([[1, 2, 0]]), torch.tensor([2]), torch.tensor([[7, 8]]), torch.tensor([1]), 5)
    assert rows.tolist() == [[1, 2, 7, 0, 0]] and count.tolist() == [3]


def test_penalty_pushes_seen_codes_down() -> None:
    logits = torch.tensor([2.0, -2.0, 2.0])
    assert gpt.penalise(logits, torch.tensor([True, True, False]), 2.0).tolist() == [1.0, -4.0, 2.0]


def test_kmeans_finds_separate_groups() -> None:
    torch.manual_seed(0)
    points = torch.cat([torch.randn(50, 2) * 0.01 + c for c in torch.tensor([[0.0, 0.0], [5.0, 5.0], [-5.0, 5.0]])])
    centres, counts = hubert.kmeans(points, 3)
    assert sorted(counts.tolist()) == [50, 50, 50]
    assert torch.equal(hubert.nearest(points, centres)[:50].unique(), hubert.nearest(points[:1], centres))


def test_encoder_state_has_hugging_face_names_and_weight_norm() -> None:
    encoder = hubert.Hubert(channels=16, hidden=32, layers=1, heads=2)
    state = encoder.hugging_face_state()
    g, v = state["encoder.pos_conv_embed.conv.weight_g"], state["encoder.pos_conv_embed.conv.weight_v"]
    assert g.shape == (1, 1, 128)
    restored = g * v / v.norm(dim=(0, 1), keepdim=True)
    torch.testing.assert_close(restored, encoder.encoder.pos_conv_embed.conv.weight.detach())  # type: ignore[union-attr]
    assert encoder(torch.zeros(1, 6400)).shape == (1, (6400 - 400) // 320 + 1, 32)


def test_speaking_gives_1280_samples_a_code() -> None:
    size = vits.Size(hidden=16, filter=16, style=16, initial=32, symbols=20, codes=8, code_width=12)
    model = vits.SoVITS(size).eval()
    with torch.no_grad():
        style = model.ref_enc(torch.rand(1, vits.STYLE_BINS, 20))
    assert model.speak([1, 2, 3], [4, 5], style).shape == (3 * 1280,)


def test_edit_distance() -> None:
    assert edit_distance("abc", "axcd") == 2
    assert edit_distance([], ["a"]) == 1


def test_median_pitch_of_a_tone_with_harmonics() -> None:
    t = np.arange(16000) / 16000
    tone = np.sum([np.sin(2 * np.pi * 125 * k * t) / k for k in range(1, 6)], axis=0)
    assert median_pitch(tone.astype(np.float32) * 0.3) == pytest.approx(125, rel=0.02)
    assert median_pitch(np.zeros(16000, np.float32)) == 0


def test_dequantised_weights_take_the_names_of_the_official_code() -> None:
    assert dequantise._module("/decoder/decoder/encode/conv1/Conv") == "decoder.encode.conv1"
    assert dequantise._module("/encoder/F0.1/conv1/ConvInteger") == "predictor.F0.1.conv1"
    assert dequantise._module("/encoder/text_encoder/cnn.0/cnn.0.0/Conv") == "text_encoder.cnn.0.0"
    gates = np.arange(8)[:, None]  # i, o, f, c, two rows each
    assert dequantise._gates(gates)[:, 0].tolist() == [0, 1, 4, 5, 6, 7, 2, 3]


def test_a_row_that_quantization_emptied_stays_zero() -> None:
    layer = vits.weight_norm(torch.nn.Linear(3, 2, bias=False))
    weight = np.array([[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]])
    missing = dequantise.fill(torch.nn.ModuleDict({"a": layer, "b": torch.nn.Linear(1, 1)}), {"a.weight": weight})
    assert missing == {"b.weight", "b.bias"}
    assert torch.equal(layer(torch.eye(3)).detach(), torch.from_numpy(weight).float().T)


def test_a_matrix_in_8_bits_is_unpacked() -> None:
    numbers = torch.arange(64, dtype=torch.uint8).repeat(2, 1)
    stored = {
        "a_weight": numbers.view(torch.uint32), "a_scales": torch.tensor([[0.5, 1.0], [1.0, 1.0]]),
        "a_biases": torch.tensor([[0.0, -1.0], [0.0, 0.0]]), "b.bias": torch.ones(3),
    }  # fmt: skip
    whole = export.unpacked(stored)
    assert set(whole) == {"a_weight", "b.bias"}
    assert whole["a_weight"][0, [1, 31, 32, 63]].tolist() == [0.5, 15.5, 31.0, 62.0]
    assert whole["a_weight"][1].tolist() == list(range(64))


def test_padding_changes_no_norm_over_time() -> None:
    """Two utterances of 3 and 2 frames, 4 values a frame: each is normalised over its own values alone."""
    it = object.__new__(teacher.Teacher)
    it._frames = torch.tensor([3.0, 2.0])
    layer = torch.nn.Module()
    layer.fc = torch.nn.Linear(5, 2 * 6)
    x, style = torch.randn(2, 6, 12), torch.randn(2, 5)
    made = it._norm(layer, x, style)
    gain, shift = layer.fc(style)[..., None].chunk(2, 1)
    for i, end in enumerate((12, 8)):
        alone = torch.nn.functional.instance_norm(x[i : i + 1, :, :end])
        torch.testing.assert_close(made[i : i + 1, :, :end], (1 + gain[i]) * alone + shift[i])
    assert not made[1, :, 8:].any()


def test_padding_changes_no_recurrent_layer() -> None:
    layer = torch.nn.LSTM(3, 2, batch_first=True, bidirectional=True)
    x = torch.randn(2, 5, 3)
    made = teacher._recurrent(layer, x, torch.tensor([5, 2]))
    assert made.shape == (2, 5, 4)
    torch.testing.assert_close(made[1:, :2], layer(x[1:, :2])[0])


def test_what_spoils_a_recording_leaves_its_length() -> None:
    audio = torch.randn(3, 800)
    spoiled = tokenizer.spoil(audio)
    assert spoiled.shape == audio.shape and not torch.equal(spoiled, audio)
