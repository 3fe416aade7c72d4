"""Each dialect touches what its TensorRT has, and nothing else: the guard refuses the rest."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from known import KNOWN
from play import play

from engines.engine import EngineError
from engines.settings import DEFAULT, Settings
from engines.tensorrt import logger, worker
from engines.tensorrt.dialects import DIALECTS, dialect_of
from engines.tensorrt.rtx import Rtx

BY_INDEX = {
    "IExecutionContext.execute_async_v2", "IExecutionContext.set_binding_shape",
    "ICudaEngine.num_bindings", "ICudaEngine.get_profile_shape",
}  # fmt: skip
BY_NAME = {
    "IExecutionContext.execute_async_v3", "IExecutionContext.set_input_shape",
    "IExecutionContext.set_tensor_address", "ICudaEngine.num_io_tensors",
    "ICudaEngine.get_tensor_profile_shape",
}  # fmt: skip
OLD_LIMIT, LIMIT = {"IBuilderConfig.max_workspace_size"}, {"IBuilderConfig.set_memory_pool_limit"}
# Which flags there are is looked up by every dialect; setting one is what differs. The double
# refuses precision flags where types are strong.
FLAGS = {"IBuilderConfig.set_flag"}
EXPLICIT = {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH"}
MONITOR = {"IBuilderConfig.progress_monitor"}
ALWAYS = {
    "Builder.build_serialized_network", "OnnxParser.parse", "IBuilderConfig.set_timing_cache",
    "Runtime.deserialize_cuda_engine", "ICudaEngine.create_engine_inspector",
    "IExecutionContext.profiler", "IProfiler.report_layer_time",
}  # fmt: skip


@dataclasses.dataclass
class Spoken:
    """A version, the dialect it speaks, and what that uses and leaves alone."""

    version: str
    dialect: str
    uses: set[str]
    leaves: set[str]


SPOKEN = [
    Spoken("8.2.1", "TensorRT 8", BY_INDEX | OLD_LIMIT | FLAGS | EXPLICIT, BY_NAME | LIMIT),
    Spoken("8.4.1", "TensorRT 8", BY_INDEX | LIMIT | FLAGS | EXPLICIT, BY_NAME | OLD_LIMIT),
    Spoken("8.5.2", "TensorRT 8", BY_NAME | LIMIT | FLAGS | EXPLICIT, BY_INDEX | OLD_LIMIT),
    Spoken("8.6.1", "TensorRT 8", BY_NAME | LIMIT | FLAGS | EXPLICIT, BY_INDEX | MONITOR),
    Spoken("10.3.0", "TensorRT 10", BY_NAME | LIMIT | MONITOR, BY_INDEX | FLAGS),
    Spoken("10.13.3.9", "TensorRT 10", BY_NAME | LIMIT | MONITOR, BY_INDEX | FLAGS),
    Spoken("11.4.0.106", "TensorRT 11", BY_NAME | LIMIT | MONITOR, BY_INDEX | FLAGS),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_loggers_and_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process plays several TensorRTs here, which each have a logger."""
    monkeypatch.setattr(logger, "_loggers", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(
    trt: Any, folder: Path, precision: str, settings: Settings = DEFAULT, **others: Any
) -> dict[str, Any]:
    """What the worker does, in this process."""
    variant = dialect_of(trt).graph_for(precision, settings.int8)
    request = {
        "module": "tensorrt", "onnx": str(KNOWN / f"model.{variant}.onnx"),
        "plan": str(folder / "plan"), "precision": precision, "target": "sm87",
        "settings": settings._asdict(), "workspace": 1 << 26, "gpu": "a double's GPU", **others,
    }  # fmt: skip
    return worker.perform(json.loads(json.dumps(request)), lambda *step: None)


@pytest.fixture(params=SPOKEN, ids=lambda spoken: spoken.version)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    found: Spoken = request.param
    return found


@pytest.fixture
def trt(spoken: Spoken) -> Iterator[Any]:
    with play(spoken.version, EDGETRT_DOUBLE_CC="8.7") as module:
        yield module


def test_builds_and_runs_with_what_there_is(spoken: Spoken, trt: Any, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16", "int8"):
        made = build(trt, tmp_path, precision)
        assert made["options"]["dialect"] == spoken.dialect
        assert made["layers"]["milliseconds"]
    used = trt._used
    assert spoken.uses | ALWAYS <= used, spoken.uses - used
    assert not spoken.leaves & used, spoken.leaves & used


def test_calibrators(spoken: Spoken, trt: Any, tmp_path: Path) -> None:
    settings = DEFAULT._replace(
        int8="minmax", calibration_pictures=(str(KNOWN / "picture.png"),) * 9
    )
    dialect = dialect_of(trt)
    if spoken.dialect == "TensorRT 11":
        assert "no calibrators any more" in str(dialect.refuse(settings))
        return
    assert dialect.refuse(settings) is None
    build(trt, tmp_path, "int8", settings)
    assert {
        "IInt8MinMaxCalibrator.get_batch", "IInt8MinMaxCalibrator.write_calibration_cache",
        "IBuilderConfig.int8_calibrator", "IBuilderConfig.set_calibration_profile",
        *FLAGS,
    } <= trt._used  # fmt: skip


def test_what_failed_and_why_are_told(trt: Any) -> None:
    log = logger.log_of(trt)
    assert log.error() == "it gives no reason"
    for level, message in (
        ("error", "of old"),
        ("error", "why"),
        ("warning", "w"),
        ("error", "what"),
    ):
        log.keep(level, message)
    assert log.error() == "why; what"
    log.clear()
    log.keep("error", "why")
    log.keep("error", "why")
    assert log.error() == "why"


def test_a_build_that_fails_says_why(trt: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Could not find any implementation for node"):
        build(trt, tmp_path, "fp32", workspace=0)


def test_a_graph_of_the_future_is_refused(spoken: Spoken, trt: Any, tmp_path: Path) -> None:
    model = onnx.load(KNOWN / "model.fp32.onnx")
    newest = importlib.import_module("tensorrt_double.played").VERSIONS[spoken.version].opset
    model.opset_import[0].version = newest + 1
    onnx.save(model, tmp_path / "new.onnx")
    words = f"new.onnx needs ONNX opset {newest + 1}; {spoken.dialect} has those up to {newest}"
    with pytest.raises(EngineError, match=words):
        build(trt, tmp_path, "fp32", onnx=str(tmp_path / "new.onnx"))


def test_no_two_dialects_speak_for_one_module(spoken: Spoken, trt: Any) -> None:
    assert [d.name for d in DIALECTS if d.is_spoken_by(trt)] == [spoken.dialect]


def test_rtx_is_known_by_what_it_has() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    assert isinstance(dialect_of(trt), Rtx)


def test_what_speaks_no_dialect_is_an_error() -> None:
    class Unknown:
        class BuilderFlag:
            pass

        class NetworkDefinitionCreationFlag:
            pass

        ComputeCapability = None
        __version__ = "99"

    assert isinstance(dialect_of(Unknown), Rtx)  # the only sign that it goes by
    del Unknown.ComputeCapability
    Unknown.BuilderFlag.FP16 = 1  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="TensorRT 99 is neither"):  # 7 and 8.0 look like this
        dialect_of(Unknown)
