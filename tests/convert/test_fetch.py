"""The base encoders: fetched files are checked against their published sums; offline the error says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from small_models import BERT_CONFIG, HUBERT_CONFIG, bert_state, environment, hubert_state, write_folder

from gpt_sovits_mlx.convert import convert_encoders, fetch, fetch_encoders
from gpt_sovits_mlx.convert.output import file_sha256
from gpt_sovits_mlx.errors import DependencyError, WeightsError

HUBERT, BERT = "chinese-hubert-base", "chinese-roberta-wwm-ext-large"
OUTPUTS = {"cnhubert.safetensors", "cnhubert_config.json"}
OUTPUTS |= {"roberta.safetensors", "roberta_config.json", "roberta_vocab.txt"}


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A folder laid out as the hub's repository, with small encoders."""
    write_folder(tmp_path / "pretrained" / HUBERT, hubert_state(), HUBERT_CONFIG)
    write_folder(tmp_path / "pretrained" / BERT, bert_state(), BERT_CONFIG)
    return tmp_path / "pretrained"


def serve(monkeypatch: pytest.MonkeyPatch, pretrained: Path) -> list[dict[str, Any]]:
    """Let the hub's client answer with a local folder; returns the list of its calls."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        calls.append({"repository": repository, **options})
        return str(pretrained)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def publish(monkeypatch: pytest.MonkeyPatch, pretrained: Path) -> None:
    """Make the sums of the small files the published ones."""
    files = [path for path in pretrained.rglob("*") if path.is_file()]
    sums = {str(path.relative_to(pretrained)): file_sha256(path) for path in files}
    monkeypatch.setattr(fetch, "SHA256", sums)


def test_fetched_files_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: Path):
    calls = serve(monkeypatch, pretrained)
    publish(monkeypatch, pretrained)
    done = fetch_encoders(tmp_path / "models", progress=False)
    assert {path.name for path in (tmp_path / "models" / "encoders").iterdir()} == OUTPUTS
    assert done["cnhubert"].sha256 == file_sha256(tmp_path / "models" / "encoders" / "cnhubert.safetensors")
    assert [(call["repository"], call["revision"]) for call in calls] == [(fetch.REPOSITORY, fetch.REVISION)]
    assert len(fetch.REVISION) == 40
    assert set(calls[0]["allow_patterns"]) == set(fetch.SHA256)


def test_one_encoder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: Path):
    calls = serve(monkeypatch, pretrained)
    publish(monkeypatch, pretrained)
    fetch_encoders(tmp_path / "models", ["cnhubert"], progress=False)
    assert {path.name for path in (tmp_path / "models" / "encoders").iterdir()} == {
        "cnhubert.safetensors",
        "cnhubert_config.json",
    }
    assert all(file.startswith(HUBERT) for file in calls[0]["allow_patterns"])


def test_other_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: Path):
    serve(monkeypatch, pretrained)
    with pytest.raises(WeightsError, match="is not the published file"):
        fetch_encoders(tmp_path / "models", progress=False)
    assert not (tmp_path / "models").exists()


def test_local_folder(tmp_path: Path, pretrained: Path):
    done = convert_encoders(pretrained, tmp_path / "models", dtype="float32")
    assert {path.name for path in (tmp_path / "models" / "encoders").iterdir()} == OUTPUTS
    assert {name: c.config["dtype"] for name, c in done.items()} == {"cnhubert": "float32", "roberta": "float32"}


def test_offline_one_line_says_what_to_do(tmp_path: Path):
    program = (
        "from gpt_sovits_mlx.convert import fetch_encoders\n"
        "from gpt_sovits_mlx.errors import DependencyError\n"
        f"try: fetch_encoders({str(tmp_path / 'models')!r})\n"
        "except DependencyError as error: print(error)\n"
    )
    settings = environment(HF_HOME=str(tmp_path / "cache"), HF_HUB_OFFLINE="1")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=settings, timeout=120
    )
    assert len(done.stdout.splitlines()) == 1
    for part in (HUBERT, BERT, fetch.REPOSITORY, "pretrained_models", str(tmp_path / "models" / "encoders")):
        assert part in done.stdout
    assert not (tmp_path / "models").exists()


def test_broken_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: Any, **__: Any) -> str:
        raise OSError("connection reset\nby peer")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(DependencyError, match=r"\(connection reset by peer\): connect and try again"):
        fetch_encoders(tmp_path / "models", ["roberta"])
    assert not (tmp_path / "models").exists()


def test_without_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"pip install 'gpt-sovits-mlx\[convert\]'"):
        fetch_encoders(tmp_path)
