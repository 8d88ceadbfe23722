"""Quantized weights: MLX's affine quantization in groups, as it is stored, and who is stored so.

The numbers of a matrix's rows are taken in groups; each is kept as a whole number q of 4 or 8 bits, and stands for
scale · q + bias of its group (`mx.quantize`). Of a matrix `….weight`, `….weight` then holds the packed numbers
(uint32), and `….scales` and `….biases` what belongs to the groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WeightsError
from .runtime import require_mlx

if TYPE_CHECKING:
    import numpy as np

BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)
SCALES = "scales"
# The GPT's last layer decides the token: quantized alone it changes as many of the demo voice's as all other matrices
# together do (8 bits: 0.5 %; 4 bits: 12 %, against 9 %). Embeddings are looked up, a row a token, so that fewer bits
# save no time. Both are small: 1.5 % of an official GPT, 7 % of RoBERTa.
_WHOLE = ("embedding", "ar_predict_layer")


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
                raise WeightsError(f"quantization: {name} {value!r} is unknown: choose {_either(known)}")

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


def quantized(
    tensors: Mapping[str, np.ndarray], quantization: Quantization | None
) -> tuple[dict[str, np.ndarray], dict[str, int] | None]:
    """A model's tensors with its matrices quantized, and what its configuration states as `quantization`.

    `None` changes nothing. Embeddings, the GPT's last layer, convolutions, biases and gains stay as they are. Scales
    and biases of the groups have the matrix's type.

    Raises:
        WeightsError: groups do not divide a row; the message names the tensor.
    """
    if quantization is None:
        return dict(tensors), None
    require_mlx()
    import mlx.core as mx
    import numpy as np

    size = quantization.group_size
    made: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if value.ndim != 2 or any(part in name for part in _WHOLE):
            made[name] = value
            continue
        if value.shape[1] % size:
            smaller = [n for n in GROUP_SIZES if value.shape[1] % n == 0]
            mend = f"choose groups of {_either(smaller)}" if smaller else "store the model unquantized"
            raise WeightsError(f"groups of {size} do not divide the rows of {name}, {value.shape[1]} wide: {mend}")
        parts = mx.quantize(mx.array(value), group_size=size, bits=quantization.bits)
        stem = name.removesuffix("weight")
        for part, array in zip(("weight", SCALES, "biases"), parts, strict=True):
            made[stem + part] = np.array(array)
    return made, asdict(quantization)


def _either(values: Iterable[int]) -> str:
    return " or ".join(map(str, values))
