"""ONNX Runtime on the processor."""

from typing import Any, Dict, Optional

import numpy as np

from engines.engine import Engine, EngineError, TensorSpec, processors
from engines.settings import DEFAULT, Settings

BACKEND = "onnxruntime"
SUFFIX = ".onnx"


def unavailable() -> Optional[str]:
    """Why it can't be used here; None if it can."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return "ONNX Runtime is not installed ({}); pip install onnxruntime".format(error)
    return None


def build(
    onnx_path: str,
    engine_path: str,
    precision: str,
    target: str,
    settings: Settings = DEFAULT,
    progress: Any = None,
) -> Dict[str, Any]:
    """Write the graph as ONNX Runtime optimizes it for this processor.

    Args:
        onnx_path: graph with one input (N, height, width, 3) and one output.
        engine_path: file to write.
        precision: "fp32", "fp16" or "int8"; the graph already has it.
        target: "cpu".
        settings, progress: of no use here.

    Returns:
        "options": those that made it.

    Raises:
        EngineError: ONNX Runtime does not take the graph.
    """
    import onnxruntime

    options = _session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = engine_path
    _session(onnx_path, options)
    return {"options": {"graph_optimization_level": "all", "threads": processors()}}


def load(path: str, precision: str) -> Engine:
    """The engine in `path`, which `build` wrote.

    Raises:
        EngineError: it is no graph, or none for this ONNX Runtime.
    """
    import onnxruntime

    options = _session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return OnnxRuntimeEngine(_session(path, options), precision)


def load_graph(onnx_path: str, precision: str = "fp32") -> Engine:
    """An engine straight from an ONNX graph, for use in this process only."""
    return OnnxRuntimeEngine(_session(onnx_path, _session_options()), precision)


class OnnxRuntimeEngine(Engine):
    """An ONNX Runtime session."""

    backend = BACKEND

    def __init__(self, session: Any, precision: str) -> None:
        self.precision = precision
        self._session = session
        source, result = session.get_inputs()[0], session.get_outputs()[0]
        self.input = TensorSpec(source.name, (None, *tuple(source.shape[1:])), "float32")
        self.output = TensorSpec(result.name, (None, *tuple(result.shape[1:])), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`."""
        self.check_pictures(pictures)
        try:
            outputs = self._session.run(
                [self.output.name], {self.input.name: pictures.astype(np.float32)}
            )
        except Exception as error:  # the runtime's own exception types are not public
            raise EngineError("ONNX Runtime failed: {}".format(error)) from error
        result: np.ndarray = outputs[0]
        return result


def _session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processors()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about saving an optimized graph are expected
    # Threads that spin on after a run would slow down whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _session(path: str, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exception types are not public
        raise EngineError("ONNX Runtime can't load {}: {}".format(path, error)) from error
