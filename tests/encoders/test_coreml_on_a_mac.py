"""What runs on Macs only, against stand-ins with coremltools' own signatures: compiling, loading, plans."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import coremltools as ct
import numpy as np
import pytest
from coremltools.models import compute_plan
from coremltools.models.compute_device import MLCPUComputeDevice, MLNeuralEngineComputeDevice

from gpt_sovits_mlx.convert.coreml import convert_cnhubert_package, convert_roberta_package
from gpt_sovits_mlx.convert.coreml.interpreter import Interpreter
from gpt_sovits_mlx.encoders import coreml
from gpt_sovits_mlx.encoders.coreml import CoreMLCharacterEncoder, CoreMLProgram, CoreMLSpeechEncoder, read_spec
from gpt_sovits_mlx.errors import WeightsError
from gpt_sovits_mlx.runtime import user_cache_dir
from small_voice import make_model_folder

COMPILED_MODEL = ct.models.CompiledMLModel


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with the packages of two small encoders."""
    folder = make_model_folder(tmp_path_factory.mktemp("models")) / "encoders"
    convert_cnhubert_package(folder / "cnhubert.safetensors", folder / "cnhubert_ane.mlpackage")
    convert_roberta_package(folder / "roberta.safetensors", folder / "roberta_ane.mlpackage")
    return folder


