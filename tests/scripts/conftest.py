"""A voice for the benchmark, and a run over little work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts.bench import stages, turns
from scripts.benchmark import main

from scripts import benchmark
from small_voice import make_model_folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("benchmark"))


@pytest.fixture(scope="session")
def measured(home: Path) -> Callable[..., dict[str, Any]]:
    """Run the benchmark with further options; what it writes."""

    def run(*options: str) -> dict[str, Any]:
        file = home / "found.json"
        given = ["--voice", "small", "--model-dir", str(home), "--dtype", "float32", "--quick", "--json", str(file)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages, "SERIES", ((12, 10), (14, 20)))
            patch.setattr(stages, "LATE", 300)
            patch.setattr(stages, "LATE_TOKENS", 12)
            patch.setattr(stages, "BATCHES", (3,))
            patch.setattr(stages, "SENTENCES", (1, 3))
            patch.setattr(turns, "WARMING", 1)
            patch.setattr(benchmark, "SLOWEST", 100)
            assert main([*given, *options]) == 0
        return json.loads(file.read_text(encoding="utf-8"))

    return run
