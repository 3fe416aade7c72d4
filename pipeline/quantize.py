"""ONNX fp32 -> fp16 and int8, calibrated on training pictures, with a last layer to match."""

import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from benchmarks.accuracy import paired, top1
from benchmarks.balanced import balanced
from benchmarks.progress import Console
from engines import openvino
from engines.engine import EngineError
from engines.files import sha256_of, write_bytes, write_json
from engines.tensorrt import calibration_cache
from engines.text import printable
from pipeline import bottlenecks, calibration, half, loader
from pipeline.accuracy_guard import Candidate, keep_accuracy
from pipeline.bias_correction import correct_biases
from pipeline.dataset import SPLITS, Dataset, Picture
from pipeline.errors import PipelineError, UsageError
from pipeline.files import read_json
from pipeline.graph import operations
from pipeline.last_layer import Labelled, LastLayer, Training, train
from pipeline.qdq import insert_qdq, quantizable_inputs, quantized_inputs, quantized_layers
from pipeline.retrain import computing_engine, trained_dataset
from pipeline.run import Outcome, Run, command_for
from pipeline.surgery import backbone_of, constants, find_last_layer, set_last_layer

BATCH = 8  # calibration pictures at a time
FEW = 32  # of them are enough to correct biases


@dataclass(frozen=True)
class Options:
    """What `edgetrt quantize` is asked for; see its flags.

    Raises UsageError for a value out of range.
    """

    calibration_images: int = 256
    method: str = "percentile"
    int8_head: bool = True
    max_accuracy_drop: float | None = None
    calibration_cache: str | None = None

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise UsageError(
                f"--calibration-images must be at least 1; received {self.calibration_images}"
            )
        if not (self.max_accuracy_drop is None or 0 <= self.max_accuracy_drop < math.inf):
            raise UsageError(
                "--max-accuracy-drop must be a number of percentage points, 0 or above; "
                f"received {self.max_accuracy_drop:g}"
            )
        if self.calibration_cache is not None:
            try:
                calibration_cache.header(self.calibration_cache)
            except EngineError as error:
                raise UsageError(f"--calibration-cache: {error}") from None


def quantize(run: Run, options: Options, console: Console) -> dict[str, Any]:
    """Stage 3: write model.int8.onnx, amax.json, and of the FP16 models what can be made.

    Those are model.fp16.onnx and model.int8-fp16.onnx. If asked for, calibration.cache is written
    too, from amax.json, whether the stage is skipped or not.

    Returns:
        "calibration_images" used, and "int8_head": accuracy on the test split of the INT8
        backbone with the FP32 last layer and with the one trained on its own bottlenecks, the
        p-value of the two being equal, and which was "used". "impossible": for each FP16 model
        that can't be made ("fp16", "int8-fp16") the reason. "accuracy_guard", if asked for: see
        `accuracy_guard.keep_accuracy`.
    """
    record = run.require("export")
    dataset = trained_dataset(run)
    if options.max_accuracy_drop is not None and not dataset.split("validation"):
        raise UsageError(
            "--max-accuracy-drop decides on validation pictures, and this run has none; "
            f"with a --validation-percentage, run: {command_for('retrain', run.folder)}"
        )
    trained = run.stage("retrain")["options"]
    training = Training(
        trained["steps"], trained["learning_rate"], trained["batch_size"], trained["seed"]
    )

    def work() -> Outcome:
        return _quantize(run, dataset, training, options, console)

    chosen = {**asdict(options), "pictures": dataset.fingerprint()}
    version = chosen.pop("calibration_cache")
    results = run.perform(
        "quantize", [run.folder / f for f in record["outputs"]], chosen, work, console
    )
    if version is not None:
        _write_calibration_cache(run, version)
    return results


def _quantize(
    run: Run, dataset: Dataset, training: Training, options: Options, console: Console
) -> Outcome:
    model = onnx.load(run.onnx("fp32"))
    pictures = calibration_pictures(dataset, options.calibration_images, training.seed)
    console.say(f"quantize: calibrating on {len(pictures)} training pictures ({options.method})")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    size = (dims[1].dim_value, dims[2].dim_value)

    def batches() -> Iterator[np.ndarray]:
        return loader.batches(dataset, pictures, size, BATCH)

    amax = calibration.largest_values(model, batches)
    tensors = quantizable_inputs(model)
    chosen = calibration.thresholds(model, batches, amax, tensors, options.method)
    few = np.concatenate(list(loader.batches(dataset, pictures[:FEW], size, BATCH)))
    parts = _Parts(run, dataset, model, chosen, few, training, options.int8_head, console)
    guarded: dict[str, Any] = {}
    shutil.rmtree(parts.trial, ignore_errors=True)  # of a guard that was cut off
    if options.max_accuracy_drop is None:
        kept = parts.make()
    else:
        try:
            kept, guarded = keep_accuracy(
                parts.make, parts.reference(), chosen, options.max_accuracy_drop, few,
                parts.trial, console,
            )  # fmt: skip
        finally:
            shutil.rmtree(parts.trial, ignore_errors=True)
    quantized = kept.model

    for file in (run.calibration_cache, run.calibration_note):
        file.unlink(missing_ok=True)  # of other values than these
    write_bytes(run.onnx("int8"), quantized.SerializeToString())
    impossible = _write_half(run, {"fp16": model, "int8-fp16": quantized}, amax, console)
    write_json(
        run.amax,
        {
            "schema": 1,
            "pictures": len(pictures),
            "method": options.method,
            "amax": amax,
            "thresholds": chosen,
            "float_layers": guarded.get("float_layers", []),
        },
    )
    variants = [v for v in ("fp16", "int8", "int8-fp16") if v not in impossible]
    return Outcome(
        [*map(run.onnx, variants), run.amax],
        {
            "calibration_images": len(pictures),
            "int8_head": kept.heads,
            "backend": openvino.BACKEND if openvino.unavailable() is None else "onnxruntime",
            "impossible": impossible,
            **({"accuracy_guard": guarded} if guarded else {}),
        },
    )


