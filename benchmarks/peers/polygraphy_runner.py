"""TensorRT by Polygraphy, NVIDIA's own tool for building and running its engines from Python."""

from pathlib import Path
from typing import Any, Dict

import numpy as np

from benchmarks.peers.packages import make_importable
from engines.engine import Engine, EngineError, TensorSpec
from engines.tensorrt import standard

REQUIREMENT = "polygraphy==0.53.6"  # for TensorRT 8.5 and later
SHA256 = "539095f64054823aabac5d4c8d64875b5a1542b71ca76443e218a01fdc1a4e03"
STRONGLY_TYPED = 10  # the TensorRT from which the graph alone says which types are computed in


class PolygraphyEngine(Engine):
    """Polygraphy's `TrtRunner` for one picture, of an engine that it builds first."""

    backend = "tensorrt"

    def __init__(self, graph: Path, precision: str) -> None:
        """Build an engine and begin to run it.

        Raises:
            EngineError: TensorRT does not run here, or Polygraphy can't be had.
        """
        reason = standard.none_runs()
        if reason is not None:
            raise EngineError(reason)
        make_importable(REQUIREMENT, SHA256)
        import tensorrt
        from polygraphy.backend.trt import (
            CreateConfig,
            EngineFromNetwork,
            NetworkFromOnnxPath,
            Profile,
            TrtRunner,
        )

        strongly_typed = int(tensorrt.__version__.split(".")[0]) >= STRONGLY_TYPED
        types: Dict[str, Any] = {}
        if not strongly_typed:
            types = {"fp16": precision != "fp32", "int8": precision == "int8"}
        parsed = NetworkFromOnnxPath(str(graph), strongly_typed=strongly_typed)()
        network = parsed[1]
        source, result = network.get_input(0), network.get_output(0)
        shape = (1, *tuple(source.shape)[1:])
        profile = Profile().add(source.name, min=shape, opt=shape, max=shape)
        build = EngineFromNetwork(parsed, config=CreateConfig(profiles=[profile], **types))
        self._runner = TrtRunner(build)
        self._runner.activate()
        self.precision = precision
        self.input = TensorSpec(source.name, (None, *shape[1:]), "float32")
        self.output = TensorSpec(result.name, (None, *tuple(result.shape)[1:]), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`; one picture after another."""
        answers = []
        for place in range(len(pictures)):
            pixels = pictures[place : place + 1].astype(np.float32)
            # Polygraphy's next call writes into the same memory.
            outputs = self._runner.infer({self.input.name: pixels}, check_inputs=False)
            answers.append(outputs[self.output.name].copy())
        return np.concatenate(answers)

    def close(self) -> None:
        """See `Engine.close`."""
        self._runner.deactivate()
