"""What `quantize` writes: FP16 where it can be, and the calibration cache."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from networks import by_hand, weights
from onnx import ModelProto

from benchmarks.progress import Console
from engines.catalogue import read_sidecar
from engines.files import sha256_of, write_bytes, write_json
from engines.tensorrt import calibration_cache
from pipeline import build
from pipeline import quantize as stage
from pipeline.build import Order
from pipeline.calibration import float_tensors
from pipeline.errors import UsageError
from pipeline.files import read_json
from pipeline.qdq import quantized_inputs
from pipeline.quantize import Options, _write_half, quantize
from pipeline.run import Outcome, Run

if TYPE_CHECKING:
    from tests.conftest import Finished

AMAX = {"pixels": 255.0, "last": 10.0}
REASON = "constant w reaches 1e+06, beyond FP16's 65504"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", create=True) as opened:
        yield opened


def network(largest: float) -> ModelProto:
    weight = weights(4, 3, 1, 1)
    weight[0, 0] = largest
    return by_hand("last = Conv (x, w)", 4, {"w": weight})


def test_what_can_be_made_is_written(
    run: Run, quiet: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bytes(run.onnx("fp16"), b"of an earlier run")
    models = {"fp16": network(1e6), "int8-fp16": network(1)}
    assert _write_half(run, models, AMAX, quiet) == {"fp16": REASON}
    assert not run.onnx("fp16").exists()
    assert run.onnx("int8-fp16").stat().st_size > 100
    warning = f"warning: model.fp16.onnx can't be made, nor the engines of it: {REASON}\n"
    assert capsys.readouterr().err == warning


def test_activations_that_overflow(run: Run, quiet: Console) -> None:
    models = {"fp16": network(1), "int8-fp16": network(1)}
    found = _write_half(run, models, {**AMAX, "last": 422080.0}, quiet)
    reason = "tensor last reaches 422080 on the calibration pictures, beyond FP16's 65504"
    assert found == {"fp16": reason, "int8-fp16": reason}
    assert not list(run.folder.glob("onnx/*.onnx"))


def test_all_can_be_made(run: Run, quiet: Console, capsys: pytest.CaptureFixture[str]) -> None:
    assert _write_half(run, {"fp16": network(1)}, AMAX, quiet) == {}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("backend", ["openvino", "tensorrt-rtx", "tensorrt"])
def test_engine_of_an_impossible_model(run: Run, quiet: Console, backend: str) -> None:
    def quantized() -> Outcome:
        return Outcome([], {"impossible": {"fp16": REASON}})

    run.perform("quantize", [], {}, quantized, quiet)
    target = {"openvino": "cpu", "tensorrt-rtx": "sm86", "tensorrt": "gpu"}[backend]
    order = Order(backend, "fp16", target)
    sidecar = build._build(run, order, quiet)
    assert (sidecar["status"], sidecar["reason"]) == ("unavailable", REASON)
    assert sidecar["onnx_sha256"] == ""
    assert read_sidecar(run.engines / f"{order.name}.json") == sidecar
    # It stays so the next time, and the other precisions are built.
    assert build._build(run, order, quiet) == sidecar
    write_bytes(run.onnx("fp32"), network(1).SerializeToString())
    other = build._build(run, Order("onnxruntime", "fp32", "cpu"), quiet)
    assert other["status"] == "built"


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras classifier without a convolution, in which numbers get larger than FP16 has."""
    from engines.tensorflow_graph import import_tensorflow

    import_tensorflow()
    import keras
    from keras import initializers, layers

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, kernel_initializer=initializers.Constant(1000)),
            layers.Dense(4, kernel_initializer=initializers.RandomNormal(0, 1e-6, 1)),
            layers.Dense(2),
        ]
    )
    file: Path = tmp_path_factory.mktemp("overflowing") / "own.keras"
    model.save(file)
    return file


