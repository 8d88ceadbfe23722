"""In which order a lease starts its stages, and on which GPUs; the stages themselves do nothing here."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.train_demo_voice import lease


class _Job:
    def __init__(self, code: int) -> None:
        self.code = code

    def wait(self) -> int:
        return self.code

    def poll(self) -> int:
        return self.code


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    begun: list[tuple[str, list[int]]] = []

    def begin(work: Path, gpus: list[int], stage: str, *options: str) -> _Job:
        begun.append((stage, list(gpus)))
        return _Job(1 if stage == "codes" and "--after" in options and (work / "fail").exists() else 0)

    monkeypatch.setattr(lease, "_begin", begin)
    return begun


def test_the_last_gpu_trains_the_gpt_and_the_others_sovits(begun: list[tuple[str, list[int]]], tmp_path: Path) -> None:
    lease.run(tmp_path, tmp_path, 3, 1, [1, 2, 3], 1, 0)
    assert begun == [
        ("speech", [0, 1, 2]), ("tokenizer", [0]), ("codes", [0]), ("codes", [1]), ("sovits", [0, 1]), ("codes", [2]),
        ("gpt", [2]),
    ]  # fmt: skip


def test_a_tokenizer_that_is_there_is_kept(begun: list[tuple[str, list[int]]], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.pt").touch()
    lease.run(tmp_path, tmp_path, 2, 1, [1, 2], 1, 0)
    assert "tokenizer" not in [stage for stage, _ in begun]


def test_a_stage_that_fails_ends_the_lease(begun: list[tuple[str, list[int]]], tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    with pytest.raises(RuntimeError, match="last codes"):
        lease.run(tmp_path, tmp_path, 2, 1, [1, 2], 1, 0)
    assert ("gpt", [1]) not in begun


def test_one_gpu_is_no_lease(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two GPUs"):
        lease.run(tmp_path, tmp_path, 1, 1, [1], 1, 0)
