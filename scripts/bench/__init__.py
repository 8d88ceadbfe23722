"""How fast every stage is: the parts of scripts/benchmark.py."""

import gpt_sovits_mlx  # noqa: F401  before anything imports mlx.core, so that OpenBLAS is in place
