"""From an encoder's weights to its package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from ...encoders.buckets import AUDIO_BUCKETS, TEXT_BUCKETS, AudioBucket, TextBucket
from ...encoders.coreml import embeddings_beside
from ...errors import WeightsError
from ...files import file_sha256, written_whole
from ...models.cnhubert import CNHubert
from ...models.model import Model
from ...models.roberta import Roberta
from ..cnhubert import convert_cnhubert
from ..output import Conversion
from ..roberta import convert_roberta
from ..source import read_converted
from ..tensors import expected_tensors, gather
from .cnhubert import CNHubertNetwork
from .package import build_package
from .roberta import RobertaNetwork, embedding_tables


@dataclass(frozen=True)
class PackageConversion:
    """What a conversion wrote.

    Attributes:
        package: the `.mlpackage`.
        sha256: of the `.safetensors` with the same weights, by which voices name their encoders.
        lengths: of its functions, in tokens or samples.
    """

    package: Path
    sha256: str
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """An encoder's weights as the package's own converter stores them."""

    path: Path
    tensors: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    sha256: str


def make_cnhubert(
    input: Path,
    output: Path,
    buckets: Sequence[AudioBucket] = AUDIO_BUCKETS,
    precision: str = "float16",
    progress: bool = False,
) -> PackageConversion:
    """`convert_cnhubert_package` with a choice of lengths and of the precision."""
    _check_output(output)
    with open_source(input, convert_cnhubert, CNHubert) as source:
        network = CNHubertNetwork(source.tensors, source.config)
        metadata = _metadata("cnhubert", source, buckets, precision)
        about = "CNHubert, the speech encoder of GPT-SoVITS: 16 kHz audio to features at 50 Hz"
        build_package(network, buckets, output, metadata, about, precision, "CNHubert" if progress else None)
    return PackageConversion(output, source.sha256, tuple(b.length for b in buckets))


def make_roberta(
    input: Path,
    output: Path,
    buckets: Sequence[TextBucket] | None = None,
    precision: str = "float16",
    progress: bool = False,
) -> PackageConversion:
    """`convert_roberta_package` with a choice of lengths and of the precision."""
    _check_output(output)
    with open_source(input, convert_roberta, Roberta) as source:
        longest = source.config["max_position_embeddings"]
        buckets = buckets or [TextBucket(n) for n in sorted({min(b.length, longest) for b in TEXT_BUCKETS})]
        network = RobertaNetwork(source.tensors, source.config)
        metadata = _metadata("roberta", source, buckets, precision)
        about = "RoBERTa, the text encoder of GPT-SoVITS: embeddings of characters to features"
        tables = embedding_tables(source.tensors)
        beside = {"weights_sha256": source.sha256, "vocabulary": _vocabulary(source.path)}
        try:
            with written_whole(embeddings_beside(output)) as temporary:
                save_file(tables, temporary, beside)
                # only a finished package gives the tables their name
                build_package(network, buckets, output, metadata, about, precision, "RoBERTa" if progress else None)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"cannot write {output}: {getattr(error, 'strerror', None) or error}") from None
    return PackageConversion(output, source.sha256, tuple(b.length for b in buckets))


@contextmanager
def open_source(input: Path, convert: Callable[..., Conversion], kind: type[Model]) -> Iterator[Source]:
    """Weights of a Hugging Face folder, which are converted first, or those that were converted before.

    Raises:
        WeightsError: it is neither.
    """
    config = input.with_name(f"{input.stem}_config.json")
    if input.suffix == ".safetensors" and config.is_file():
        yield _read(input, kind)
        return
    with tempfile.TemporaryDirectory() as work:
        made = convert(input, Path(work) / f"{convert.__name__.removeprefix('convert_')}.safetensors")
        yield _read(made.weights, kind)


def _read(path: Path, kind: type[Model]) -> Source:
    tensors, config = read_converted(path)
    expected = expected_tensors(kind, config, tensors, path)
    return Source(path, gather(tensors, expected, path, None), config, file_sha256(path))


def _vocabulary(weights: Path) -> str:
    path = weights.with_name(f"{weights.stem}_vocab.txt")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read {path} ({error}), which belongs to {weights}: convert it again") from None


def _metadata(
    model: str, source: Source, buckets: Sequence[AudioBucket] | Sequence[TextBucket], precision: str
) -> dict[str, str]:
    return {
        "model": model,
        "weights_sha256": source.sha256,
        "lengths": ",".join(str(b.length) for b in buckets),
        "precision": precision,
    }


def _check_output(output: Path) -> None:
    if output.suffix != ".mlpackage":
        raise WeightsError(f"the output {output} must end in .mlpackage")
    if output.is_file():
        raise WeightsError(f"the output {output} is a file: choose another name")
