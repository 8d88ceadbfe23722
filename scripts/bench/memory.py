"""How much memory work takes. MLX is imported when it is asked: a worker loads its package before."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Protocol


class Memory(NamedTuple):
    """Bytes.

    Attributes:
        peak: the most that MLX held at a time since the meter was reset, all loaded weights included.
        resident: of the whole process in main memory now; `None` where the system does not tell.
    """

    peak: int
    resident: int | None


class Meter(Protocol):
    """The memory of one side's process."""

    def reset(self) -> None:
        """Give back what is kept for later, and look for the peak from now on."""
        ...

    def read(self) -> Memory: ...


class OwnMemory:
    """The memory of this process."""

    def reset(self) -> None:
        import mlx.core as mx

        release()
        mx.reset_peak_memory()

    def read(self) -> Memory:
        import mlx.core as mx

        return Memory(mx.get_peak_memory(), resident_size())


def release() -> None:
    """Give back what nothing holds any more."""
    import mlx.core as mx

    gc.collect()
    mx.clear_cache()


def resident_size() -> int | None:
    """Bytes of this process in main memory; `None` where the system does not tell."""
    if sys.platform.startswith("linux"):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True)
    return 1024 * int(found.stdout) if found.stdout.strip().isdigit() else None
