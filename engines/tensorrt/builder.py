"""ONNX -> serialized engine, by the part of the API that TensorRT 10, 11 and RTX share.

Networks are strongly typed: every tensor has the type the ONNX graph gives it, and precision is
chosen by choosing the graph. That is the only way from TensorRT 11 on, and works from 10 on.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

from engines.engine import EngineError

MAX_BATCH = 32
OPTIMAL_BATCH = 1


class Plan(NamedTuple):
    """A serialized engine, and what the builder warned of, each warning with how often."""

    data: bytes
    warnings: Dict[str, int]


def build_plan(trt: Any, onnx_path: str, configure: Callable[[Any], None]) -> Plan:
    """Build an engine for batches of 1 to 32, fastest at 1.

    Args:
        trt: the module `tensorrt` (10 or newer) or `tensorrt_rtx`.
        onnx_path: graph with one input (batch, height, width, 3), typed throughout.
        configure: is given the builder's configuration, to say what it builds for.

    Raises:
        EngineError: the parser or the builder refuses; with their words and the node's name.
    """
    log: List[str] = []
    logger = _make_logger(trt, log)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(Path(onnx_path).read_bytes()):
        raise EngineError(
            "TensorRT's parser refuses {}: {}".format(onnx_path, _parser_errors(parser))
        )
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise EngineError("{} is no graph with one input and one output".format(onnx_path))
    config = builder.create_builder_config()
    configure(config)
    profile = builder.create_optimization_profile()
    source = network.get_input(0)
    picture = tuple(source.shape)[1:]
    profile.set_shape(source.name, (1, *picture), (OPTIMAL_BATCH, *picture), (MAX_BATCH, *picture))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        errors = [line for line in log if line.startswith("error: ")]
        raise EngineError(
            "TensorRT can't build {}: {}".format(
                onnx_path, errors[-1] if errors else "it gives no reason"
            )
        )
    warnings = Counter(line[len("warning: ") :] for line in log if line.startswith("warning: "))
    return Plan(bytes(plan), dict(warnings))


def _make_logger(trt: Any, log: List[str]) -> Any:
    """A logger that keeps errors and warnings in `log` instead of printing them."""
    severity = trt.ILogger.Severity
    names = {
        severity.INTERNAL_ERROR: "error: ",
        severity.ERROR: "error: ",
        severity.WARNING: "warning: ",
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the binding demands this very call

        def log(self, level: Any, message: str) -> None:
            if level in names:
                log.append(names[level] + message)

    return Logger()


def _strongly_typed(trt: Any) -> int:
    # TensorRT 11 and RTX know nothing else; the flag's number differs from version to version.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_errors(parser: Any) -> str:
    errors = (parser.get_error(number) for number in range(parser.num_errors))
    return "; ".join(
        "node {} ({}): {}".format(error.node(), error.node_name(), error.desc())
        if hasattr(error, "node_name")
        else "node {}: {}".format(error.node(), error.desc())
        for error in errors
    )
