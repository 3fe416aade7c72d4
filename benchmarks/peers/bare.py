"""ONNX Runtime and OpenVINO called directly, as their documentation shows."""

from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Tuple

import numpy as np

from engines.engine import Engine, EngineError, TensorSpec


class BareOnnxRuntime(Engine):
    """A session with every option as it comes, but that it is quiet."""

    backend = "onnxruntime"

    def __init__(self, graph: Path, precision: str) -> None:
        import onnxruntime

        self.precision = precision
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; it warns of each constant that it folds
        self._session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
        source, result = self._session.get_inputs()[0], self._session.get_outputs()[0]
        self.input = TensorSpec(source.name, (None, *tuple(source.shape[1:])), "float32")
        self.output = TensorSpec(result.name, (None, *tuple(result.shape[1:])), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`."""
        outputs = self._session.run(None, {self.input.name: pictures.astype(np.float32)})
        probabilities: np.ndarray = outputs[0]
        return probabilities


class BareOpenVINO(Engine):
    """A compiled model for one picture; batches by a queue of a second one, for throughput."""

    backend = "openvino"

    def __init__(self, graph: Path, precision: str, config: Dict[str, Any]) -> None:
        """Compile.

        Args:
            config: what is set; {} is OpenVINO as it comes.
        """
        import openvino

        self.precision = precision
        core = openvino.Core()
        model = core.read_model(str(graph))
        shape = model.input().get_partial_shape()
        shape[0] = 1
        model.reshape(shape)
        self._compiled = core.compile_model(model, "CPU", config)
        self._for_many = core.compile_model(
            model, "CPU", dict(config, PERFORMANCE_HINT="THROUGHPUT")
        )
        self._queue = openvino.AsyncInferQueue(self._for_many)
        self._queue.set_callback(_keep)
        classes = int(model.output().get_partial_shape().to_shape()[1])
        size = tuple(shape.to_shape())[1:]
        self.input = TensorSpec(model.input().any_name, (None, *size), "float32")
        self.output = TensorSpec(model.output().any_name, (None, classes), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`."""
        if len(pictures) > 1:
            return next(self.stream([pictures]))
        probabilities: np.ndarray = self._compiled(pictures.astype(np.float32))[0]
        return probabilities.copy()

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """See `Engine.stream`."""
        for pictures in batches:
            results = np.empty((len(pictures), int(self.output.shape[1] or 0)), np.float32)
            for place in range(len(pictures)):
                pixels = pictures[place : place + 1].astype(np.float32)
                self._queue.start_async([pixels], (results, place))
            self._queue.wait_all()
            yield results


def computes_in() -> str:
    """The type that OpenVINO computes float graphs in here when it is not asked: "f32", "bf16".

    Raises:
        EngineError: it does not tell.
    """
    import openvino

    found = str(openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT"))
    names = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
    for name, short in names.items():
        if name in found:
            return short
    raise EngineError("OpenVINO computes in {}, which is not known here".format(found))


def _keep(request: Any, job: Tuple[np.ndarray, int]) -> None:
    results, place = job
    results[place] = request.get_output_tensor().data[0]
