"""Models on random weights of real and tiny sizes, brought in by the package's own converter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gpt_sovits_mlx  # noqa: F401  before any test module imports mlx.core, so that OpenBLAS is in place
import random_weights

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory):
    """Tests never read or write the user's voices and caches."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GPT_SOVITS_MLX_HOME", str(tmp_path_factory.mktemp("home")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """Outputs of the reference by file name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return {key: file[key] for key in file.files}

    return load


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Path of a random checkpoint in the official format: (manifest, seed) → file or folder."""
    folder = tmp_path_factory.mktemp("checkpoints")
    endings = {"gpt": ".ckpt", "sovits": ".pth", "hf": "", "bare": ".ckpt"}

    def write(model: str, seed: int = 1) -> Path:
        path = folder / f"{model}-{seed}{endings[random_weights.load_manifest(model)['format']]}"
        if not path.exists():
            random_weights.write(model, path, seed)
        return path

    return write
