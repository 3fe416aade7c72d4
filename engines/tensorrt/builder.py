"""ONNX -> serialized engine, in whatever dialect the installed TensorRT speaks."""

from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from engines.engine import EngineError
from engines.settings import Settings
from engines.tensorrt.calibrator import BATCH as CALIBRATION_BATCH
from engines.tensorrt.dialect import Dialect
from engines.tensorrt.logger import log_of
from engines.tensorrt.onnx_file import node_of, opset_of
from engines.text import printable

# Told the name of a phase, how many of its steps are done, and of how many.
Progress = Callable[[str, int, int], None]


class Plan(NamedTuple):
    """A serialized engine, what the builder warned of with how often, and what it measured."""

    data: bytes
    warnings: Dict[str, int]
    timing_cache: Optional[bytes]


def build_plan(
    dialect: Dialect,
    onnx_path: str,
    precision: str,
    target: str,
    settings: Settings,
    workspace: int,
    timing_cache: bytes = b"",
    make_calibrator: Optional[Callable[[Any], Any]] = None,
    progress: Optional[Progress] = None,
    detailed: bool = False,
) -> Plan:
    """Build an engine.

    Args:
        onnx_path: graph with one input (batch, height, width, 3) and one output.
        precision: "fp32", "fp16" or "int8".
        target: "sm86" and the like.
        workspace: bytes that a layer may use for scratch.
        timing_cache: what an earlier build on this GPU measured.
        make_calibrator: gives a calibrator for a shape (height, width, 3), if INT8 is not in
            the graph.
        detailed: keep in the engine what its layers are, for the inspector.

    Raises:
        EngineError: the parser or the builder refuses; with their words and the node's name.
    """
    trt, log = dialect.trt, log_of(dialect.trt)
    log.clear()
    builder = trt.Builder(log.logger)
    network = dialect.create_network(builder, calibrated=make_calibrator is not None)
    _parse(dialect, log, network, onnx_path)
    dialect.adapt_network(network, target)
    source = network.get_input(0)
    picture = tuple(source.shape)[1:]
    if -1 in picture:
        raise EngineError(
            "input {} of {} must have one height and width; its shape is {}".format(
                source.name, onnx_path, tuple(source.shape)
            )
        )
    config = builder.create_builder_config()
    calibrator = make_calibrator(picture) if make_calibrator else None
    dialect.set_target(config, target)
    dialect.set_workspace(config, workspace)
    dialect.set_precision(config, precision, calibrator)
    cache = dialect.set_timing_cache(config, timing_cache)
    if detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if progress and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _make_monitor(trt, progress)
    config.add_optimization_profile(_profile(builder, source.name, picture, settings.batch))
    if calibrator is not None:
        fixed = (CALIBRATION_BATCH,) * 3
        config.set_calibration_profile(_profile(builder, source.name, picture, fixed))
    try:
        data = builder.build_serialized_network(network, config)
    finally:
        if calibrator is not None:
            calibrator.free()
    if calibrator is not None and calibrator.error is not None:
        raise EngineError("calibration failed: {}".format(calibrator.error))
    if data is None:
        raise EngineError("TensorRT can't build {}: {}".format(onnx_path, log.error()))
    measured = None if cache is None else bytes(cache.serialize())
    return Plan(bytes(data), log.warnings(), measured)


def _parse(dialect: Dialect, log: Any, network: Any, onnx_path: str) -> None:
    parser = dialect.trt.OnnxParser(network, log.logger)
    try:
        data = Path(onnx_path).read_bytes()
    except OSError as error:
        raise EngineError("{} can't be read: {}".format(onnx_path, error.strerror)) from error
    opset = opset_of(data)
    if opset > dialect.newest_opset:  # most parsers read it all the same, as what they know
        raise EngineError(
            "{} needs ONNX opset {}; {} has those up to {}".format(
                onnx_path, opset, dialect.name, dialect.newest_opset
            )
        )
    if not parser.parse(data):
        raise EngineError(
            "TensorRT's parser refuses {}: {}".format(onnx_path, _parser_errors(parser, log, data))
        )
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise EngineError("{} is no graph with one input and one output".format(onnx_path))


def _parser_errors(parser: Any, log: Any, data: bytes) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return "; ".join(_describe(error, data) for error in errors) if errors else str(log.error())


def _describe(error: Any, data: bytes) -> str:
    """A parser's error in one line: which node, if it is about one, and why."""
    if hasattr(error, "node_name") and error.node() >= 0:
        node: Optional[Tuple[str, str]] = (_text(error.node_name), _text(error.node_operator))
    else:  # up to TensorRT 8.6; and what is about the whole graph says -1
        node = node_of(data, error.node())
    # The lines that follow the reason may be about CUDA, which a build for elsewhere does without.
    lines = [line for line in _text(error.desc).splitlines() if "catchCudaError" not in line]
    reason = " ".join(lines)
    if reason in ("", "false"):  # so TensorRT-RTX tells of an operator that it lacks
        reason = error.code().name.replace("_", " ").lower()
    if node is None:
        return printable(reason + "; copy or export it again")
    return printable('node {} "{}" ({}): {}'.format(error.node(), *node, reason))  # any name


def _text(tell: Callable[[], str]) -> str:
    try:
        return tell()
    except UnicodeDecodeError:  # a name in the graph that is no text
        return "?"


def _profile(builder: Any, name: str, picture: Any, batch: Any) -> Any:
    profile = builder.create_optimization_profile()
    profile.set_shape(name, *((size, *picture) for size in batch))
    return profile


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # the binding demands this very call
            self._steps = {}  # type: Dict[str, int]

        def phase_start(self, phase_name: str, parent_phase: Any, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, step + 1))
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
