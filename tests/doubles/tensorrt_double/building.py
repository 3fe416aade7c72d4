"""Building: what the configuration allows is checked, and a plan is made of the network."""

import hashlib
import os
import signal

import onnx
from cuda_double import _gpu
from onnx import ModelProto, TensorProto

from engines.targets import has_fast_fp16, has_int8
from pipeline.errors import PipelineError
from pipeline.half import to_fp16

from . import calibration, messages, plan
from .compute import Graph
from .configuration import IBuilderConfig, IOptimizationProfile, ITimingCache, made_for
from .enums import BuilderFlag, NetworkDefinitionCreationFlag
from .network import IHostMemory, INetworkDefinition, name_of, shape_of
from .played import played

FUNCTION = "IBuilder::buildSerializedNetwork"
# Flags that say in which types to compute; with strong typing the graph says it.
PRECISIONS = {BuilderFlag.FP16, BuilderFlag.BF16, BuilderFlag.INT8, BuilderFlag.FP8}
# A convolution wants some scratch memory. A limit of 0, which 8.2 begins with, leaves it none.
SCRATCH = 1 << 20


class Stop(Exception):  # noqa: N818 - no error by itself
    """The build is over; why was logged."""


class Builder:
    """Builds for the GPU it is made on."""

    def __init__(self, logger: messages.ILogger) -> None:
        messages.register(self, logger)
        self.max_threads = 1
        self.num_DLA_cores = 0

    @property
    def platform_has_fast_fp16(self) -> bool:
        """Whether FP16 is worth it."""
        return has_fast_fp16(_gpu.board().compute_capability)

    @property
    def platform_has_fast_int8(self) -> bool:
        """Whether INT8 is worth it."""
        return has_int8(_gpu.board().compute_capability)

    @property
    def platform_has_tf32(self) -> bool:
        """Whether there are tensor cores for it."""
        return _gpu.board().compute_capability >= (8, 0)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        """An empty network."""
        from guard import members

        numbers = members(played().version, "NetworkDefinitionCreationFlag")
        known = NetworkDefinitionCreationFlag.__members__
        return INetworkDefinition(
            {known[name] for name, bit in numbers.items() if flags >> bit & 1 and name in known}
        )

    def create_builder_config(self) -> IBuilderConfig:
        """How to build."""
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Which shapes to build for."""
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        """The engine's bytes; None, with errors logged, if it can't be built."""
        if os.environ.get("EDGETRT_DOUBLE_KILL") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            _check_types(network, config)
            _check_profiles(network, config)
            model = _with_precision(network, config)
            _pass_time(model, config)
            return IHostMemory(_make_plan(model, config))
        except Stop:
            pass
        except _gpu.MemoryError:
            messages.error("2: [virtualMemoryBuffer.cpp::resizePhysical] Error Code 2: OutOfMemory "
                           "(no further information)")  # fmt: skip
        except _gpu.Error as problem:
            messages.error(f"1: [checkMacros.cpp::catchCudaError] Error Code 1: Cuda Runtime "
                           f"({problem})")  # fmt: skip
        if played().numbers < (10,):  # its last word says nothing (NVIDIA/TensorRT#2034)
            messages.error("2: [builder.cpp::buildSerializedNetwork::619] Error Code 2: Internal "
                           "Error (Assertion engine != nullptr failed. )")  # fmt: skip
        return None


def _refuse(text: str, number: int = 4, kind: str | None = None) -> Stop:
    usual = "Internal Error" if played().numbers[0] < 10 else "API Usage Error"
    messages.api_error(FUNCTION, number, kind or usual, text)
    return Stop()


def _check_types(network: INetworkDefinition, config: IBuilderConfig) -> None:
    graph = network._model.graph
    if not graph.output:
        raise _refuse("Network must have at least one output")
    if network._strong:
        for flag in sorted(PRECISIONS & config._flags, key=lambda flag: flag.name):
            raise _refuse(
                f"For a strongly typed network, BuilderFlag::k{flag.name} must not be set"
            )
        return
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
    half = any(tensor.data_type == TensorProto.FLOAT16 for tensor in graph.initializer)
    for there, flag in ((quantized, BuilderFlag.INT8), (half, BuilderFlag.FP16)):
        if there and flag not in config._flags:
            name = flag.name.lower()
            raise _refuse(
                f"{name} precision has been set for a layer or layer output, but {name} is not "
                "configured in the builder"
            )
    if BuilderFlag.INT8 in config._flags and not has_int8(_gpu.board().compute_capability):
        messages.warning("Int8 support requested on hardware without native Int8 support, "
                         "performance will be negatively affected.")  # fmt: skip
    if BuilderFlag.FP16 in config._flags and not has_fast_fp16(_gpu.board().compute_capability):
        messages.warning("Half2 support requested on hardware without native FP16 support, "
                         "performance will be negatively affected.")  # fmt: skip


def _check_profiles(network: INetworkDefinition, config: IBuilderConfig) -> None:
    for value in network._model.graph.input:
        shape = shape_of(value)
        if -1 not in shape:
            continue
        if not config._profiles:
            raise _refuse(
                "Network has dynamic or shape inputs, but no optimization profile has been defined."
            )
        for number, profile in enumerate(config._profiles):
            wanted = profile._shapes.get(value.name)
            if wanted is None:
                raise _refuse(
                    f"Dynamic input tensor {value.name} is missing dimensions in profile {number}."
                )
            for some in wanted:
                if len(some) != len(shape) or any(
                    length not in (-1, here) for length, here in zip(shape, some, strict=True)
                ):
                    raise _refuse(
                        f"{value.name}: for dimension number 0 in profile {number} does not match "
                        f"network definition (got {tuple(some)}, expected {shape})."
                    )


def _with_precision(network: INetworkDefinition, config: IBuilderConfig) -> ModelProto:
    """The graph that is to be executed."""
    model = network._model
    if network._strong or any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        if config.int8_calibrator is not None:
            messages.warning(
                "Calibrator won't be used in explicit precision mode. Use quantization aware "
                "training to generate network with Quantize/Dequantize nodes."
            )
        return model
    if BuilderFlag.INT8 in config._flags:
        return _calibrated(network, config)
    if BuilderFlag.FP16 in config._flags and network.num_inputs == 1:
        if any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer):
            return model
        try:
            return to_fp16(model)
        except PipelineError as problem:
            # TensorRT goes back to FP32 layer by layer.
            messages.warning(f"the double: stays FP32: {problem}")
    return model


def _calibrated(network: INetworkDefinition, config: IBuilderConfig) -> ModelProto:
    model, ranges = network._model, dict(network._ranges)
    if config.int8_calibrator is None:
        messages.warning("Calibrator is not being used. Users must provide dynamic range for all "
                         "tensors that are not Int32 or Bool.")  # fmt: skip
    else:
        found = calibration.calibrate(model, config.int8_calibrator, _shape(model, config))
        if found is None:
            raise Stop
        ranges.update(found)
    try:
        graph = calibration.quantized(model, ranges)
    except PipelineError as problem:
        raise _refuse(f"the double can't quantize it: {problem}") from problem
    if graph is None:
        raise Stop
    return graph


def _shape(model: ModelProto, config: IBuilderConfig) -> tuple[int, ...]:
    """Of the calibrator's batches."""
    value = model.graph.input[0]
    if -1 not in shape_of(value):
        return shape_of(value)
    profile = config._calibration_profile
    if profile is None:
        messages.warning("Calibration Profile is not defined. Running calibration with Profile 0")
        profile = config._profiles[0]
    if value.name not in profile._shapes:
        raise _refuse(f"the double: the calibration profile lacks {value.name}")
    return tuple(profile._shapes[value.name][1])


