"""TensorRT 8: the builder chooses types, within what flags allow; Jetsons up to Xavier, TX2."""

from typing import Any, Optional, Tuple

from engines.settings import EXPLICIT, Settings
from engines.tensorrt.dialect import (
    Contexts,
    Dialect,
    NamedTensors,
    Tensors,
    one_input_one_output,
)


class V8(Dialect):
    """8.2 (JetPack 4.6) to 8.6: weakly typed, explicit batch to be asked for, calibrators."""

    name = "TensorRT 8"

    @property
    def newest_opset(self) -> int:
        """13 up to 8.2, 17 from 8.4 on; source: onnx-tensorrt's docs/operators.md of each."""
        return 17 if hasattr(self.trt.IBuilderConfig, "set_memory_pool_limit") else 13

    @staticmethod
    def is_spoken_by(trt: Any) -> bool:
        """See `Dialect.is_spoken_by`."""
        # The engine inspector came with 8.2; nothing older is known here.
        old_enough = not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        new_enough = hasattr(trt, "LayerInformationFormat")
        return hasattr(trt.BuilderFlag, "FP16") and old_enough and new_enough

    @staticmethod
    def graph_for(precision: str, int8: str) -> str:
        """FP16 is made of the FP32 graph: TensorRT 8 tunes that better than one in FP16."""
        return "int8" if precision == "int8" and int8 == EXPLICIT else "fp32"

    def refuse(self, settings: Settings) -> Optional[str]:
        """See `Dialect.refuse`."""
        return None

    def create_network(self, builder: Any, calibrated: bool) -> Any:
        """See `Dialect.create_network`."""
        flag = self.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
        return builder.create_network(1 << int(flag))

    def set_precision(self, config: Any, precision: str, calibrator: Optional[Any]) -> None:
        """Allow FP16, and INT8; what is slower in them, or can't be, stays FP32."""
        if precision in ("fp16", "int8"):
            config.set_flag(self.trt.BuilderFlag.FP16)
        if precision == "int8":
            config.set_flag(self.trt.BuilderFlag.INT8)
        if calibrator is not None:
            config.int8_calibrator = calibrator

    def set_workspace(self, config: Any, size: int) -> None:
        """See `Dialect.set_workspace`; before 8.4 it was a property."""
        if hasattr(config, "set_memory_pool_limit"):
            super().set_workspace(config, size)
        else:
            config.max_workspace_size = size

    def contexts(self, runtime: Any, engine: Any, plan: bytes) -> Contexts:
        """See `Dialect.contexts`."""
        return EngineEach(runtime, engine, plan)

    def tensors(self, engine: Any) -> Tensors:
        """By name from 8.5 on, by index before."""
        if hasattr(engine, "num_io_tensors"):
            return NamedTensors(self.trt, engine)
        return Bindings(self.trt, engine)


class EngineEach(Contexts):
    """Loads the engine again for each context but the first.

    Up to TensorRT 8.6 an optimization profile serves one context at a time, and the engine has
    one profile. Source: NvInferRuntime.h, IExecutionContext::setOptimizationProfileAsync.
    """

    def __init__(self, runtime: Any, engine: Any, plan: bytes) -> None:
        super().__init__(engine)
        self._runtime, self._plan = runtime, plan
        self._first = [engine]

    def create(self) -> Any:
        """See `Contexts.create`; a context keeps its engine alive."""
        try:
            engine = self._first.pop()
        except IndexError:
            engine = self._runtime.deserialize_cuda_engine(self._plan)
        return None if engine is None else engine.create_execution_context()


class Bindings(Tensors):
    """By index, as TensorRT 8.2 and 8.4 have it."""

    def __init__(self, trt: Any, engine: Any) -> None:
        places = range(engine.num_bindings)
        names = [engine.get_binding_name(place) for place in places]
        specs = [
            (tuple(engine.get_binding_shape(place)), engine.get_binding_dtype(place))
            for place in places
        ]
        inputs = [engine.binding_is_input(place) for place in places]
        self.input, self.output = one_input_one_output(trt, names, specs, inputs)
        self._source, self._result = inputs.index(True), inputs.index(False)
        smallest, _, largest = engine.get_profile_shape(0, self._source)
        self.batch = (smallest[0], largest[0])

    def set_shape(self, context: Any, shape: Tuple[Any, ...]) -> bool:
        """See `Tensors.set_shape`."""
        return bool(context.set_binding_shape(self._source, shape))

    def bind(self, context: Any, source: int, result: int) -> Any:
        """See `Tensors.bind`: the addresses in the engine's order, given with each batch."""
        return [source, result] if self._source < self._result else [result, source]

    def enqueue(self, context: Any, bound: Any, stream: int) -> bool:
        """See `Tensors.enqueue`."""
        return bool(context.execute_async_v2(bound, stream))
