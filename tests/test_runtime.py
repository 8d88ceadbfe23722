"""What is settled before MLX computes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpt_sovits_mlx import runtime

LINUX_CPU = sys.platform.startswith("linux") and runtime.backend() == "cpu"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_without_mlx_one_line_says_what_to_install():
    done = run("import sys; sys.modules['mlx'] = None; import gpt_sovits_mlx; gpt_sovits_mlx.GPTSoVITSEngine")
    assert "DependencyError: MLX is not installed" in done.stderr.splitlines()[-1]
    assert "gpt-sovits-mlx[cpu]" in done.stderr and "gpt-sovits-mlx[cuda]" in done.stderr
    command = "import sys; sys.modules['mlx'] = None; from gpt_sovits_mlx.cli import main; sys.exit(main(['hello']))"
    done = run(command)
    assert done.returncode == 1 and done.stderr.startswith("error: MLX is not installed")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "module", ["gpt_sovits_mlx.models.t2s", "gpt_sovits_mlx.engine", "gpt_sovits_mlx.decoding.generation"]
)
def test_openblas_is_in_place_whatever_is_imported_first(module):
    code = f"import {module}; from gpt_sovits_mlx.runtime import blas_library; print(blas_library())"
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert ("openblas" in done.stdout) == LINUX_CPU and done.stderr == ""


def test_without_openblas_one_warning_says_what_mends_it():
    code = "from gpt_sovits_mlx import runtime; runtime._blas = ''; runtime.require_mlx(); runtime.require_mlx()"
    done = run(code)
    assert done.returncode == 0
    assert done.stderr.count("OpenBLAS was not found") == int(LINUX_CPU)
    assert done.stderr.count("libopenblas0-pthread") == int(LINUX_CPU)


def test_importing_mlx_first_is_warned_of():
    done = run("import mlx.core; from gpt_sovits_mlx import GPTSoVITSEngine; GPTSoVITSEngine()")
    assert done.returncode == 0
    assert done.stderr.count("mlx was imported before gpt_sovits_mlx") == int(LINUX_CPU)


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_mac_without_a_gpu_computes_on_its_cpu_and_says_so(has_gpu):
    """MLX's build for Macs names the GPU as its default device even where there is none."""
    code = (
        "import sys, types; chosen = []\n"
        "from gpt_sovits_mlx import runtime\n"
        "gpu, cpu = types.SimpleNamespace(type='gpu'), types.SimpleNamespace(type='cpu')\n"
        "core = types.SimpleNamespace(DeviceType=types.SimpleNamespace(gpu='gpu', cpu='cpu'), gpu=gpu, cpu=cpu,\n"
        f"    default_device=lambda: chosen[-1] if chosen else gpu, is_available=lambda device: {has_gpu},\n"
        "    set_default_device=chosen.append)\n"
        "sys.modules['mlx.core'] = core; import mlx; mlx.core = core; sys.platform = 'darwin'\n"
        "runtime.require_mlx(); runtime.require_mlx(); print([device.type for device in chosen])"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("[]" if has_gpu else "['cpu']")
    assert done.stderr.count("this Mac offers no GPU") == int(not has_gpu)


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GPT_SOVITS_MLX_HOME", str(tmp_path))
    assert runtime.user_cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("GPT_SOVITS_MLX_HOME")
    assert "gpt-sovits-mlx" in runtime.user_cache_dir().parts
