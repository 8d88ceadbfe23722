"""The encoders on Core ML: the Neural Engine of a Mac."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import DependencyError, WeightsError
from ..runtime import user_cache_dir
from .buckets import AudioBucket, Inputs, TextBucket, audio_bucket, audio_inputs, text_bucket, text_inputs
from .characters import CharacterVocabulary

OLDEST_MACOS = (15, 0)
"""The first with several functions in one package."""
SPEC = Path("Data/com.apple.CoreML/model.mlmodel")
EXTRA = "pip install 'gpt-sovits-mlx[coreml]' adds it, and encoder_backend='mlx' does without"


class Program(Protocol):
    """What runs a function of a package: Core ML, or the interpreter of `convert.coreml`."""

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]: ...


def runs_here() -> bool:
    """Whether this is a Mac that can run the packages."""
    return sys.platform == "darwin" and _macos() >= OLDEST_MACOS


def package_beside(weights: Path) -> Path:
    """Where the Core ML package of an encoder lies: `roberta.safetensors` → `roberta_ane.mlpackage`."""
    return weights.with_name(f"{weights.stem}_ane.mlpackage")


def embeddings_beside(package: Path) -> Path:
    """Where RoBERTa's embedding tables lie, which are looked up outside the package."""
    return package.with_name(f"{package.stem}_embeddings.safetensors")


class CoreMLProgram:
    """A package on this Mac's Neural Engine and CPU; each function is loaded when it is first called.

    Args:
        package: the `.mlpackage`; it is compiled once.
        cache: folder of compiled packages; by default in the user's cache.

    Raises:
        DependencyError: this is no Mac with macOS 15, or coremltools is missing.
        WeightsError: Core ML cannot compile the package, or (when called) load or run a function.
    """

    def __init__(self, package: Path, cache: Path | None = None):
        if not runs_here():
            raise DependencyError(
                f"{package} needs a Mac with macOS {OLDEST_MACOS[0]} or later: choose encoder_backend='mlx'"
            )
        require_coremltools(package)
        self.package = package
        self._compiled = compiled(package, cache or user_cache_dir() / "coreml")
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        import coremltools as ct

        # coremltools hands over float32 in NumPy's strides, and Core ML rounds it to the package's float16
        copies = {name: np.array(x, np.float32, order="C") for name, x in inputs.items()}
        with self._lock, _named(f"run {function} of", self.package):
            if function not in self._functions:
                self._functions[function] = ct.models.CompiledMLModel(
                    str(self._compiled), ct.ComputeUnit.CPU_AND_NE, function_name=function
                )
            return self._functions[function].predict(copies)


def require_coremltools(package: Path) -> None:
    """Raises `DependencyError` where coremltools is missing."""
    if importlib.util.find_spec("coremltools") is None:
        raise DependencyError(f"{package} needs coremltools, which is missing: {EXTRA}")
    # it warns of versions of torch that nothing here uses at run time
    logging.getLogger("coremltools").setLevel(logging.ERROR)


