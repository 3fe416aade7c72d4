"""Where TensorRT wants QuantizeLinear and DequantizeLinear, and putting them there.

The rules, from NVIDIA's guide to explicit quantization and the graphs of its own quantizers:
the activation and the weight of every convolution and matrix product; the shortcut of a residual
Add, so that convolution, Add and activation fuse with an INT8 result; the input of an average
pool between quantized layers. Nothing between a convolution and what fuses with it (bias,
activation, Add). Zero points are 0, biases stay float, weights are per output channel. The last
layer stays float: it costs next to nothing, and TensorRT 8.2 has no INT8 product for it.
"""

from collections.abc import Collection

import numpy as np
from onnx import ModelProto, NodeProto, helper

from pipeline.graph import check
from pipeline.surgery import constants, consumers, find_last_layer, set_constant

INT8_MAX = 127  # symmetric: -128 is not used
WEIGHT_AXIS = {"Conv": 0, "MatMul": 1, "Gemm": 1}  # of the output channels


def quantized_layers(model: ModelProto, floats: Collection[str] = ()) -> list[NodeProto]:
    """The layers to run in INT8: all with constant weights, but the last one and `floats`.

    Args:
        floats: layers to leave in float, by the tensor that each one makes.
    """
    values = constants(model)
    last = find_last_layer(model).kernel
    return [
        node
        for node in model.graph.node
        if node.op_type in WEIGHT_AXIS
        and node.input[1] in values
        and node.input[1] != last
        and node.output[0] not in floats
        # A stack of matrices has no one axis of output channels.
        and (node.op_type != "MatMul" or values[node.input[1]].ndim == 2)
    ]


def quantized_inputs(model: ModelProto, floats: Collection[str] = ()) -> dict[str, list[NodeProto]]:
    """Each activation tensor to quantize, with the nodes that shall read it quantized.

    Args:
        floats: as for `quantized_layers`; what follows from a layer being INT8 goes with it.
    """
    layers = quantized_layers(model, floats)
    results = {node.output[0]: node.op_type for node in layers}  # in the order of computation
    readers = consumers(model)
    fixed = {tensor.name for tensor in model.graph.initializer}
    quantized: dict[str, list[NodeProto]] = {}
    for node in layers:
        quantized.setdefault(node.input[0], []).append(node)
    for node in model.graph.node:
        if node.op_type == "Add" and not fixed.intersection(node.input):
            if shortcut := _shortcut(node, results, readers):
                quantized.setdefault(shortcut, []).append(node)
        elif node.op_type == "AveragePool":
            after = readers.get(node.output[0], [])
            if after and all(reader.output[0] in results for reader in after):
                quantized.setdefault(node.input[0], []).append(node)
    return quantized


def quantizable_inputs(model: ModelProto) -> list[str]:
    """Each activation tensor to quantize, whichever layers are left in float.

    Leaving one in float can ask for a tensor that was not needed before: of two convolutions
    that are added up, the one whose result is the shortcut changes.
    """
    layers = [node.output[0] for node in quantized_layers(model)]
    choices = ((), *((layer,) for layer in layers))
    return list(dict.fromkeys(t for floats in choices for t in quantized_inputs(model, floats)))


def insert_qdq(
    model: ModelProto, amax: dict[str, float], floats: Collection[str] = ()
) -> ModelProto:
    """A copy of an FP32 graph with Q/DQ pairs, for the same input and output.

    Args:
        model: FP32, batch normalization folded.
        amax: largest absolute value to represent, for each tensor of `quantized_inputs`.
        floats: layers to leave in float, by the tensor that each one makes.

    Returns:
        Weights float in front of their Q/DQ (TensorRT 8 takes no others), opset 13, IR 7.
    """
    quantized = ModelProto()
    quantized.CopyFrom(model)
    for tensor, readers in quantized_inputs(quantized, floats).items():
        # What was always zero takes any scale; this one leaves it room.
        scale = np.array((amax[tensor] or 1) / INT8_MAX, np.float32)
        _insert(quantized, tensor, scale, None, readers)
    values = constants(quantized)
    weights: dict[str, list[NodeProto]] = {}
    for node in quantized_layers(quantized, floats):
        weights.setdefault(node.input[1], []).append(node)
    for weight, layers in weights.items():
        axis = _axis(layers[0])
        others = tuple(i for i in range(values[weight].ndim) if i != axis)
        largest = np.abs(values[weight]).max(axis=others)
        # A channel of zeros needs some scale above zero.
        scales = (np.where(largest > 0, largest, 1) / INT8_MAX).astype(np.float32)
        _insert(quantized, weight, scales, axis, layers)
    check(quantized)
    return quantized


def _shortcut(
    add: NodeProto, layers: dict[str, str], readers: dict[str, list[NodeProto]]
) -> str | None:
    """The input of a residual Add that does not come from the convolution it fuses with."""
    fusing = [n for n in add.input if layers.get(n) == "Conv" and len(readers[n]) == 1]
    if not fusing:
        return None
    # Of two convolutions TensorRT fuses the Add with the one that is computed last.
    last = max(fusing, key=list(layers).index)
    return next(name for name in add.input if name != last)


def _axis(node: NodeProto) -> int:
    if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
        return 0
    return WEIGHT_AXIS[node.op_type]


def _insert(
    model: ModelProto, tensor: str, scale: np.ndarray, axis: int | None, readers: list[NodeProto]
) -> None:
    """Put a Q/DQ pair between `tensor` and those of its readers."""
    names = [f"{tensor}/scale", f"{tensor}/zero_point"]
    set_constant(model, names[0], scale)
    set_constant(model, names[1], np.zeros(scale.shape, np.int8))
    options = {} if axis is None else {"axis": axis}
    middle, end = f"{tensor}/quantized", f"{tensor}/dequantized"
    nodes = model.graph.node
    first = min(place for place, node in enumerate(nodes) if node in readers)
    for reader in readers:
        for place, name in enumerate(reader.input):
            if name == tensor:
                reader.input[place] = end
    pair = (
        helper.make_node("QuantizeLinear", [tensor, *names], [middle], name=middle, **options),
        helper.make_node("DequantizeLinear", [middle, *names], [end], name=end, **options),
    )
    for node in reversed(pair):
        nodes.insert(first, node)
