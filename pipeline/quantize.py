"""ONNX fp32 -> fp16 and int8, calibrated on training pictures, with a last layer to match."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from benchmarks.accuracy import compare
from engines import openvino
from engines.files import sha256_of, write_bytes, write_json
from pipeline import bottlenecks, calibration, half, loader
from pipeline.bias_correction import correct_biases
from pipeline.dataset import SPLITS, Dataset, Picture
from pipeline.errors import PipelineError, UsageError, printable
from pipeline.graph import operations
from pipeline.last_layer import Labelled, LastLayer, Training, train
from pipeline.progress import Console
from pipeline.qdq import insert_qdq, quantized_inputs
from pipeline.retrain import answers, computing_engine, trained_dataset
from pipeline.run import Outcome, Run
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

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise UsageError(
                f"--calibration-images must be at least 1; received {self.calibration_images}"
            )


def quantize(run: Run, options: Options, console: Console) -> dict[str, Any]:
    """Stage 3: write model.int8.onnx, amax.json, and of the FP16 models what can be made.

    Those are model.fp16.onnx and model.int8-fp16.onnx.

    Returns:
        "calibration_images" used, and "int8_head": accuracy on the test split of the INT8
        backbone with the FP32 last layer and with the one trained on its own bottlenecks, the
        p-value of the two being equal, and which was "used". "impossible": for each FP16 model
        that can't be made ("fp16", "int8-fp16") the reason.
    """
    record = run.require("export")
    dataset = trained_dataset(run)
    trained = run.stage("retrain")["options"]
    training = Training(
        trained["steps"], trained["learning_rate"], trained["batch_size"], trained["seed"]
    )

    def work() -> Outcome:
        return _quantize(run, dataset, training, options, console)

    chosen = {**asdict(options), "pictures": dataset.fingerprint()}
    return run.perform(
        "quantize", [run.folder / f for f in record["outputs"]], chosen, work, console
    )


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
    tensors = list(quantized_inputs(model))
    chosen = calibration.thresholds(model, batches, amax, tensors, options.method)
    quantized = insert_qdq(model, chosen)
    few = np.concatenate(list(loader.batches(dataset, pictures[:FEW], size, BATCH)))
    with console.progress("biases", operations(model).get("Conv", 0), "convolutions") as advance:
        correct_biases(quantized, model, few, advance)
    int8_head = _int8_head(run, dataset, model, quantized, training, options, console)

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
        },
    )
    variants = [v for v in ("fp16", "int8", "int8-fp16") if v not in impossible]
    return Outcome(
        [*map(run.onnx, variants), run.amax],
        {
            "calibration_images": len(pictures),
            "int8_head": int8_head,
            "backend": openvino.BACKEND if openvino.unavailable() is None else "onnxruntime",
            "impossible": impossible,
        },
    )


def calibration_pictures(dataset: Dataset, count: int, seed: int) -> list[Picture]:
    """Training pictures to calibrate on, never others: as many of each class as there can be.

    Args:
        count: how many; all training pictures if there are fewer.
        seed: chooses which.
    """
    random = np.random.default_rng(seed)
    train_set = dataset.split("train")
    queues = []
    for name in dataset.classes:
        members = [picture for picture in train_set if picture.label == name]
        queues.append([members[place] for place in random.permutation(len(members))])
    rounds = max(map(len, queues))
    turns = [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]
    return turns[:count]


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


def _int8_head(
    run: Run,
    dataset: Dataset,
    model: ModelProto,
    quantized: ModelProto,
    training: Training,
    options: Options,
    console: Console,
) -> dict[str, Any]:
    """Train a last layer on the INT8 backbone's bottlenecks; put it into `quantized` if wanted.

    The INT8 backbone moves the bottlenecks a little, each its own way; a last layer that was
    trained on the moved ones takes no harm from it.
    """
    graph_file = run.bottlenecks / "backbone.int8.onnx"
    write_bytes(graph_file, backbone_of(quantized).SerializeToString())
    with computing_engine(graph_file, "int8") as engine:
        cache, _ = bottlenecks.compute(
            dataset, dataset.pictures, engine, sha256_of(graph_file), run.bottlenecks, console
        )
    splits = {s: cache.labelled(dataset.split(s), dataset.classes) for s in SPLITS}
    classes = len(dataset.classes)
    layer = train(
        splits["train"], splits["validation"], classes, training, run.logs / "quantize", console
    )
    if options.int8_head:
        set_last_layer(quantized, layer)
    return _compare_heads(splits["test"], _last_layer(model), layer, classes, options.int8_head)


def _last_layer(model: ModelProto) -> LastLayer:
    names, values = find_last_layer(model), constants(model)
    kernel = values[names.kernel]
    bias = values[names.bias] if names.bias else np.zeros(kernel.shape[1], np.float32)
    return LastLayer(kernel, bias)


def _compare_heads(
    test: Labelled, before: LastLayer, after: LastLayer, classes: int, used: bool
) -> dict[str, Any]:
    old, old_accuracy = answers(before, test, classes)
    new, new_accuracy = answers(after, test, classes)
    paired = compare(new.argmax(1), old.argmax(1), test.labels)
    kept = ("top1", "ci95", "n")
    return {
        "fp32_head": {key: old_accuracy[key] for key in kept},
        "int8_head": {key: new_accuracy[key] for key in kept},
        "p_value": paired["p_value"],
        "used": "int8_head" if used else "fp32_head",
    }