def compiled(package: Path, cache: Path) -> Path:
    """The package compiled for this system, from `cache` or into it; what was compiled of it before is dropped.

    Raises:
        WeightsError: Core ML cannot compile it.
    """
    place = hashlib.sha256(str(package.resolve()).encode()).hexdigest()[:8]
    content = hashlib.sha256((package / SPEC).read_bytes() + platform.mac_ver()[0].encode()).hexdigest()[:16]
    target = cache / f"{package.stem}-{place}-{content}.mlmodelc"
    if not target.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            made = _compile(package, Path(work) / target.name)
            try:
                os.replace(made, target)
            except OSError:
                # another process was faster
                if not target.is_dir():
                    raise
        for old in cache.glob(f"{package.stem}-{place}-*.mlmodelc"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


def _compile(package: Path, target: Path) -> Path:
    import coremltools as ct

    with _named("compile", package):
        return Path(ct.models.utils.compile_model(str(package), str(target)))


@contextmanager
def _named(what: str, package: Path) -> Iterator[None]:
    """Core ML's errors as one of this package's."""
    try:
        yield
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise WeightsError(
            f"Core ML cannot {what} {package} ({line}): make it again, or use the mlx back end"
        ) from None


def has_engine() -> bool:
    """Whether this is a Mac whose Neural Engine Core ML can use (a virtual one's cannot be)."""
    if not runs_here():
        return False
    import coremltools as ct
    from coremltools.models.compute_device import MLNeuralEngineComputeDevice

    devices = ct.models.MLModel.get_available_compute_devices()
    return any(isinstance(device, MLNeuralEngineComputeDevice) for device in devices)


def work_off_the_engine(package: Path, function: str) -> dict[str, float]:
    """Type of operation → its share of a function's estimated cost where Core ML prefers another device for it.

    Raises:
        WeightsError: Core ML cannot compile the package.
    """
    import coremltools as ct
    from coremltools.models.compute_device import MLNeuralEngineComputeDevice
    from coremltools.models.compute_plan import MLComputePlan

    with tempfile.TemporaryDirectory() as work:
        # a plan is made for the default function alone
        copy = shutil.copytree(package, Path(work) / package.name)
        spec = read_spec(copy)
        spec.description.defaultFunctionName = function
        (copy / SPEC).write_bytes(spec.SerializeToString())
        path = _compile(copy, Path(work) / "plan.mlmodelc")
        plan = MLComputePlan.load_from_path(str(path), compute_units=ct.ComputeUnit.CPU_AND_NE)
        program = plan.model_structure.program
        total, elsewhere = 0.0, dict[str, float]()
        for operation in program.functions[function].block.operations if program else ():
            cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
            if cost is None:
                continue
            total += cost.weight
            usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
            if usage is None or not isinstance(usage.preferred_compute_device, MLNeuralEngineComputeDevice):
                # "ios18.conv"
                kind = operation.operator_name.rpartition(".")[2]
                elsewhere[kind] = elsewhere.get(kind, 0.0) + cost.weight
    # nothing that has a cost: the plan shows nothing, which must not pass
    return {kind: cost / total for kind, cost in elsewhere.items()} if total else {"unknown": 1.0}


class _Package:
    """A package of one model: what its metadata says, and what runs it."""

    model: str
    command: str

    def __init__(self, package: Path, program: Callable[[Path], Program]):
        if not (package / SPEC).is_file():
            raise DependencyError(
                f"{package} is missing: make it with scripts/{self.command} --input FOLDER --output {package}"
            )
        require_coremltools(package)
        self.package = package
        metadata = read_metadata(package)
        if metadata.get("model") != self.model:
            raise WeightsError(
                f"{package} is not a Core ML package of {self.model}: make it with scripts/{self.command}"
            )
        self.sha256 = metadata["weights_sha256"]
        self.lengths = [int(length) for length in metadata["lengths"].split(",")]
        self.program = program(package)

    def rows(self, function: str, inputs: Inputs, count: int) -> mx.array:
        """The single output (1, width, 1, S) of a function → (count, width), evaluated.

        Raises:
            WeightsError: it holds what is no finite number.
        """
        (features,) = self.program(function, inputs).values()
        rows = np.ascontiguousarray(features[0, :, 0, :count].T, np.float32)
        if not np.isfinite(rows).all():
            raise WeightsError(f"{self.package} makes numbers that are not finite: choose encoder_backend='mlx'")
        return mx.array(rows)


def read_spec(package: Path) -> Any:
    """A package's program without its weights, as coremltools' protocol buffer.

    Raises:
        WeightsError: the package is damaged.
    """
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError

    spec: Any = Model_pb2.Model()
    try:
        spec.ParseFromString((package / SPEC).read_bytes())
    except (OSError, DecodeError) as error:
        raise WeightsError(f"{package} is no sound Core ML package ({error}): make it again") from None
    return spec


def read_metadata(package: Path) -> dict[str, str]:
    """What the conversion wrote into a package.

    Raises:
        WeightsError: the package is damaged.
    """
    return dict(read_spec(package).description.metadata.userDefined)


class CoreMLSpeechEncoder(_Package):
    """CNHubert on Core ML, from `cnhubert_ane.mlpackage`.

    Args:
        package: made by scripts/convert_cnhubert_coreml.py.
        program: what runs it.

    Raises:
        DependencyError: the package, a Mac or coremltools is missing.
        WeightsError: the package is damaged or of another model.
    """

    model = "cnhubert"
    command = "convert_cnhubert_coreml.py"

    def __init__(self, package: Path, program: Callable[[Path], Program] = CoreMLProgram):
        super().__init__(package, program)
        self.buckets = [AudioBucket(length) for length in self.lengths]

    def __call__(self, samples: np.ndarray) -> mx.array:
        """Raises `AudioError` for a recording that is longer than the longest function."""
        return self.features(samples, audio_bucket(len(samples), self.buckets))[None]

    def features(self, samples: np.ndarray, bucket: AudioBucket) -> mx.array:
        """(samples,) at 16 kHz → (T, width), by the function of `bucket`."""
        inputs, frames = audio_inputs(samples, bucket)
        return self.rows(bucket.function, inputs, frames)


class CoreMLCharacterEncoder(_Package):
    """RoBERTa on Core ML, from `roberta_ane.mlpackage` and `roberta_ane_embeddings.safetensors` beside it.

    Args:
        package: made by scripts/convert_roberta_coreml.py.
        program: what runs it.

    Raises:
        DependencyError: the package, a Mac or coremltools is missing.
        WeightsError: the package or its embeddings are damaged or of another model.
    """

    model = "roberta"
    command = "convert_roberta_coreml.py"

    def __init__(self, package: Path, program: Callable[[Path], Program] = CoreMLProgram):
        super().__init__(package, program)
        self.buckets = [TextBucket(length) for length in self.lengths]
        path = embeddings_beside(package)
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                self.words, self.positions = file.get_tensor("words"), file.get_tensor("positions")
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"cannot read {path} ({error}), which belongs to {package}: make both again") from None
        if metadata.get("weights_sha256") != self.sha256:
            raise WeightsError(f"{path} belongs to another package than {package}: make both again")
        longest = min(max(self.lengths), len(self.positions))
        self.vocabulary = CharacterVocabulary(metadata["vocabulary"].split("\n"), longest)

    def __call__(self, norm_text: str) -> mx.array:
        return self.vocabulary.encode(norm_text, lambda ids: self.features(ids, text_bucket(len(ids), self.buckets)))

    def features(self, ids: list[int], bucket: TextBucket) -> mx.array:
        """Token ids, [CLS] and [SEP] included → (len(ids), width), by the function of `bucket`."""
        return self.rows(bucket.function, self.inputs(ids, bucket), len(ids))

    def inputs(self, ids: list[int], bucket: TextBucket) -> Inputs:
        """What the bucket's function takes for these ids: see `buckets.text_inputs`."""
        embeddings = self.words[ids].astype(np.float32) + self.positions[: len(ids)]
        padding = self.words[0].astype(np.float32) + self.positions[0]
        return text_inputs(embeddings, padding, bucket)


def _macos() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.mac_ver()[0].split(".") if part.isdigit())
