"""Executing a graph with ONNX Runtime."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime


class Graph:
    """A graph that is ready to be executed, by several threads if need be."""

    def __init__(self, onnx: bytes) -> None:
        self._onnx = onnx
        self._session = self._open(onnxruntime.SessionOptions())
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs."""
        found: list[np.ndarray] = self._session.run(self.outputs, feeds)
        return found

    def run_timed(
        self, feeds: dict[str, np.ndarray]
    ) -> tuple[list[np.ndarray], list[tuple[str, float]]]:
        """The outputs, and the milliseconds that each node took, in the order they ran."""
        with tempfile.TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "layers")
            session = self._open(options)
            found = session.run(self.outputs, feeds)
            events = json.loads(Path(session.end_profiling()).read_text())
        times = [
            (event["name"].removesuffix("_kernel_time"), event["dur"] / 1000)
            for event in events
            if event["cat"] == "Node" and event["name"].endswith("_kernel_time")
        ]
        return found, times

    def _open(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        options.log_severity_level = 4
        # Its networks are small; threads that wait for work would only keep others from theirs.
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(
            self._onnx,
            options,
            providers=["CPUExecutionProvider"],
            # It makes INT32 biases whose scale is the product of two others, which in FP16 is 0.
            disabled_optimizers=["WeightBiasQuantization"],
        )
