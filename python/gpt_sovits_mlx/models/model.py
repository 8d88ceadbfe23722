"""What all models have in common: a parameter tree that is the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import WeightsError

Shape = tuple[int, ...]
M = TypeVar("M", bound="Model")


@runtime_checkable
class FileLayout(Protocol):
    """A layer whose `weight` has another layout in files, PyTorch's."""

    @staticmethod
    def weight_of_file(weight: mx.array) -> mx.array: ...
    @staticmethod
    def weight_to_file(weight: mx.array) -> mx.array: ...


class Model(nn.Module):
    """A model that is made of a configuration, and whose parameters are the tensors of its file.

    Attributes:
        NAME: what messages call it.
        RENAMED: parts of names in files and in the tree, where those differ.
        FULL_PRECISION: parameters that stay float32, whatever the others are computed in.
        NEVER_QUANTIZED: linear layers that quantization leaves as they are.
    """

    NAME: ClassVar[str]
    RENAMED: ClassVar[Sequence[tuple[str, str]]] = ()
    FULL_PRECISION: ClassVar[Sequence[str]] = ()
    NEVER_QUANTIZED: ClassVar[Sequence[str]] = ()

    @classmethod
    def of_config(cls: type[M], config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> M:
        """A model with new weights.

        Args:
            config: the content of its configuration file.
            shapes: of the tensors in its file, from which come the sizes that configurations of before do not state.

        Raises:
            WeightsError: the configuration lacks something, or describes no model.
        """
        raise NotImplementedError

    def sanitize(self, tensors: Mapping[str, mx.array]) -> dict[str, mx.array]:
        """A file's tensors under the names and in the layouts of the parameter tree."""
        weights = {self.parameter_name(name): tensor for name, tensor in tensors.items()}
        for name, layer in self._layouts():
            if name in weights:
                weights[name] = layer.weight_of_file(weights[name])
        return weights

    def file_tensors(self) -> dict[str, mx.array]:
        """The parameters under the names and in the layouts of a file; the inverse of `sanitize`."""
        weights = parameters_of(self)
        for name, layer in self._layouts():
            weights[name] = layer.weight_to_file(weights[name])
        return {self.file_name(name): weight for name, weight in weights.items()}

    @classmethod
    def parameter_name(cls, name: str) -> str:
        """The name in the tree of a tensor in the file."""
        for of_file, of_tree in cls.RENAMED:
            name = name.replace(of_file, of_tree)
        return name

    @classmethod
    def file_name(cls, name: str) -> str:
        """The name in the file of a parameter."""
        for of_file, of_tree in reversed(cls.RENAMED):
            name = name.replace(of_tree, of_file)
        return name

    def _layouts(self) -> Iterator[tuple[str, FileLayout]]:
        for path, layer in self.named_modules():
            if isinstance(layer, FileLayout):
                yield f"{path}.weight", layer


def parameters_of(model: nn.Module) -> dict[str, mx.array]:
    """Name → parameter, the names dotted paths."""
    flat: Any = tree_flatten(model.parameters())
    return dict(flat)


def size_of(shapes: Mapping[str, Shape], name: str, axis: int, axes: int = 2) -> int:
    """The length of a tensor of so many axes along one of them.

    Raises:
        WeightsError: the file has no such tensor, or it has another number of axes.
    """
    shape = shapes.get(name)
    if shape is None:
        raise WeightsError(f"tensor {name} is missing: the file is incomplete or of another model")
    if len(shape) != axes:
        raise WeightsError(f"tensor {name} has {len(shape)} axes, expected {axes}: the file is damaged")
    return shape[axis]


def shapes_of(
    kind: type[Model], config: Mapping[str, Any], shapes: Mapping[str, Shape] | None = None
) -> dict[str, Shape]:
    """Name → shape of the tensors in a model's file; the arguments and errors are those of `Model.of_config`."""
    model = kind.of_config(config, shapes or {})
    return {name: tuple(tensor.shape) for name, tensor in model.file_tensors().items()}