def _pass_time(model: ModelProto, config: IBuilderConfig) -> None:
    """Go through the layers as if each was timed: for the timing cache and the progress monitor."""
    cache = config._timing_cache or ITimingCache({"made_for": made_for(), "layers": {}})
    known = cache._content["layers"]
    timed = 0
    monitor = config.progress_monitor
    outer, inner = "Building engine", "Computing profile costs"
    if monitor:
        monitor.phase_start(outer, None, 1)
        monitor.phase_start(inner, outer, len(model.graph.node))
    went_on = True
    for place, node in enumerate(model.graph.node):
        digest = hashlib.sha256(node.SerializeToString()).hexdigest()
        timed += digest not in known
        known[digest] = name_of(node)
        if node.op_type == "Conv" and config._workspace < SCRATCH:
            text = f"Could not find any implementation for node {name_of(node)}."
            raise _refuse(text, 10, "Internal Error")
        went_on = not monitor or bool(monitor.step_complete(inner, place))
        if not went_on:
            break
    if monitor:
        monitor.phase_finish(inner)
        monitor.phase_finish(outer)
    if not went_on:
        raise _refuse("Build canceled by user", 7, "BuildCanceled")
    if config._timing_cache is None and BuilderFlag.DISABLE_TIMING_CACHE not in config._flags:
        config._timing_cache = cache
    total = len(model.graph.node)
    messages.info(f"the double: {timed} layers timed, {total - timed} from the timing cache")


def _make_plan(model: ModelProto, config: IBuilderConfig) -> bytes:
    named = ModelProto()
    named.CopyFrom(model)
    for node in named.graph.node:
        node.name = name_of(node)
    data = onnx.shape_inference.infer_shapes(named).SerializeToString()
    try:
        Graph(data)
    except Exception as problem:  # ONNX Runtime has many ways to say that types don't match
        raise _refuse(f"the double: {problem}") from problem
    dynamic = [value.name for value in model.graph.input if -1 in shape_of(value)]
    header = plan.Header(
        played().version,
        list(_gpu.board().compute_capability),
        [{name: p._shapes[name] for name in dynamic} for p in config._profiles],
        config.profiling_verbosity.name,
    )
    packed = plan.pack(header, data)
    # Building holds the engine once on the GPU.
    _gpu.gpu.reserve(len(packed), "cuMemAlloc")
    _gpu.gpu.release(len(packed))
    return packed
