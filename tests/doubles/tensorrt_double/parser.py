"""The ONNX parser: what it takes and what it refuses, version by version."""

from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .enums import ErrorCode
from .messages import ILogger
from .network import INetworkDefinition, name_of
from .played import played

# Source: docs/operators.md of onnx-tensorrt, release/8.2-GA, and what later branches add.
IN_8_2 = """
    Abs Acos Acosh Add ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
    DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GRU HardSigmoid Identity If InstanceNormalization LeakyRelu Less LessOrEqual
    Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean Min Mul Neg
    NonMaxSuppression Not Or Pad Pow PRelu QuantizeLinear RandomUniform RandomUniformLike Range
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN Round
    ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze
    Upsample Where
"""
LATER = """
    And EyeLike GridSample GroupNormalization HardSwish Hardmax IsInf IsNaN LayerNormalization
    Mish Mod NonZero OneHot RandomNormal RoiAlign Trilu Xor
"""


class Refusal(NamedTuple):
    """Why a graph is not taken, and at which node; -1: none."""

    code: ErrorCode
    text: str
    node: int = -1


class ParserError:
    """One reason why a graph was refused."""

    def __init__(self, refusal: Refusal, node: NodeProto | None) -> None:
        self._refusal, self._node = refusal, node

    def code(self) -> ErrorCode:
        """Its kind."""
        return self._refusal.code

    def desc(self) -> str:
        """It in words."""
        return self._refusal.text

    def node(self) -> int:
        """The number of the node."""
        return self._refusal.node

    def node_name(self) -> str:
        """The node's name in the graph."""
        return "" if self._node is None else str(self._node.name)

    def node_operator(self) -> str:
        """The node's type."""
        return "" if self._node is None else str(self._node.op_type)

    def file(self) -> str:
        """Where in TensorRT's source."""
        return "ModelImporter.cpp"

    def func(self) -> str:
        """Where in TensorRT's source."""
        return "parseNode" if self._node is not None else "deserializeOnnxModel"

    def line(self) -> int:
        """Where in TensorRT's source."""
        return 0

    def __str__(self) -> str:
        return f"In node {self.node()} with name: {self.node_name()} : {self.desc()}"


class OnnxParser:
    """Fills a network."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        """Take an ONNX file; False, with errors to ask for, if it can't be."""
        graph = ModelProto()
        try:
            graph.ParseFromString(bytes(model))
        except Exception:  # protobuf has an error of its own for it
            refusal = Refusal(
                ErrorCode.MODEL_DESERIALIZE_FAILED,
                "Assertion failed: model->ParseFromCodedStream(&codedInput): "
                "Failed to parse the ONNX model.",
            )
            return self._refuse(refusal, None)
        try:
            refused = _refusal(graph, self._network)
            if refused is None:
                self._network._fill(graph)
        except Exception as error:  # whatever ONNX finds wrong with shapes and constants
            refused = Refusal(ErrorCode.INVALID_GRAPH, f"the double: {error}")
        if refused is not None:
            node = graph.graph.node[refused.node] if refused.node >= 0 else None
            return self._refuse(refused, node)
        return True

    @property
    def num_errors(self) -> int:
        """How many."""
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        """One of the errors."""
        return self._errors[index]

    def clear_errors(self) -> None:
        """Forget them."""
        self._errors.clear()

    def _refuse(self, refusal: Refusal, node: NodeProto | None) -> bool:
        self._errors.append(ParserError(refusal, node))
        lines = [f"ModelImporter.cpp: ERROR: [{refusal.code.name}] {refusal.text}"]
        if node is not None:
            place = f'node number {refusal.node} [{node.op_type} -> "{node.output[0]}"]'
            lines.insert(0, f"ModelImporter.cpp: While parsing {place}:")
        for line in lines:
            self._logger.log(ILogger.Severity.ERROR, line)
        return False


def _refusal(model: ModelProto, network: INetworkDefinition) -> Refusal | None:
    if not network._explicit_batch:
        return Refusal(
            ErrorCode.INVALID_VALUE,
            "Assertion failed: !mImporterCtx.network()->hasImplicitBatchDimension(): This version "
            "of the ONNX parser only supports TensorRT INetworkDefinitions with an explicit batch "
            "dimension. Please ensure the network was created using the EXPLICIT_BATCH "
            "NetworkDefinitionCreationFlag.",
        )
    old = played().numbers < (8, 5)
    if old:
        for value in model.graph.input:
            if value.type.tensor_type.elem_type == TensorProto.UINT8:
                return Refusal(
                    ErrorCode.UNSUPPORTED_NODE,
                    f"Unsupported ONNX data type: UINT8 (2) of input {value.name}",
                )
    known = set(IN_8_2.split() if old else [*IN_8_2.split(), *LATER.split()])
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for place, node in enumerate(model.graph.node):
        if node.op_type not in known:
            return Refusal(
                ErrorCode.UNSUPPORTED_NODE if played().numbers[0] < 10 else ErrorCode.INVALID_NODE,
                f"No importer registered for op: {node.op_type}. Attempted to import as plugin. "
                'creator && "Plugin not found, are the plugin name, version, and namespace '
                'correct?"',
                place,
            )
        bounds = [name for name in node.input[1:] if name]
        if node.op_type == "Clip" and old and not constants.keys() >= set(bounds):
            text = "Assertion failed: Clip min and max must be initializers"
            return Refusal(ErrorCode.UNSUPPORTED_NODE, text, place)
        quantizes = node.op_type in ("QuantizeLinear", "DequantizeLinear")
        if quantizes and (wrong := _wrong_quantization(node, constants)):
            text = f"Invalid Node - {name_of(node)}: {wrong}"
            return Refusal(ErrorCode.INVALID_NODE, text, place)
    return None


def _wrong_quantization(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    """What the importer asserts of Q/DQ; sources: onnx-tensorrt 8.2, and trials with RTX."""
    old = played().numbers[0] < 10
    if old and len(node.input) != 3:
        return "Assertion failed: (inputs.size() == 3): zero point must be given"
    source = constants.get(node.input[0])
    if node.op_type == "DequantizeLinear" and source is not None:
        if source.data_type == TensorProto.INT32:
            return "input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8"
        if old:
            return "only activation types allowed as input to this layer"
    scale = constants.get(node.input[1])
    if scale is None:
        return "Assertion failed: scale must be an initializer"
    scales = numpy_helper.to_array(scale)
    if not (scales.astype(np.float64) > 0).all():
        return "Assertion failed: all scale values must be positive"
    if len(node.input) == 3:
        zero_point = constants.get(node.input[2])
        if zero_point is None:
            return "Assertion failed: zero point must be an initializer"
        values = numpy_helper.to_array(zero_point)
        if values.any():
            return (
                "Assertion failed: shiftIsAllZeros(zeroPoint): "
                "Non-zero zero point is not supported."
            )
        if zero_point.data_type != TensorProto.INT8:
            return "the double: INT8 is signed in TensorRT; this zero point is not"
        if old and values.size != scales.size:
            return "Assertion failed: scale and zero point must have the same size"
    if scales.size > 1 and node.op_type == "QuantizeLinear":
        if source is None:
            return "Activations-quantization does not support per-axis"
        axis = {a.name: helper.get_attribute_value(a) for a in node.attribute}.get("axis", 1)
        if source.dims[axis] != scales.size:
            return f"Assertion failed: K == scaleSize: {source.dims[axis]} != {scales.size}"
    return None
