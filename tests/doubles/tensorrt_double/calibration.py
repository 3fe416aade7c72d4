"""INT8 without Q/DQ in the graph: calibrators, their cache, and the Q/DQ that come of them.

The pictures are read where the calibrator says they are on the GPU, and what they do in the
network is measured. The same Q/DQ are then put into the graph that `edgetrt quantize` would put
there, so an engine differs from one with explicit Q/DQ by its ranges alone.
"""

import struct
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from cuda_double import _gpu
from onnx import ModelProto, numpy_helper

from pipeline import calibration
from pipeline.errors import PipelineError
from pipeline.qdq import WEIGHT_AXIS, insert_qdq, quantized_inputs
from pipeline.surgery import drop_unused

from .enums import CalibrationAlgoType
from .messages import error, info, warning
from .played import played

INT8_MAX = 127


class IInt8Calibrator:
    """What people derive their calibrators from."""

    _algorithm: CalibrationAlgoType

    def get_algorithm(self) -> CalibrationAlgoType:
        """How ranges are chosen."""
        return self._algorithm

    def get_batch_size(self) -> int:
        """How many pictures there are in a batch."""
        raise NotImplementedError

    def get_batch(self, names: list[str]) -> list[int] | None:
        """Where on the GPU the next batch is, for each input; None: there is none left."""
        raise NotImplementedError

    def read_calibration_cache(self) -> bytes | None:
        """The cache of an earlier build."""
        raise NotImplementedError

    def write_calibration_cache(self, cache: Any) -> None:
        """Is given the cache of this build."""
        raise NotImplementedError


class IInt8EntropyCalibrator(IInt8Calibrator):
    """By entropy, the old way."""

    _algorithm = CalibrationAlgoType.ENTROPY_CALIBRATION


class IInt8EntropyCalibrator2(IInt8Calibrator):
    """By entropy."""

    _algorithm = CalibrationAlgoType.ENTROPY_CALIBRATION_2


class IInt8MinMaxCalibrator(IInt8Calibrator):
    """By the largest value."""

    _algorithm = CalibrationAlgoType.MINMAX_CALIBRATION


class IInt8LegacyCalibrator(IInt8Calibrator):
    """By a percentile."""

    _algorithm = CalibrationAlgoType.LEGACY_CALIBRATION


# Name in the cache's first line, and the method of pipeline.calibration that comes closest.
ALGORITHMS = {
    CalibrationAlgoType.ENTROPY_CALIBRATION: ("EntropyCalibration", "entropy"),
    CalibrationAlgoType.ENTROPY_CALIBRATION_2: ("EntropyCalibration2", "entropy"),
    CalibrationAlgoType.MINMAX_CALIBRATION: ("MinMaxCalibration", "max"),
    CalibrationAlgoType.LEGACY_CALIBRATION: ("LegacyCalibration", "percentile"),
}


def calibrate(
    model: ModelProto, calibrator: IInt8Calibrator, shape: tuple[int, ...]
) -> dict[str, float] | None:
    """Ranges of a network's tensors, from the calibrator's cache or its pictures.

    Args:
        model: with one input.
        shape: of the input, as the calibration profile has it.

    Returns:
        The largest absolute value to represent, by tensor; None, with an error logged: there
        are no ranges to be had.
    """
    name, method = ALGORITHMS[calibrator.get_algorithm()]
    header = f"TRT-{played().number}-{name}"
    batch_size = _ask(calibrator, "get_batch_size")
    cache = _ask(calibrator, "read_calibration_cache")
    if cache:
        ranges = read_cache(bytes(cache), header)
        if ranges is not None:
            return ranges
    if batch_size != shape[0]:
        error(f"the double: the calibrator has batches of {batch_size}, the profile of {shape[0]}")
        return None
    pictures = list(_batches(calibrator, model.graph.input[0].name, shape))
    if not pictures:
        return {}
    info(f"Calibrated {len(pictures)} batches of size {batch_size}")
    flexible = _any_batch(model)

    def batches() -> Iterator[np.ndarray]:
        return iter(pictures)

    try:
        amax = calibration.largest_values(flexible, batches)
        ranges = calibration.thresholds(flexible, batches, amax, list(amax), method)
    except PipelineError as problem:
        error(f"the double: {problem}")
        return None
    _ask(calibrator, "write_calibration_cache", memoryview(write_cache(header, model, ranges)))
    return ranges