@dataclass
class Mac:
    """What the stand-ins were asked for.

    Attributes:
        compiled: packages, in order.
        loaded: (units, function) of every loaded function.
        devices: what Core ML may use.
        failure: raised by what compiles and loads.
    """

    compiled: list[Path] = field(default_factory=list)
    loaded: list[tuple[Any, str]] = field(default_factory=list)
    devices: list[Any] = field(default_factory=list)
    failure: Exception | None = None

    def compile(self, model: str, destination_path: str) -> str:
        if self.failure:
            raise self.failure
        self.compiled.append(Path(model))
        # the stand-in for a compiled package is the package
        return str(shutil.copytree(model, destination_path))

    def load(self, path: str, compute_units: Any, function_name: str) -> Any:
        if self.failure:
            raise self.failure
        self.loaded.append((compute_units, function_name))
        program, model = Interpreter(path), create_autospec(COMPILED_MODEL, instance=True)

        def predict(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            for x in data.values():
                assert x.dtype == np.float32
                # Core ML is handed the strides, and none of them may be 0
                assert x.strides == tuple(4 * int(np.prod(x.shape[axis + 1 :])) for axis in range(x.ndim))
            return program(function_name, data)

        model.predict.side_effect = predict
        return model


@pytest.fixture
def mac(monkeypatch, tmp_path) -> Iterator[Mac]:
    stand_in = Mac()
    monkeypatch.setenv("GPT_SOVITS_MLX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(coreml, "runs_here", lambda: True)
    monkeypatch.setattr(coreml.platform, "mac_ver", lambda: ("15.3", ("", "", ""), "arm64"))
    compile_model = create_autospec(ct.models.utils.compile_model, side_effect=stand_in.compile)
    monkeypatch.setattr(ct.models.utils, "compile_model", compile_model)
    monkeypatch.setattr(ct.models, "CompiledMLModel", create_autospec(COMPILED_MODEL, side_effect=stand_in.load))
    monkeypatch.setattr(ct.models.MLModel, "get_available_compute_devices", lambda: stand_in.devices)
    yield stand_in


def device(kind: type) -> Any:
    """A device without the proxy that only a Mac has."""
    return object.__new__(kind)


def test_the_encoders_run_on_core_ml(made, mac):
    samples = np.random.default_rng(3).uniform(-0.3, 0.3, 70000).astype(np.float32)
    speech = made / "cnhubert_ane.mlpackage"
    encoder = CoreMLSpeechEncoder(speech)
    features = np.array(encoder(samples))
    np.testing.assert_array_equal(features, np.array(CoreMLSpeechEncoder(speech, Interpreter)(samples)))
    encoder(samples[:-5])
    encoder(samples[:50000])
    characters = made / "roberta_ane.mlpackage"
    rows = np.array(CoreMLCharacterEncoder(characters)("今天天气很好"))
    np.testing.assert_array_equal(rows, np.array(CoreMLCharacterEncoder(characters, Interpreter)("今天天气很好")))
    # each function once, on the Neural Engine
    functions = ["samples_96000", "samples_64000", "tokens_32"]
    assert mac.loaded == [(ct.ComputeUnit.CPU_AND_NE, name) for name in functions]


def test_a_package_is_compiled_once(made, mac, tmp_path, monkeypatch):
    package = shutil.copytree(made / "cnhubert_ane.mlpackage", tmp_path / "cnhubert_ane.mlpackage")
    other = shutil.copytree(package, tmp_path / "other/cnhubert_ane.mlpackage")
    for path in (package, package, other, package):
        CoreMLProgram(path)
    assert mac.compiled == [package, other]
    cache = user_cache_dir() / "coreml"
    assert len([*cache.iterdir()]) == 2
    # another system, and another package in its place: made again, and what was there before is dropped
    monkeypatch.setattr(coreml.platform, "mac_ver", lambda: ("15.4", ("", "", ""), "arm64"))
    CoreMLProgram(package)
    spec = read_spec(package)
    spec.description.metadata.userDefined["weights_sha256"] = "0" * 64
    (package / coreml.SPEC).write_bytes(spec.SerializeToString())
    CoreMLProgram(package)
    assert mac.compiled == [package, other, package, package]
    assert len([*cache.iterdir()]) == 2
    # a cache of one's own leaves the user's alone
    CoreMLProgram(package, tmp_path / "here")
    assert len([*cache.iterdir()]) == 2 and len([*(tmp_path / "here").iterdir()]) == 1


def test_what_core_ml_refuses_is_one_line(made, mac):
    package = made / "cnhubert_ane.mlpackage"
    mac.failure = RuntimeError('Error compiling model: "weights\nare missing".')
    with pytest.raises(
        WeightsError,
        match=r'^Core ML cannot compile .*"weights are missing".*: make it again, or use the mlx back end$',
    ):
        CoreMLProgram(package)
    assert [*(user_cache_dir() / "coreml").iterdir()] == []
    mac.failure = None
    encoder = CoreMLSpeechEncoder(package)
    mac.failure = RuntimeError("no plan")
    with pytest.raises(WeightsError, match=r"^Core ML cannot run samples_64000 of .* \(no plan\): make it again, or"):
        encoder(np.zeros(16000, np.float32))


def test_a_mac_may_lack_the_engine(mac, monkeypatch):
    mac.devices = [device(MLCPUComputeDevice)]
    assert not coreml.has_engine()
    mac.devices.append(device(MLNeuralEngineComputeDevice))
    assert coreml.has_engine()
    monkeypatch.setattr(coreml, "runs_here", lambda: False)
    assert not coreml.has_engine()


def test_the_cost_off_the_engine_is_summed_by_operation(made, mac, monkeypatch):
    engine, cpu = device(MLNeuralEngineComputeDevice), device(MLCPUComputeDevice)
    # what an operation costs, and where it runs
    planned = [
        ("const", None, None),
        ("ios18.conv", 0.5, engine),
        ("ios18.softmax", 0.1, cpu),
        ("ios18.softmax", 0.05, cpu),
        ("ios18.add", 0.1, None),
        ("ios18.mul", 0.25, engine),
    ]

    def load(path: str, compute_units: Any) -> Any:
        assert compute_units is ct.ComputeUnit.CPU_AND_NE
        default = read_spec(Path(path)).description.defaultFunctionName
        operations = [
            compute_plan.MLModelStructureProgramOperation({}, name, [], [], number)
            for number, (name, _, _) in enumerate(planned)
        ]
        block = compute_plan.MLModelStructureProgramBlock([], operations, [])
        functions = {default: compute_plan.MLModelStructureProgramFunction([], block)}
        plan = create_autospec(compute_plan.MLComputePlan, instance=True)
        program = compute_plan.MLModelStructureProgram(functions)
        plan.model_structure = compute_plan.MLModelStructure(None, program, None)

        def cost(operation: Any) -> Any:
            weight = planned[operations.index(operation)][1]
            return None if weight is None else compute_plan.MLComputePlanCost(weight)

        def usage(operation: Any) -> Any:
            where = planned[operations.index(operation)][2]
            return where and compute_plan.MLComputePlanDeviceUsage(where, [where])

        plan.get_estimated_cost_for_mlprogram_operation.side_effect = cost
        plan.get_compute_device_usage_for_mlprogram_operation.side_effect = usage
        return plan

    load_from_path = create_autospec(compute_plan.MLComputePlan.load_from_path, side_effect=load)
    monkeypatch.setattr(compute_plan.MLComputePlan, "load_from_path", load_from_path)
    package = made / "cnhubert_ane.mlpackage"
    before = (package / coreml.SPEC).read_bytes()
    for function in ("samples_64000", "samples_169600"):
        # the plan holds the function that is asked for, or this is a KeyError
        assert coreml.work_off_the_engine(package, function) == pytest.approx({"softmax": 0.15, "add": 0.1})
    assert (package / coreml.SPEC).read_bytes() == before
    assert not (user_cache_dir() / "coreml").exists()
    planned[:] = [("ios18.conv", None, None)]
    assert coreml.work_off_the_engine(package, "samples_64000") == {"unknown": 1.0}
