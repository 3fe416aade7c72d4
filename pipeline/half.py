"""ONNX in FP32 -> ONNX in FP16, typed as strongly typed TensorRT wants it."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

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
        PipelineError: a constant does not fit FP16, or there is a softmax inside the network.
    """
    half = ModelProto()
    half.CopyFrom(model)
    if any(node.op_type == "QuantizeLinear" for node in half.graph.node):
        half = version_converter.convert_version(half, QDQ_OPSET)
        half.ir_version = QDQ_IR_VERSION
    single = _inputs_of(half, ("Resize",), [1, 2])  # ONNX has these in FP32 only
    scales = _inputs_of(half, ("QuantizeLinear", "DequantizeLinear"), [1])
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in single:
            narrow = _narrow(tensor, up=tensor.name in scales)
            tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    for node in half.graph.node:
        if node.output[0] not in single:
            _make_half(node)
    _cast_input(half)
    _widen(half)
    drop_unused(half)
    check(half)
    return half


def check_range(amax: dict[str, float]) -> None:
    """See that every tensor of a network fits FP16.

    Args:
        amax: the largest absolute value of each, from `calibration.largest_values`.

    Raises:
        PipelineError: one does not; names the first.
    """
    for tensor, largest in amax.items():
        if largest > FP16_MAX:
            raise PipelineError(
                f"tensor {tensor} reaches {largest:g} on the calibration pictures, beyond FP16's "
                f"{FP16_MAX:g}"
            )


def _inputs_of(model: ModelProto, op_types: tuple[str, ...], places: list[int]) -> set[str]:
    """Names of what nodes of some types read at some places."""
    nodes = [node for node in model.graph.node if node.op_type in op_types]
    return {node.input[place] for node in nodes for place in places if place < len(node.input)}


def _narrow(tensor: TensorProto, up: bool) -> np.ndarray:
    """The FP16 numbers next to a constant's, or next above."""
    values = numpy_helper.to_array(tensor)
    if not np.isfinite(values).all():
        raise PipelineError(f"constant {tensor.name} holds numbers that are not finite")
    if np.abs(values).max(initial=0) > FP16_MAX:
        raise PipelineError(
            f"constant {tensor.name} reaches {np.abs(values).max():g}, beyond FP16's {FP16_MAX:g}"
        )
    narrow = values.astype(np.float16)
    if up:
        # Channels that do next to nothing have scales down to 1e-11. Rounded down, a scale
        # would clip, or become zero; a little too large costs a little resolution.
        return np.where(narrow < values, np.nextafter(narrow, np.float16(np.inf)), narrow)
    return narrow


def _make_half(node: NodeProto) -> None:
    """Let a node that makes FP32 of its own accord make FP16."""
    if node.op_type == "Cast":
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    elif node.op_type in ("Constant", "ConstantOfShape"):
        value = _value_of(node)
        if value is not None and value.data_type == TensorProto.FLOAT:
            narrow = numpy_helper.from_array(_narrow(value, up=False), value.name)
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("value", narrow))


def _value_of(node: NodeProto) -> TensorProto | None:
    """What a Constant or ConstantOfShape holds, named as its output; None: neither floats."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    name = node.output[0]
    if "value" in values:
        return numpy_helper.from_array(numpy_helper.to_array(values["value"]), name)
    if node.op_type == "ConstantOfShape":
        return numpy_helper.from_array(np.zeros(1, np.float32), name)  # as ONNX has it
    floats = values.get("value_float", values.get("value_floats"))
    return None if floats is None else numpy_helper.from_array(np.array(floats, np.float32), name)


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
                    f"{node.op_type} {node.output[0]} stands inside the network; in FP16 there can "
                    "only be one at its end"
                )