def read_cache(data: bytes, header: str) -> dict[str, float] | None:
    """The ranges in a cache; None: it is of another version or algorithm, or damaged."""
    try:
        first, *lines = data.decode("utf-8").splitlines()
        if first != header:
            warning(f"the double: the calibration cache is {first!r}, not {header!r}: ignored")
            return None
        ranges = {}
        for line in lines:
            tensor, _, scale = line.rpartition(": ")
            (ranges[tensor],) = struct.unpack(">f", bytes.fromhex(scale))
    except (ValueError, struct.error) as problem:
        warning(f"the double: the calibration cache is damaged ({problem}): ignored")
        return None
    return {tensor: scale * INT8_MAX for tensor, scale in ranges.items()}


def write_cache(header: str, model: ModelProto, ranges: dict[str, float]) -> bytes:
    """The cache's text. Constants that are no weights have a line as well, as with the real one."""
    lines = [f"{tensor}: {_hex(amax)}" for tensor, amax in ranges.items()]
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for place, node in enumerate(model.graph.node):
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            for name in values.keys() & set(node.input):
                amax = float(np.abs(numpy_helper.to_array(values[name])).max(initial=0))
                lines.append(f"(Unnamed Layer* {place}) [Constant]_output: {_hex(amax)}")
    return "\n".join([header, *lines, ""]).encode()


def quantized(model: ModelProto, ranges: dict[str, float]) -> ModelProto | None:
    """The graph with Q/DQ where there are ranges; None, with an error logged: there are none."""
    wanted = quantized_inputs(model)
    missing = [tensor for tensor in wanted if tensor not in ranges]
    for tensor in missing:
        warning(
            f"Missing scale and zero-point for tensor {tensor}, expect fall back to non-int8 "
            "implementation for any layer consuming or producing given tensor"
        )
    if len(missing) == len(wanted):
        error(
            "4: [standardEngineBuilder.cpp::initCalibrationParams] Error Code 4: Internal Error "
            "(Calibration failure occurred with no scaling factors detected. This could be due to "
            "no int8 calibrator or insufficient custom scales for network layers. Please see int8 "
            "sample to setup calibration correctly.)"
        )
        return None
    graph = insert_qdq(model, {**ranges, **dict.fromkeys(missing, 1.0)})
    _return_to_float(graph, missing)
    return graph


def _return_to_float(graph: ModelProto, tensors: list[str]) -> None:
    """Take the Q/DQ off some tensors, and off the weights that meet them."""
    plain = {f"{tensor}/dequantized": tensor for tensor in tensors}
    nodes = graph.graph.node
    for node in nodes:
        hit = [place for place, name in enumerate(node.input) if name in plain]
        for place in hit:
            node.input[place] = plain[node.input[place]]
        if hit and node.op_type in WEIGHT_AXIS:
            node.input[1] = node.input[1].removesuffix("/dequantized")
    read = {value.name for value in graph.graph.output}
    for place in reversed(range(len(nodes))):
        if read.isdisjoint(nodes[place].output):
            del nodes[place]
        else:
            read.update(nodes[place].input)
    drop_unused(graph)


def _batches(
    calibrator: IInt8Calibrator, name: str, shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """The pictures, read from the GPU before the calibrator is asked for the next ones."""
    size = int(np.prod(shape)) * 4
    while True:
        pointers = _ask(calibrator, "get_batch", [name])
        if pointers is None:
            return
        if len(pointers) != 1 or type(pointers[0]) is not int:
            error(f"the double: get_batch gave {pointers!r}, not one int for each input")
            return
        data = _gpu.gpu.bytes_at(pointers[0], size, _gpu.gpu.current_or_primary())
        yield data.copy().view(np.float32).reshape(shape)


def _ask(calibrator: IInt8Calibrator, function: str, *arguments: Any) -> Any:
    """Call a person's method. As in TensorRT, what it raises is printed and forgotten."""
    try:
        return getattr(calibrator, function)(*arguments)
    except Exception as problem:
        print(f"[ERROR] Exception caught in {function}(): {problem}", file=sys.stderr)
        return None


def _any_batch(model: ModelProto) -> ModelProto:
    flexible = ModelProto()
    flexible.CopyFrom(model)
    del flexible.graph.value_info[:]
    for value in (*flexible.graph.input, *flexible.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return flexible


def _hex(amax: float) -> str:
    return struct.pack(">f", amax / INT8_MAX).hex()