def test_pipeline_goes_on_without_fp16(overflowing: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "--quiet", "--run", str(folder),
         "--image-dir", str(pictures), "--architecture", str(overflowing),
         "--testing-percentage", "25", "--how-many-training-steps", "20",
         "--calibration-images", "8", "--engine", "onnxruntime", "--quick",
         "--scenario", "single-stream"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = read_json(folder / "run.json")["stages"]["quantize"]
    assert set(record["outputs"]) == {"onnx/model.int8.onnx", "onnx/amax.json"}
    impossible = record["results"]["impossible"]
    assert set(impossible) == {"fp16", "int8-fp16"}
    assert "beyond FP16's 65504" in impossible["fp16"]
    assert f"model.fp16.onnx can't be made, nor the engines of it: {impossible['fp16']}\n" in (
        done.stderr
    )
    engines = {e["name"]: e for e in read_json(folder / "report" / "report.json")["engines"]}
    assert engines["onnxruntime-fp16"]["reason"] == impossible["fp16"]
    states = {name: engine["status"] for name, engine in engines.items()}
    assert states == {
        "tensorflow-fp32": "ran",
        "onnxruntime-fp32": "ran",
        "onnxruntime-fp16": "unavailable",
        "onnxruntime-int8": "ran",
    }


# The calibration cache


@pytest.fixture
def copy(finished: "Finished", tmp_path: Path) -> Iterator[Run]:
    """A copy of the finished run, whose `quantize` stage is up to date."""
    with Run(Path(shutil.copytree(finished.folder, tmp_path / "copy"))) as opened:
        yield opened


def cached(run: Run, version: str | None = "8.2.1", **options: Any) -> list[bytes]:
    """What `edgetrt quantize` with the finished run's flags leaves: the cache and its note."""
    quantize(
        run, Options(calibration_images=8, calibration_cache=version, **options), Console(True)
    )
    files = (run.calibration_cache, run.calibration_note)
    return [file.read_bytes() for file in files if file.exists()]


def test_calibration_cache_of_a_stage_that_is_skipped(
    copy: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    amax, record = copy.amax.read_bytes(), copy.stage("quantize")
    options = Options(calibration_images=8, calibration_cache="8.2.1")
    quantize(copy, options, Console())
    assert "quantize: nothing changed since last time, skipped" in capsys.readouterr().err
    assert (copy.amax.read_bytes(), copy.stage("quantize")) == (amax, record)

    header, scales = calibration_cache.read(copy.calibration_cache.read_bytes())
    assert header == "TRT-8201-EntropyCalibration2"
    calibrated = read_json(copy.amax)
    assert list(scales) == list(calibrated["amax"])
    model = onnx.load(copy.onnx("fp32"))
    assert set(scales) == set(float_tensors(model))
    for tensor, value in {**calibrated["amax"], **calibrated["thresholds"]}.items():
        assert scales[tensor] == pytest.approx(value, rel=1e-6)
    assert any(
        calibrated["thresholds"][t] != calibrated["amax"][t] for t in quantized_inputs(model)
    )
    assert read_json(copy.calibration_note) == {
        "schema": 1,
        "version": "8.2.1",
        "algorithm": "EntropyCalibration2",
        "onnx_sha256": sha256_of(copy.onnx("fp32")),
        "sha256": sha256_of(copy.calibration_cache),
    }
    fits = ("8.2.1", "EntropyCalibration2", sha256_of(copy.onnx("fp32")))
    assert calibration_cache.why_not(copy.calibration_cache, *fits) is None


def test_calibration_cache_is_the_same_each_time(copy: Run) -> None:
    first = cached(copy)
    assert cached(copy) == first
    assert cached(copy, version=None) == first, "it stays, as nothing changed"
    other = cached(copy, version="10.3.0")
    assert other[0] == first[0].replace(b"TRT-8201-", b"TRT-100300-")
    assert read_json(copy.calibration_note)["version"] == "10.3.0"


def test_calibration_cache_goes_with_the_values_it_was_made_of(copy: Run) -> None:
    old = cached(copy)
    assert cached(copy, version=None, method="max") == []
    new = cached(copy, method="max")
    assert new[0] != old[0]
    _, scales = calibration_cache.read(new[0])
    for tensor, value in read_json(copy.amax)["amax"].items():
        assert scales[tensor] == pytest.approx(value, rel=1e-6)


def test_always_zero_tensor_has_a_scale(copy: Run) -> None:
    calibrated = read_json(copy.amax)
    tensor = next(iter(calibrated["amax"]))
    calibrated["amax"][tensor] = calibrated["thresholds"][tensor] = 0.0
    write_json(copy.amax, calibrated)
    stage._write_calibration_cache(copy, "8.2.1")
    _, scales = calibration_cache.read(copy.calibration_cache.read_bytes())
    assert scales[tensor] == pytest.approx(1)


@pytest.mark.parametrize("version", ["", "8.2", "11.4.0", "latest", "8.2.1; rm", "8.2.1\n"])
def test_version_without_a_calibration_cache(version: str) -> None:
    with pytest.raises(UsageError, match=r"^--calibration-cache: .* TensorRT 8 and 10"):
        Options(calibration_cache=version)
