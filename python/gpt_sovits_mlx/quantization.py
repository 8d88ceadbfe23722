"""Quantized weights: MLX's affine quantization in groups, as it is stored, and who is stored so.

The numbers of a matrix's rows are taken in groups; each is kept as a whole number q of 4 or 8 bits, and stands for
scale · q + bias of its group (`mx.quantize`). Of a matrix `….weight`, `….weight` then holds the packed numbers
(uint32), and `….scales` and `….biases` what belongs to the groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import WeightsError

BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)
SCALES = "scales"


@dataclass(frozen=True)
class Quantization:
    """How the matrices of a model are quantized; the rest of it keeps the configuration's `dtype`.

    Attributes:
        bits: of each number, 4 or 8.
        group_size: numbers that share a scale and a bias, 32, 64 or 128.

    Raises:
        WeightsError: other bits or another size.
    """

    bits: int
    group_size: int = 64

    def __post_init__(self):
        for name, value, known in (("bits", self.bits, BITS), ("group size", self.group_size, GROUP_SIZES)):
            if value not in known:
                raise WeightsError(f"quantization: {name} {value!r} is unknown: choose {either(known)}")

    @classmethod
    def of(cls, config: Mapping[str, Any], source: Path | str) -> Quantization | None:
        """What a configuration states; `None` where it states nothing.

        Raises:
            WeightsError: it states what this version cannot read; the message names `source`.
        """
        stated = config.get("quantization")
        try:
            return cls(**stated) if stated is not None else None
        except (TypeError, WeightsError):
            raise WeightsError(
                f"{source}: its quantization {str(stated)[:60]} is unknown: convert the weights again"
            ) from None


def either(values: Iterable[int]) -> str:
    """Values as a message offers them."""
    return " or ".join(map(str, values))
