"""TensorFlow Lite, made from the run's frozen graph by TensorFlow's own converter."""

import warnings
from pathlib import Path
from typing import Any, Iterator, List, Optional

import numpy as np

from engines.engine import Engine, EngineError, TensorSpec, processors
from engines.preprocess import load_good
from engines.tensorflow_graph import INPUT, OUTPUT, import_tensorflow


def convert(frozen: Path, calibration: Optional[List[Path]] = None) -> bytes:
    """A TFLite model of a frozen graph, for one picture at a time.

    Args:
        calibration: picture files, with which it becomes INT8 from input to output, as
            `tf.lite.Optimize.DEFAULT` with a representative data set makes it; FP32 if None.

    Raises:
        EngineError: TensorFlow does not convert it.
    """
    tf = import_tensorflow()
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(frozen.read_bytes())
    source = next(node for node in graph.node if node.name == INPUT)
    _, height, width, _ = (dim.size for dim in source.attr["shape"].shape.dim)
    converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        str(frozen), [INPUT], [OUTPUT], input_shapes={INPUT: [1, height, width, 3]}
    )
    if calibration is not None:
        files = calibration

        def pictures() -> Iterator[List[np.ndarray]]:
            for file in files:
                yield [load_good(file, height, width)[np.newaxis].astype(np.float32)]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = pictures
    model: bytes = converter.convert()
    return model


class TFLiteEngine(Engine):
    """TensorFlow Lite's interpreter, with XNNPACK and every processor."""

    backend = "tflite"

    def __init__(self, model: bytes, precision: str) -> None:
        """Load a model that takes one picture."""
        self.precision = precision
        self._interpreter = _interpreter(model)
        self._interpreter.allocate_tensors()
        source = self._interpreter.get_input_details()[0]
        result = self._interpreter.get_output_details()[0]
        self._source, self._result = source["index"], result["index"]
        self.input = TensorSpec(INPUT, (None, *map(int, source["shape"][1:])), "float32")
        self.output = TensorSpec(OUTPUT, (None, *map(int, result["shape"][1:])), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`; one picture after another."""
        answers = []
        for place in range(len(pictures)):
            pixels = pictures[place : place + 1].astype(np.float32)
            self._interpreter.set_tensor(self._source, pixels)
            self._interpreter.invoke()
            answers.append(self._interpreter.get_tensor(self._result))
        return np.concatenate(answers)


def _interpreter(model: bytes) -> Any:
    lite = import_tensorflow().lite
    if not hasattr(lite, "Interpreter"):
        raise EngineError("this TensorFlow has no interpreter of TFLite any more")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move to another package
        return lite.Interpreter(model_content=model, num_threads=processors())
