"""An FP16 model that can't be: the others are written, and its engines say why they are not."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from networks import by_hand, weights
from onnx import ModelProto

from engines.catalogue import read_sidecar
from engines.files import write_bytes
from pipeline import build
from pipeline.build import Order
from pipeline.files import read_json
from pipeline.progress import Console
from pipeline.quantize import _write_half
from pipeline.run import Outcome, Run

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
         "--calibration-images", "8", "--engine", "onnxruntime"],
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
