"""ONNX in FP32 -> ONNX in FP16, typed as strongly typed TensorRT wants it."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, version_converter

from pipeline.errors import PipelineError
from pipeline.graph import check
from pipeline.surgery import drop_unused

FP16_MAX = 65504.0
# Softmax sums exponentials: FP32, as the answer that leaves the graph is anyway.
SINGLE_PRECISION = ("Softmax",)
# From this opset on, scales of QuantizeLinear and DequantizeLinear may be FP16, and so what lies
# between quantized layers; before, every one of them would need casts around it.
QDQ_OPSET, QDQ_IR_VERSION = 19, 9


def to_fp16(model: ModelProto) -> ModelProto:
    """The same graph computing in FP16, its input and output still FP32.

    Constants are FP16, the input is cast at the start, and the softmax is computed in FP32.
    Weights that are quantized stay in the graph as FP16 in front of their Q/DQ pair.

    Args:
        model: FP32, with or without Q/DQ.

    Returns:
        A new model: opset 13 and IR 7 like the FP32 one, or opset 19 and IR 9 if it has Q/DQ.

    Raises:
        PipelineError: a constant does not fit FP16.
    """
    half = ModelProto()
    half.CopyFrom(model)
    if any(node.op_type == "QuantizeLinear" for node in half.graph.node):
        half = version_converter.convert_version(half, QDQ_OPSET)
        half.ir_version = QDQ_IR_VERSION
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(_narrow(tensor), tensor.name))
    _cast_input(half)
    _widen(half)
    drop_unused(half)
    check(half)
    return half


def _narrow(tensor: TensorProto) -> np.ndarray:
    values = numpy_helper.to_array(tensor)
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > FP16_MAX:
        raise PipelineError(
            f"constant {tensor.name} reaches {np.abs(values).max():g}, beyond FP16's "
            f"{FP16_MAX:g}: there is no FP16 engine for this model"
        )
    narrow = values.astype(np.float16)
    if tensor.name.endswith("/scale"):
        # A scale that rounds to zero would divide by it.
        narrow = np.maximum(narrow, np.finfo(np.float16).smallest_subnormal)
    return narrow


def _cast_input(model: ModelProto) -> None:
    source = model.graph.input[0].name
    inside = f"{source}/fp16"
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == source:
                node.input[place] = inside
    cast = helper.make_node("Cast", [source], [inside], to=TensorProto.FLOAT16, name=inside)
    model.graph.node.insert(0, cast)


def _widen(model: ModelProto) -> None:
    """Cast to FP32 in front of what stays in it; the rest of the graph must not read it."""
    for place, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type in SINGLE_PRECISION:
            wide = f"{node.input[0]}/fp32"
            cast = helper.make_node("Cast", [node.input[0]], [wide], to=TensorProto.FLOAT)
            cast.name = wide
            node.input[0] = wide
            model.graph.node.insert(place, cast)
            if node.output[0] != model.graph.output[0].name:
                raise PipelineError(
                    f"{node.op_type} {node.output[0]} stands inside the network, not at its end: "
                    "there is no FP16 engine for this model"
                )
