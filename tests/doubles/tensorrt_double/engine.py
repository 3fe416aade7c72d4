"""Loading an engine, and what can be asked about it."""

import json
import weakref
from typing import Any

import onnx
from cuda_double import _gpu
from onnx import ValueInfoProto, numpy_helper

from . import messages, plan
from .compute import Graph
from .enums import (
    DataType,
    LayerInformationFormat,
    ProfilingVerbosity,
    TensorIOMode,
    TensorLocation,
)
from .execution import IExecutionContext, take_memory
from .network import NUMPY, Dims, IHostMemory, dtype_of, shape_of


class Runtime:
    """Loads engines."""

    def __init__(self, logger: messages.ILogger) -> None:
        messages.register(self, logger)
        self.engine_host_code_allowed = False
        self.max_threads = 1

    def deserialize_cuda_engine(
        self, serialized_engine: bytes | IHostMemory
    ) -> "ICudaEngine | None":
        """The engine; None, with errors logged, where it does not fit here."""
        data = bytes(serialized_engine)
        found = plan.unpack(data)
        if found is None:
            return None
        try:
            return ICudaEngine(self, data, *found)
        except _gpu.MemoryError:
            messages.error("1: [defaultAllocator.cpp::allocate] Error Code 1: Cuda Runtime "
                           "(out of memory)")  # fmt: skip
            return None


class ICudaEngine:
    """A loaded engine. It keeps its runtime, and belongs to the context that was current."""

    def __init__(self, runtime: Runtime, data: bytes, header: plan.Header, model: bytes) -> None:
        self._runtime, self._data, self._header = runtime, data, header
        self._cuda = _gpu.gpu.current_or_primary()
        take_memory(self, len(data))
        self._graph = Graph(model)
        graph = onnx.load_from_string(model).graph
        self._layers = graph.node
        self._inside = {value.name: value for value in graph.value_info}
        weights = (numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer)
        self._weight_bytes = sum(weights)
        self._values = {value.name: value for value in (*graph.input, *graph.output)}
        self._inputs = [value.name for value in graph.input]
        self._names = [*self._inputs, *(value.name for value in graph.output)]
        # Up to 8.6 a profile is one context's at a time, and the first context takes it.
        self._first: weakref.ref[IExecutionContext] = lambda: None  # type: ignore[assignment]

    @property
    def name(self) -> str:
        """None is given."""
        return "Unnamed Network 0"

    @property
    def num_layers(self) -> int:
        """How many."""
        return len(self._layers)

    @property
    def num_optimization_profiles(self) -> int:
        """How many; a static engine has one as well."""
        return max(len(self._header.profiles), 1)

    @property
    def has_implicit_batch_dimension(self) -> bool:
        """Never."""
        return False

    @property
    def device_memory_size(self) -> int:
        """Bytes that an execution context needs: here those of the largest inputs, four times."""
        return 4 * sum(
            self._bytes(name, tuple(self._profile_shapes(name, 0)[2])) for name in self._inputs
        )

    @property
    def profiling_verbosity(self) -> ProfilingVerbosity:
        """As it was built."""
        return ProfilingVerbosity[self._header.verbosity]

    def serialize(self) -> IHostMemory:
        """The bytes it was loaded from."""
        return IHostMemory(self._data)

    def create_execution_context(self) -> IExecutionContext | None:
        """What runs it; None, with an error logged: there is no memory for it."""
        try:
            return IExecutionContext(self)
        except _gpu.MemoryError:
            messages.error("1: [defaultAllocator.cpp::allocate] Error Code 1: Cuda Runtime "
                           "(out of memory)")  # fmt: skip
            return None

    def create_engine_inspector(self) -> "EngineInspector":
        """What tells about its layers."""
        return EngineInspector(self)

    # By index: up to TensorRT 8.

    @property
    def num_bindings(self) -> int:
        """How many inputs and outputs; the double has them for the first profile only."""
        return len(self._names)

    def get_binding_name(self, index: int) -> str:
        """Of an input or output."""
        return self._names[index]

    def get_binding_index(self, name: str) -> int:
        """-1: there is none with this name."""
        return self._names.index(name) if name in self._names else -1

    def get_binding_shape(self, index: int | str) -> Dims:
        """-1 where any length goes."""
        return Dims(shape_of(self._value(index)))

    def get_binding_dtype(self, index: int | str) -> DataType:
        """Of its elements."""
        return dtype_of(self._value(index))

    def binding_is_input(self, index: int | str) -> bool:
        """Whether it is one."""
        return self._value(index).name in self._inputs

    def get_profile_shape(self, profile_index: int, binding: int | str) -> list[Dims]:
        """Smallest, best and largest shape of an input."""
        name = self._value(binding).name
        return [Dims(shape) for shape in self._profile_shapes(name, profile_index)]

    def get_location(self, index: int | str) -> TensorLocation:
        """Where it lies."""
        return TensorLocation.DEVICE

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        return self._names[index] if isinstance(index, int) else self._names.index(index)

    # By name: since TensorRT 8.5.

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs."""
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        """Of an input or output."""
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Which of both it is."""
        if name not in self._values:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> Dims:
        """-1 where any length goes."""
        return Dims(shape_of(self._values[name]))

    def get_tensor_dtype(self, name: str) -> DataType:
        """Of its elements."""
        return dtype_of(self._values[name])

    def get_tensor_location(self, name: str) -> TensorLocation:
        """Where it lies."""
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        """Smallest, best and largest shape of an input."""
        return [Dims(shape) for shape in self._profile_shapes(name, profile_index)]

    def _value(self, binding: int | str) -> ValueInfoProto:
        name = binding if isinstance(binding, str) else self._names[binding]
        return self._values[name]

    def _profile_shapes(self, name: str, profile: int) -> list[list[int]]:
        """A static input has the same shape three times."""
        static = [list(shape_of(self._values[name]))] * 3
        if profile >= len(self._header.profiles):
            return static
        return self._header.profiles[profile].get(name, static)

    def _bytes(self, name: str, shape: tuple[int, ...]) -> int:
        size: int = NUMPY[dtype_of(self._values[name])]().itemsize
        for length in shape:
            size *= length
        return size


class EngineInspector:
    """Tells about the layers of an engine, as much as it was built to tell."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:  # noqa: A002
        """About one of them."""
        layer = self._layer(self._engine._layers[layer_index])
        return json.dumps(layer) if format == LayerInformationFormat.JSON else str(layer)

    def get_engine_information(self, format: LayerInformationFormat) -> str:  # noqa: A002
        """About all of them."""
        if self._engine.profiling_verbosity == ProfilingVerbosity.NONE:
            messages.warning(
                "Engine was built with kNONE profiling verbosity: no layer information"
            )
            layers = []
        else:
            layers = [self._layer(node) for node in self._engine._layers]
        if format == LayerInformationFormat.ONELINE:
            return "\n".join(str(layer) for layer in layers)
        return json.dumps({"Layers": layers, "Bindings": self._engine._names})

    def _layer(self, node: Any) -> Any:
        if self._engine.profiling_verbosity != ProfilingVerbosity.DETAILED:
            return node.name
        engine = self._engine
        known = {**engine._inside, **engine._values}

        def describe(names: list[str]) -> list[dict[str, Any]]:
            return [
                {
                    "Name": name,
                    "Location": "Device",
                    "Dimensions": list(shape_of(known[name])),
                    "Format/Datatype": dtype_of(known[name]).name,
                }
                for name in names
                if name in known
            ]

        return {
            "Name": node.name,
            "LayerType": node.op_type,
            "Inputs": describe(node.input),
            "Outputs": describe(node.output),
        }
