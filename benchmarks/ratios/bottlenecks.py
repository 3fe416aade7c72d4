"""Pictures a second, from file to bottleneck: edgetrt, Keras with tf.data, and bare OpenVINO."""

import json
import time
from pathlib import Path
from typing import Any, List

import numpy as np

from benchmarks.ratios.command import edgetrt, progress, scratch
from benchmarks.ratios.figure import Figure, ratio
from engines.tensorflow_graph import import_tensorflow

ROUNDS = 5
BATCH = 32  # of Keras: the usual one, and no slower here than larger ones
WARM_UP = 64  # pictures


def measure(pictures: Path) -> List[Figure]:
    """Compare on the same picture files, the three taking turns.

    Ours is timed from the first picture to the last bottleneck on the disk, with everything that
    belongs to it: checking each file's hash, writing the cache. The others are warm and drop
    what they compute. Opening the engine counts for none of them.

    Args:
        pictures: a folder with one folder of pictures for each class.
    """
    ours: List[float] = []
    keras: List[float] = []
    openvino: List[float] = []
    with scratch() as folder:
        first = folder / "first"
        _retrain(pictures, first)
        files = _files(first)
        predict = _Keras(first / "model" / "retrained.keras")
        infer = _OpenVINO(first / "bottlenecks" / "backbone.onnx")
        for number in range(ROUNDS):
            progress("bottlenecks: round {} of {}".format(number + 1, ROUNDS))
            result = _retrain(pictures, folder / str(number))
            ours.append(result["computed"] / result["seconds"]["bottlenecks"])
            openvino.append(infer.pictures_per_second(len(files)))
            keras.append(predict.pictures_per_second(files))
    unit = "pictures/s"
    return [
        ratio("bottlenecks, against Keras predict with tf.data", unit, ours, keras, 3),
        ratio("bottlenecks, against OpenVINO without decoding", unit, ours, openvino, 0.85),
    ]


def _retrain(pictures: Path, run: Path) -> Any:
    return edgetrt(
        "retrain", "--image-dir", pictures, "--run", run, "--how-many-training-steps", 1
    ).result


def _files(run: Path) -> List[str]:
    with (run / "dataset.json").open() as opened:
        dataset = json.load(opened)
    return [str(Path(dataset["root"], picture["path"])) for picture in dataset["pictures"]]


class _Keras:
    """The same network as its Keras users would run it."""

    def __init__(self, model: Path) -> None:
        self._tf = import_tensorflow()
        import keras

        self._keras = keras
        whole = keras.models.load_model(str(model))
        self._backbone = keras.Model(whole.input, whole.layers[-1].input)

    def pictures_per_second(self, files: List[str]) -> float:
        self._predict(files[:WARM_UP])
        start = time.perf_counter()
        return len(files) / (self._predict(files) - start)

    def _predict(self, files: List[str]) -> float:
        """Compute all, and give the time at which the last batch was there.

        Every other time, predict returns only when tf.data's tuning thread wakes up, after 0.01 s,
        0.02 s, 0.04 s and so on (TensorFlow 2.21): up to as long again as all batches took.
        """
        tf = self._tf
        size = self._backbone.input_shape[1:3]

        def pixels(file: Any) -> Any:
            picture = tf.io.decode_image(tf.io.read_file(file), 3, expand_animations=False)
            return tf.image.resize(picture, size)  # bilinear; its "area" is slower

        pictures = tf.data.Dataset.from_tensor_slices(files)
        pictures = pictures.map(pixels, num_parallel_calls=tf.data.AUTOTUNE)
        batches = pictures.batch(BATCH).prefetch(tf.data.AUTOTUNE)
        ends: List[float] = []
        clock = self._keras.callbacks.LambdaCallback(
            on_predict_batch_end=lambda *_, **__: ends.append(time.perf_counter())
        )
        self._backbone.predict(batches, verbose=0, callbacks=[clock])
        return ends[-1]


class _OpenVINO:
    """The backbone's graph in OpenVINO as its users would run it, on pixels already in memory."""

    def __init__(self, graph: Path) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(str(graph))
        shape = model.input().get_partial_shape()
        shape[0] = 1
        model.reshape(shape)
        # FP32, as ours: on processors with AMX OpenVINO would compute in BF16.
        config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
        self._queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", config))
        random = np.random.default_rng(0)
        self._pixels = random.integers(0, 256, tuple(shape.to_shape())).astype(np.float32)

    def pictures_per_second(self, count: int) -> float:
        self._infer(WARM_UP)
        start = time.perf_counter()
        self._infer(count)
        return count / (time.perf_counter() - start)

    def _infer(self, count: int) -> None:
        for _ in range(count):
            self._queue.start_async([self._pixels])
        self._queue.wait_all()
