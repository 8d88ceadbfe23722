"""The pure parts of the demo voice's trainer: corpus, labels, masks, error rates, file formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scripts.train_demo_voice import corpus, gpt, hubert, vits
from scripts.train_demo_voice.scoring import edit_distance, median_pitch
from scripts.train_demo_voice.speech import PHONE_ID, frame_labels


@pytest.mark.parametrize(
    ("phones", "spoken"),
    [
        ("n i3 h ao3 .", "ni3 hao3."),
        ("q van2 y v4 l v4", "quan2 yu4 lv4"),
        ("zh ir1 s i04 EE er2", "zhi1 si4 er2"),
        ("y En2 y E3 , AA ai4 !", "yan2 ye3, ai4!"),
    ],
)
def test_pinyin_is_what_the_synthesiser_reads(phones: str, spoken: str) -> None:
    assert corpus.pinyin(phones.split()) == spoken


def test_pinyin_refuses_an_initial_without_a_final() -> None:
    with pytest.raises(ValueError, match="final"):
        corpus.pinyin(["n", "."])


def test_rows_leave_out_what_has_no_reading(tmp_path: Path) -> None:
    row = corpus.make_row("你好。", "zh", lambda text, language: ["n", "i3", "h", "ao3", "."])
    assert row is not None and row.say == "ni3 hao3."
    assert corpus.make_row("爷", "zh", lambda text, language: ["y", "E2"]) is not None
    assert corpus.make_row("OK。", "zh", lambda text, language: ["OW1", "K", "EY1", "."]) is None
    assert corpus.make_row("瓧", "zh", lambda text, language: ["UNK"]) is None
    corpus.save(tmp_path / "rows.gz", [row])
    assert corpus.load(tmp_path / "rows.gz") == [row]


def test_frame_labels_take_the_segment_under_the_frame_centre() -> None:
    a, b = PHONE_ID["aa"], PHONE_ID["b"]
    labels = frame_labels([(0.03, a), (0.06, b)], 32000 // 10)
    # centres at 12.5, 32.5, 52.5 and 72.5 ms
    assert labels.tolist() == [a, b, b, 0]


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
