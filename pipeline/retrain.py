"""Pictures -> a retrained classifier: whole Keras model, frozen graph and labels."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.accuracy import measure, misclassified
from benchmarks.progress import Console
from engines import onnx_runtime, openvino
from engines.engine import Engine
from engines.files import replacing, sha256_of, write_bytes, write_json, write_text
from engines.tensorflow_graph import OUTPUT
from engines.text import printable
from pipeline import backbones, bottlenecks, graph
from pipeline.dataset import SPLITS, Dataset, scan
from pipeline.errors import UsageError
from pipeline.last_layer import LastLayer, Training, train
from pipeline.run import Outcome, Run, command_for, versions

MOST = 2**31 - 1  # of steps and of pictures in a batch
SHOWN = 10  # misclassified pictures printed; all are in model/test.json


@dataclass(frozen=True)
class Options:
    """What `edgetrt retrain` is asked for; see its flags.

    Raises UsageError for a value out of range.
    """

    image_dir: Path
    architecture: str = backbones.DEFAULT
    weights: str = backbones.IMAGENET
    steps: int = 400
    learning_rate: float = 0.005
    batch_size: int = 100
    testing: float = 10.0
    validation: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, value in (
            ("how-many-training-steps", self.steps),
            ("train-batch-size", self.batch_size),
        ):
            if not 1 <= value <= MOST:
                raise UsageError(f"--{flag} must be from 1 to {MOST}; received {value}")
        if not (0 < self.learning_rate < math.inf):
            raise UsageError(
                f"--learning-rate must be a number above 0; received {self.learning_rate}"
            )
        if not (self.testing > 0 and self.validation >= 0 and self.testing + self.validation < 100):
            raise UsageError(
                "--testing-percentage must be above 0, --validation-percentage not below, and "
                f"both together below 100; received {self.testing:g} and {self.validation:g}"
            )
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed must be from 0 to {2**32 - 1}; received {self.seed}")


def retrain(run: Run, options: Options, console: Console) -> dict[str, Any]:
    """Stage 1: retrain the last layer on the pictures of `options.image_dir`.

    Returns:
        "top1" and "ci95" on the test split (0..1), "n" test pictures, "misclassified": how
        many, "computed": bottlenecks computed this time, and seconds of each part.
    """
    backbone = backbones.describe(options.architecture, options.weights, options.seed)
    start = time.monotonic()
    dataset = _scan(run, options, console)
    scan_seconds = time.monotonic() - start

    def work() -> Outcome:
        return _retrain(run, dataset, backbone, options, scan_seconds, console)

    chosen = {k: v for k, v in asdict(options).items() if k != "image_dir"}
    chosen.update(backbone=backbone, pictures=dataset.fingerprint())
    return run.perform("retrain", [], chosen, work, console)


def trained_dataset(run: Run) -> Dataset:
    """The pictures and the split that the run's model was trained on.

    Raises:
        UsageError: a later scan found others, and its training never ended. Another split could
            put pictures to the test that the model has learnt.
    """
    dataset = Dataset.load(run.dataset)
    if dataset.fingerprint() != run.stage("retrain")["options"]["pictures"]:
        raise UsageError(
            f"{run.dataset} lists other pictures, or another split, than the model was trained "
            f"on; run: {command_for('retrain', run.folder)}"
        )
    return dataset


def computing_engine(graph_file: Path, precision: str) -> Engine:
    """The fastest engine here that runs an ONNX graph: OpenVINO, else ONNX Runtime."""
    if openvino.unavailable() is None:
        return openvino.load_graph(str(graph_file), precision)
    return onnx_runtime.load_graph(str(graph_file), precision)


def _scan(run: Run, options: Options, console: Console) -> Dataset:
    if run.folder.resolve().is_relative_to(options.image_dir.resolve()):
        raise UsageError(
            f"--run {run.folder} lies inside --image-dir, where it would be taken for a class; "
            "choose another --run"
        )
    before = Dataset.load(run.dataset) if run.dataset.exists() else None
    dataset = scan(
        options.image_dir, options.testing, options.validation, options.seed, console, before
    )
    if before:
        known = {picture.sha256 for picture in before.pictures}
        if not any(picture.sha256 in known for picture in dataset.pictures):
            raise UsageError(
                f"{run.folder} was made from other pictures ({printable(before.root)}); "
                "choose a new --run"
            )
    if dataset != before:
        dataset.save(run.dataset)
    return dataset


def _retrain(
    run: Run,
    dataset: Dataset,
    description: dict[str, str],
    options: Options,
    scan_seconds: float,
    console: Console,
) -> Outcome:
    clock = _Clock()
    console.say(f"retrain: {len(dataset.pictures)} pictures, {len(dataset.classes)} classes")
    backbone = backbones.build(options.architecture, options.weights, options.seed, console.warn)
    _export_backbone(run, backbone, description)
    with computing_engine(run.backbone, "fp32") as engine:
        clock.lap("backbone")
        cache, computed = bottlenecks.compute(
            dataset, dataset.pictures, engine, sha256_of(run.backbone), run.bottlenecks, console
        )
    clock.lap("bottlenecks")
    splits = {s: cache.labelled(dataset.split(s), dataset.classes) for s in SPLITS}
    layer = train(
        splits["train"],
        splits["validation"],
        len(dataset.classes),
        Training(options.steps, options.learning_rate, options.batch_size, options.seed),
        run.logs / "retrain",
        console,
    )
    clock.lap("training")
    probabilities = layer.probabilities(splits["test"])
    test = measure(probabilities, splits["test"].labels, len(dataset.classes))
    names = [picture.path for picture in dataset.split("test")]
    mistakes = misclassified(probabilities, splits["test"].labels, names, dataset.classes)
    _save(run, backbone, layer, dataset.classes)
    test_file = run.keras_model.with_name("test.json")
    write_json(test_file, {**test, "misclassified": mistakes})
    clock.lap("saving")

    low, high = test["ci95"]
    console.say(
        f"retrain: test accuracy {test['top1']:.2%} (95 % interval {low:.1%} to {high:.1%}, "
        f"{test['n']} pictures)"
    )
    for wrong in mistakes[:SHOWN]:
        console.say(
            f"  misclassified: {printable(wrong['path'])} is {printable(wrong['truth'])}, "
            f"taken for {printable(wrong['predicted'])} ({wrong['probability']:.0%})"
        )
    if len(mistakes) > SHOWN:
        console.say(f"  and {len(mistakes) - SHOWN} more in {test_file}")
    return Outcome(
        [run.keras_model, run.frozen_graph, run.labels, test_file],
        {
            "top1": test["top1"],
            "ci95": test["ci95"],
            "n": test["n"],
            "misclassified": len(mistakes),
            "computed": computed,
            "seconds": {"scan": scan_seconds, **clock.laps},
        },
    )


def _export_backbone(run: Run, backbone: backbones.Backbone, description: dict[str, str]) -> None:
    """Write the backbone's graph, unless the one that is there is made of the same."""
    made_of = {**description, **versions()}
    note = run.backbone.with_suffix(".json")

    def facts() -> bytes:
        return json.dumps({**made_of, "sha256": sha256_of(run.backbone)}).encode()

    if run.backbone.exists() and note.exists() and note.read_bytes() == facts():
        return
    exported = graph.to_onnx(graph.freeze(backbone.model), output="bottlenecks")
    write_bytes(run.backbone, exported.SerializeToString())
    write_bytes(note, facts())


class _Clock:
    """Seconds of each part of the work, in `laps`."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._start = time.monotonic()

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.laps[part] = round(now - self._start, 3)
        self._start = now


def _save(run: Run, backbone: backbones.Backbone, layer: LastLayer, classes: Sequence[str]) -> None:
    import keras

    outputs = keras.layers.Dense(len(classes), activation="softmax", name=OUTPUT)
    pixels = keras.Input(backbone.model.input_shape[1:], name="pixels")
    model = keras.Model(pixels, outputs(backbone.model(pixels)), name="retrained")
    outputs.set_weights([layer.kernel, layer.bias])
    with replacing(run.keras_model) as temporary:
        model.save(temporary)
    write_bytes(run.frozen_graph, graph.freeze(model))
    write_text(run.labels, "".join(f"{name}\n" for name in classes))
