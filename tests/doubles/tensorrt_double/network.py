"""A network: the ONNX graph that the parser took, seen through TensorRT's classes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, shape_inference

from .enums import DataType, NetworkDefinitionCreationFlag
from .played import played

TYPES = {
    TensorProto.FLOAT: DataType.FLOAT,
    TensorProto.FLOAT16: DataType.HALF,
    TensorProto.BFLOAT16: DataType.BF16,
    TensorProto.INT8: DataType.INT8,
    TensorProto.INT32: DataType.INT32,
    TensorProto.INT64: DataType.INT64,
    TensorProto.BOOL: DataType.BOOL,
    TensorProto.UINT8: DataType.UINT8,
}
NUMPY: dict[DataType, type] = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
}


class Dims:
    """A shape: like a tuple, but equal only to tuples and lists, and no key of a dict."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._lengths = tuple(int(length) for length in shape)

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, place: Any) -> Any:
        return self._lengths[place]

    def __iter__(self) -> Iterator[int]:
        return iter(self._lengths)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (tuple, list)):
            raise TypeError("__eq__(): incompatible function arguments")
        return self._lengths == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._lengths)

    __str__ = __repr__


class IHostMemory:
    """Bytes that TensorRT made."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def nbytes(self) -> int:
        """How many."""
        return len(self._data)

    @property
    def dtype(self) -> DataType:
        """Of what type."""
        return DataType.INT8

    def __bytes__(self) -> bytes:
        return self._data


def shape_of(value: ValueInfoProto) -> tuple[int, ...]:
    """-1 where any length goes."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)


def dtype_of(value: ValueInfoProto) -> DataType:
    """TensorRT's name for an ONNX type; it had no 64-bit integers before 10."""
    dtype = TYPES[value.type.tensor_type.elem_type]
    return DataType.INT32 if dtype == DataType.INT64 and played().numbers[0] < 10 else dtype


def name_of(node: NodeProto) -> str:
    """What TensorRT calls the layer that a node becomes."""
    return str(node.name or f"node_of_{node.output[0]}")


class ITensor:
    """A tensor of a network."""

    def __init__(self, network: "INetworkDefinition", value: ValueInfoProto) -> None:
        self._network, self._value = network, value

    @property
    def name(self) -> str:
        """As in the ONNX graph."""
        return str(self._value.name)

    @property
    def dtype(self) -> DataType:
        """Its type."""
        return dtype_of(self._value)

    @property
    def shape(self) -> Dims:
        """-1 where any length goes."""
        return Dims(shape_of(self._value))

    @shape.setter
    def shape(self, shape: Sequence[int]) -> None:
        graph = self._network._model.graph
        for dim, length in zip(self._value.type.tensor_type.shape.dim, shape, strict=True):
            if length == -1:
                dim.dim_param = dim.dim_param or "any"
                continue
            for output in graph.output:  # has the same batch axis
                for other in output.type.tensor_type.shape.dim:
                    if dim.dim_param and other.dim_param == dim.dim_param:
                        other.dim_value = length
            dim.dim_value = length

    @property
    def is_network_input(self) -> bool:
        """Whether it comes from outside."""
        return any(value.name == self.name for value in self._network._model.graph.input)

    @property
    def is_network_output(self) -> bool:
        """Whether it goes outside."""
        return any(value.name == self.name for value in self._network._model.graph.output)

    def set_dynamic_range(self, min: float, max: float) -> bool:  # noqa: A002
        """Say how large its values get, for INT8 without a calibrator."""
        self._network._ranges[self.name] = max if max >= -min else -min
        return True

    @property
    def dynamic_range(self) -> tuple[float, float] | None:
        """What was said."""
        amax = self._network._ranges.get(self.name)
        return None if amax is None else (-amax, amax)


class ILayer:
    """A layer: a node of the ONNX graph."""

    def __init__(self, network: "INetworkDefinition", node: NodeProto) -> None:
        self._network, self._node = network, node

    @property
    def name(self) -> str:
        """The node's, or one made of its output's."""
        return name_of(self._node)

    @property
    def num_inputs(self) -> int:
        """How many tensors it reads, constants not counted."""
        return len(self._inputs())

    @property
    def num_outputs(self) -> int:
        """How many tensors it makes."""
        return len(self._node.output)

    def get_input(self, index: int) -> ITensor | None:
        """A tensor that it reads."""
        return self._network._tensor(self._inputs()[index])

    def get_output(self, index: int) -> ITensor | None:
        """A tensor that it makes."""
        return self._network._tensor(self._node.output[index])

    def _inputs(self) -> list[str]:
        fixed = {tensor.name for tensor in self._network._model.graph.initializer}
        return [name for name in self._node.input if name and name not in fixed]


class INetworkDefinition:
    """What is to be built; empty until a parser fills it."""

    def __init__(self, flags: set[NetworkDefinitionCreationFlag]) -> None:
        major = played().numbers[0]
        self._explicit_batch = major >= 10 or NetworkDefinitionCreationFlag.EXPLICIT_BATCH in flags
        self._strong = major >= 11 or NetworkDefinitionCreationFlag.STRONGLY_TYPED in flags
        self._ranges: dict[str, float] = {}
        self._fill(ModelProto())

    def _fill(self, model: ModelProto) -> None:
        self._model = model
        self._values = {value.name: value for value in model.graph.input}
        if model.graph.node:
            inferred = shape_inference.infer_shapes(model).graph
            inside = (*inferred.value_info, *inferred.output)
            self._values.update({value.name: value for value in inside})

    @property
    def name(self) -> str:
        """Of the graph."""
        return str(self._model.graph.name)

    @property
    def has_implicit_batch_dimension(self) -> bool:
        """Whether the flag for an explicit one was forgotten."""
        return not self._explicit_batch

    @property
    def num_inputs(self) -> int:
        """How many."""
        return len(self._model.graph.input)

    @property
    def num_outputs(self) -> int:
        """How many."""
        return len(self._model.graph.output)

    @property
    def num_layers(self) -> int:
        """How many."""
        return len(self._model.graph.node)

    def get_input(self, index: int) -> ITensor:
        """One of the inputs."""
        return ITensor(self, self._model.graph.input[index])

    def get_output(self, index: int) -> ITensor:
        """One of the outputs."""
        return ITensor(self, self._model.graph.output[index])

    def get_layer(self, index: int) -> ILayer:
        """One of the layers."""
        return ILayer(self, self._model.graph.node[index])

    def get_flag(self, flag: NetworkDefinitionCreationFlag) -> bool:
        """Whether it was made with a flag."""
        if flag == NetworkDefinitionCreationFlag.STRONGLY_TYPED:
            return self._strong
        return self._explicit_batch

    def __len__(self) -> int:
        return self.num_layers

    def __getitem__(self, index: int) -> ILayer:
        return self.get_layer(index)

    def _tensor(self, name: str) -> ITensor | None:
        return ITensor(self, self._values[name]) if name in self._values else None
