"""Every training stage takes a few steps on noise, on the CPU: shapes, gradients, files, resuming."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts.train_demo_voice import codes, corpus, gpt, parallel, sovits, speech, tokenizer, vits
from scripts.train_demo_voice.data import SpeechData

SPEAKERS = 2
GPT_SIZE = gpt.Size(hidden=16, layers=1, heads=2)
SIZE = vits.Size(hidden=16, filter=16, style=16, initial=32)


def make_data(folder: Path) -> SpeechData:
    """Ten utterances of noise, 2.3 s each, by two speakers."""
    rng = np.random.default_rng(0)
    count = 10
    script = corpus.Script(
        np.zeros(count, np.uint8), np.arange(count, dtype=np.int16) % SPEAKERS,
        [rng.integers(1, 170, 12).astype(np.uint8) for _ in range(count)],
        [rng.integers(1, 700, 9).astype(np.int16) for _ in range(count)],
    )  # fmt: skip
    samples = 115 * 640
    spoken = [
        speech.Spoken(
            rng.integers(-3000, 3000, samples).astype(np.int16),
            speech.frame_labels([1.0, 2.3], [5, 7], samples), speech.frame_labels([1.0, 2.3], [1, 0], samples),
        )
        for _ in range(count)
    ]  # fmt: skip
    path = folder / "0000.npz"
    speech.save_block(path, range(count), spoken, script.speaker.tolist())
    return SpeechData([path], script)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SpeechData:
    return make_data(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def trained(data: SpeechData) -> tokenizer.Tokenizer:
    training = tokenizer.TokenizerTraining(data, seconds=1e-9, batch=2)
    training.model = tokenizer.Tokenizer(speech.CLASSES, codes=8, hidden=32)
    training.run()
    return training.model


@pytest.fixture(scope="module")
def written(data: SpeechData, trained: tokenizer.Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codes") / "0.pt"
    codes.write(data, trained, path)
    return path


def test_codes_come_back_in_the_order_asked_for(data: SpeechData, written: Path) -> None:
    (plain, count), (_, prompt_count) = codes.read([written], data.row[::-1])
    assert plain.shape[0] == len(data) and plain.max() < 8
    # 115 frames of speech, and 30 more of silence behind a prompt
    assert set(count.tolist()) == {57} and set(prompt_count.tolist()) == {72}


def test_the_gpt_learns_and_resumes(data: SpeechData, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpt, "BUCKETS", (gpt.Bucket(4, 32, 160, 100, 16, 80), gpt.Bucket(4, 32, 160, 100, 16, 80)))
    training = gpt.GPTTraining(data, *codes.read([written], data.row), size=GPT_SIZE)
    before = {k: v.clone() for k, v in training.model.state_dict().items()}
    training.run(1e-9, tmp_path / "gpt.pt")
    assert any(not torch.equal(v, before[k]) for k, v in training.model.state_dict().items())
    training.resume(tmp_path / "gpt.pt")


def test_sovits_learns_and_resumes(data: SpeechData, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sovits, "BUCKETS", (sovits.Bucket(2, 2, 64, 16),) * 2)
    monkeypatch.setattr(sovits, "STYLE_FRAMES", 40)
    plain, _ = codes.read([written], data.row)
    book = torch.randn(1024, SIZE.code_width)
    training = sovits.SoVITSTraining(data, plain, book, size=SIZE)
    before = training.gradients.flat.clone()
    training.run(1e-9, tmp_path / "sovits.pt", gan_from=-1.0)
    assert not torch.equal(training.gradients.flat, before)
    assert float(training.judge_gradients.flat.abs().sum()) > 0
    again = sovits.SoVITSTraining(data, plain, book, size=SIZE)
    assert again.resume(tmp_path / "sovits.pt")


def test_a_differing_codebook_leaves_the_rest_resumable(tmp_path: Path) -> None:
    from scripts.train_demo_voice import weights

    old = vits.SoVITS(SIZE)
    weights.save(old.state_dict(), tmp_path / "old.pt")
    new = vits.SoVITS(vits.Size(hidden=16, filter=16, style=16, initial=32, code_width=24))
    left = weights.take_what_fits(new, weights.read(tmp_path / "old.pt", "cpu"))
    assert left == ["codebook", "enc_p.ssl_proj.weight"]


def _one_step() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    parallel.same([p.data for p in layer.parameters()])
    gradients = parallel.Gradients(list(layer.parameters()))
    layer(torch.full((1, 2), 1.0 + parallel.rank())).sum().backward()
    gradients.average()
    assert gradients.flat.tolist() == [1.5, 1.5]
    assert parallel.agreed(float(parallel.rank()), "cpu") == 0.0


def test_gradients_are_averaged_over_processes() -> None:
    parallel.run(_one_step, 2)


def _train_side_by_side(folder: Path) -> None:
    """Two steps of SoVITS in each process, on its own batches; its weights, as a file of its own."""
    torch.manual_seed(1)
    own = folder / str(parallel.rank())
    own.mkdir()
    data = make_data(own)
    sovits.BUCKETS, sovits.STYLE_FRAMES = (sovits.Bucket(2, 2, 64, 16),) * 2, 40  # type: ignore[assignment]
    plain = torch.randint(8, (len(data), 57), generator=torch.Generator().manual_seed(0)), torch.full((len(data),), 57)
    training = sovits.SoVITSTraining(data, plain, torch.randn(1024, SIZE.code_width), size=SIZE)
    for _ in range(2):
        training._captured(0, True)()
    torch.save([p.data for p in training.learned], folder / f"{parallel.rank()}.pt")


def test_processes_keep_the_same_weights(tmp_path: Path) -> None:
    parallel.run(partial(_train_side_by_side, tmp_path), 2)
    first, second = (torch.load(tmp_path / f"{i}.pt") for i in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