@dataclass(frozen=True)
class _Parts:
    """What every INT8 graph of the stage is made of, whichever layers it leaves in float.

    thresholds: largest absolute value to represent, of each tensor that may be quantized.
    pixels: calibration pictures to correct biases with.
    """

    run: Run
    dataset: Dataset
    model: ModelProto
    thresholds: dict[str, float]
    pixels: np.ndarray
    training: Training
    int8_head: bool
    console: Console

    @property
    def trial(self) -> Path:
        """Where graphs to compare lie, and their bottlenecks, until one is kept."""
        return self.run.bottlenecks / "trial"

    def make(self, floats: Sequence[str] = ()) -> Candidate:
        """INT8 but for some layers; biases corrected, with a last layer to match.

        An INT8 backbone moves the bottlenecks a little, each its own way; a last layer that was
        trained on the moved ones takes no harm from it.
        """
        quantized = insert_qdq(self.model, self.thresholds, floats)
        convolutions = operations(self.model).get("Conv", 0)
        with self.console.progress("biases", convolutions, "convolutions") as advance:
            correct_biases(quantized, self.model, self.pixels, advance)
        folder = self.trial if floats else self.run.bottlenecks
        splits = self._bottlenecks(quantized, "int8", SPLITS, folder)
        classes = len(self.dataset.classes)
        before = _last_layer(self.model)
        after = train(
            splits["train"], splits["validation"], classes, self.training,
            self.run.logs / "quantize", self.console,
        )  # fmt: skip
        heads = _compare_heads(splits["test"], before, after, self.int8_head)
        if self.int8_head:
            set_last_layer(quantized, after)
        return Candidate(quantized, after if self.int8_head else before, splits, heads)

    def reference(self) -> Candidate:
        """FP32, as it was trained."""
        splits = self._bottlenecks(self.model, "fp32", ("validation", "test"), self.trial)
        return Candidate(self.model, _last_layer(self.model), splits, {})

    def _bottlenecks(
        self, model: ModelProto, precision: str, splits: Sequence[str], folder: Path
    ) -> dict[str, Labelled]:
        graph_file = folder / f"backbone.{precision}.onnx"
        write_bytes(graph_file, backbone_of(model).SerializeToString())
        parts = {split: self.dataset.split(split) for split in splits}
        pictures = [picture for picture in self.dataset.pictures if picture.split in splits]
        with computing_engine(graph_file, precision) as engine:
            cache, _ = bottlenecks.compute(
                self.dataset, pictures, engine, sha256_of(graph_file), folder, self.console
            )
        return {split: cache.labelled(parts[split], self.dataset.classes) for split in splits}


def _write_calibration_cache(run: Run, version: str) -> None:
    """Write amax.json as a TensorRT of this version keeps it, for model.fp32.onnx.

    A device then builds INT8 without pictures. A layer that is kept in float stays so there too,
    unless one in INT8 reads the same tensor: TensorRT runs none in INT8 whose input has no scale.
    """
    calibrated, model = read_json(run.amax), onnx.load(run.onnx("fp32"))
    floats = calibrated["float_layers"]
    kept = {node.input[0] for node in quantized_layers(model) if node.output[0] in floats}
    kept -= set(quantized_inputs(model, floats))
    values = {**calibrated["amax"], **calibrated["thresholds"]}
    # What was always zero takes any scale.
    scaled = {tensor: value or 1.0 for tensor, value in values.items() if tensor not in kept}
    data = calibration_cache.to_bytes(scaled, version)
    algorithm = calibration_cache.ALGORITHMS[0]
    digest = sha256_of(run.onnx("fp32"))
    calibration_cache.keep(run.calibration_cache, data, version, algorithm, digest)


def calibration_pictures(dataset: Dataset, count: int, seed: int) -> list[Picture]:
    """Training pictures to calibrate on, never others: as many of each class as there can be.

    Args:
        count: how many; all training pictures if there are fewer.
        seed: chooses which.
    """
    train_set = dataset.split("train")
    return [train_set[place] for place in balanced([p.label for p in train_set], count, seed)]


def _write_half(
    run: Run, models: dict[str, ModelProto], amax: dict[str, float], console: Console
) -> dict[str, str]:
    """Write each model in FP16 as the variant it is to be, or remove what an earlier run left.

    Args:
        amax: how large the tensors of all these models get.

    Returns:
        For each variant that can't be made the reason.
    """
    impossible = {}
    for variant, model in models.items():
        file = run.onnx(variant)
        try:
            half.check_range(amax)
            write_bytes(file, half.to_fp16(model).SerializeToString())
        except PipelineError as error:
            impossible[variant] = printable(error)
            file.unlink(missing_ok=True)
            console.warn(f"{file.name} can't be made, nor the engines of it: {error}")
    return impossible


def _last_layer(model: ModelProto) -> LastLayer:
    names, values = find_last_layer(model), constants(model)
    kernel = values[names.kernel]
    bias = values[names.bias] if names.bias else np.zeros(kernel.shape[1], np.float32)
    return LastLayer(kernel, bias)


def _compare_heads(
    test: Labelled, before: LastLayer, after: LastLayer, used: bool
) -> dict[str, Any]:
    old, new = (layer.probabilities(test).argmax(1) for layer in (before, after))
    return {
        "fp32_head": top1(old, test.labels),
        "int8_head": top1(new, test.labels),
        "p_value": paired(new, old, test.labels)["p_value"],
        "used": "int8_head" if used else "fp32_head",
    }
