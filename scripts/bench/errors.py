"""What cannot be measured."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Something asked of the benchmark cannot be measured; the message says why or what mends it.

    No `GPTSoVITSError`: it is raised in the process of the reference as well, which has nothing of this package.
    """


class Absent(BenchmarkError):
    """A voice has nothing to measure at a stage."""


def check_tokens(made: int, wanted: int) -> None:
    """Raises `BenchmarkError` where a decode made other than the tokens asked for: both sides must do the same work."""
    if made != wanted:
        raise BenchmarkError(f"a decode made {made} tokens instead of {wanted}: its time would mean nothing")
