"""ONNX Runtime on the processor."""

import json
import tempfile
from pathlib import Path
from typing import Any, Dict, Optional, Union

import numpy as np

from engines.engine import Engine, EngineError, TensorSpec, processors
from engines.settings import DEFAULT, Settings

BACKEND = "onnxruntime"
SUFFIX = ".onnx"
KERNEL = "_kernel_time"  # how the name of a node's event ends in a profile


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
    _session(onnx_path, onnx_path, options)
    return {"options": {"graph_optimization_level": "all", "threads": processors()}}


def load(data: bytes, path: str, precision: str) -> Engine:
    """An engine that `build` wrote.

    Args:
        data: the engine.
        path: where it is from.

    Raises:
        EngineError: it is no graph, or none for this ONNX Runtime.
    """
    return OnnxRuntimeEngine(data, path, precision, optimize=False)


def load_graph(onnx_path: str, precision: str = "fp32", optimize: bool = True) -> Engine:
    """An engine straight from an ONNX graph, for use in this process only.

    Args:
        optimize: whether ONNX Runtime may change the graph for speed; INT8 then answers
            otherwise, as whole layers are computed in integers.
    """
    return OnnxRuntimeEngine(Path(onnx_path).read_bytes(), onnx_path, precision, optimize)


class OnnxRuntimeEngine(Engine):
    """An ONNX Runtime session."""

    backend = BACKEND

    def __init__(self, data: bytes, path: str, precision: str, optimize: bool) -> None:
        """Load a graph.

        Args:
            path: where it is from.
            optimize: whether it may be changed for speed.
        """
        self.precision = precision
        self._data, self._path, self._optimize = data, path, optimize
        self._session = session = _session(data, path, self._options())
        source, result = session.get_inputs()[0], session.get_outputs()[0]
        self.input = TensorSpec(source.name, (None, *tuple(source.shape[1:])), "float32")
        self.output = TensorSpec(result.name, (None, *tuple(result.shape[1:])), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`."""
        self.check_pictures(pictures)
        return self._run(self._session, pictures)

    def layer_times(self, pictures: np.ndarray, runs: int = 10) -> Dict[str, float]:
        """See `Engine.layer_times`; another session is made for it."""
        self.check_pictures(pictures)
        try:
            with tempfile.TemporaryDirectory() as folder:
                options = self._options()
                options.enable_profiling = True
                options.profile_file_prefix = str(Path(folder) / "profile")
                session = _session(self._data, self._path, options)
                for _ in range(runs + 1):
                    self._run(session, pictures)
                profile = Path(session.end_profiling()).read_text(encoding="utf-8")
            return _layer_times(json.loads(profile), runs)
        except (OSError, ValueError, LookupError) as error:
            raise EngineError("ONNX Runtime can't be profiled: {}".format(error)) from error

    def _options(self) -> Any:
        import onnxruntime

        levels, options = onnxruntime.GraphOptimizationLevel, _session_options()
        best, none = levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL
        options.graph_optimization_level = best if self._optimize else none
        return options

    def _run(self, session: Any, pictures: np.ndarray) -> np.ndarray:
        try:
            outputs = session.run(
                [self.output.name], {self.input.name: pictures.astype(np.float32)}
            )
        except Exception as error:  # the runtime's own exception types are not public
            raise EngineError("ONNX Runtime failed: {}".format(error)) from error
        result: np.ndarray = outputs[0]
        return result


def _layer_times(events: Any, runs: int) -> Dict[str, float]:
    """Mean milliseconds of each node in the last `runs` of a profile's runs."""
    begin = sorted(event["ts"] for event in events if event["name"] == "model_run")[-runs]
    times = {}  # type: Dict[str, float]
    for event in events:
        name = event["name"]
        if event["cat"] == "Node" and name.endswith(KERNEL) and event["ts"] >= begin:
            name = name[: -len(KERNEL)]
            times[name] = times.get(name, 0.0) + event["dur"] / 1000 / runs  # microseconds
    return times


def _session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = processors()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; warnings about saving an optimized graph are expected
    # Threads that spin on after a run would slow down whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _session(source: Union[bytes, str], path: str, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exception types are not public
        raise EngineError("ONNX Runtime can't load {}: {}".format(path, error)) from error
