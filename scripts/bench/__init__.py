"""How fast every stage is: the parts of scripts/benchmark.py, which imports gpt_sovits_mlx before any of them.

That puts OpenBLAS in place before mlx.core, and must not happen here, since the process of the reference is to have
neither.
"""
