"""Where TensorRT wants QuantizeLinear and DequantizeLinear, and putting them there.

The rules, from NVIDIA's guide to explicit quantization and the graphs of its own quantizers:
the activation and the weight of every convolution and matrix product; the shortcut of a residual
Add, so that convolution, Add and activation fuse with an INT8 result; the input of an average
pool between quantized layers. Nothing between a convolution and what fuses with it (bias,
activation, Add). Zero points are 0, biases stay float, weights are per output channel. The last
layer stays float: it costs next to nothing, and TensorRT 8.2 has no INT8 product for it.
"""

import numpy as np
from onnx import ModelProto, NodeProto, helper

from pipeline.graph import check
from pipeline.surgery import constants, consumers, find_last_layer, set_constant

INT8_MAX = 127  # symmetric: -128 is not used
WEIGHT_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1}  # of the output channels
ACTIVATIONS = ("Clip", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh")


def quantized_layers(model: ModelProto) -> list[NodeProto]:
    """The layers to run in INT8: all with constant weights, but the last one."""
    values = constants(model)
    last = find_last_layer(model).kernel
    return [
        node
        for node in model.graph.node
        if node.op_type in WEIGHT_AXIS and node.input[1] in values and node.input[1] != last
    ]


def quantized_inputs(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Each activation tensor to quantize, with the nodes that shall read it quantized."""
    readers: dict[str, list[NodeProto]] = {}
    layers = quantized_layers(model)
    for node in layers:
        readers.setdefault(node.input[0], []).append(node)
    for node in model.graph.node:
        if node.op_type == "Add" and (shortcut := _shortcut(model, node)):
            readers.setdefault(shortcut, []).append(node)
        elif node.op_type == "AveragePool":
            after = consumers(model).get(node.output[0], [])
            if after and all(any(reader is layer for layer in layers) for reader in after):
                readers.setdefault(node.input[0], []).append(node)
    return readers


def insert_qdq(model: ModelProto, amax: dict[str, float]) -> ModelProto:
    """A copy of an FP32 graph with Q/DQ pairs, for the same input and output.

    Args:
        model: FP32, batch normalization folded.
        amax: largest absolute value to represent, for each tensor of `quantized_inputs`.

    Returns:
        Weights float in front of their Q/DQ (TensorRT 8 takes no others), opset 13, IR 7.
    """
    quantized = ModelProto()
    quantized.CopyFrom(model)
    for tensor, readers in quantized_inputs(quantized).items():
        scale = np.float32(max(amax[tensor], np.finfo(np.float32).tiny * INT8_MAX) / INT8_MAX)
        pair = _pair(quantized, tensor, np.array(scale, np.float32), None)
        for reader in readers:
            _redirect(reader, tensor, pair[1].output[0])
        _insert_before(quantized, readers, pair)
    values = constants(quantized)
    for node in quantized_layers(quantized):
        weight, axis = node.input[1], _axis(node)
        others = tuple(i for i in range(values[weight].ndim) if i != axis)
        largest = np.abs(values[weight]).max(axis=others)
        # A channel of zeros needs some scale above zero.
        scales = (np.where(largest > 0, largest, 1) / INT8_MAX).astype(np.float32)
        pair = _pair(quantized, weight, scales, axis)
        node.input[1] = pair[1].output[0]
        _insert_before(quantized, [node], pair)
    check(quantized)
    return quantized


def _shortcut(model: ModelProto, add: NodeProto) -> str | None:
    """The input of a residual Add that does not come from the convolution it fuses with."""
    order = {node.output[0]: place for place, node in enumerate(model.graph.node)}
    made_by = {name: node for node in model.graph.node for name in node.output}
    readers = consumers(model)
    fusing = [
        name
        for name in add.input
        if name in made_by and made_by[name].op_type == "Conv" and len(readers[name]) == 1
    ]
    if not fusing or any(name not in made_by for name in add.input):
        return None
    # Of two convolutions TensorRT fuses the Add with the one that is computed last.
    last = max(fusing, key=lambda name: order[name])
    return next((name for name in add.input if name != last), None)


def _axis(node: NodeProto) -> int:
    if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
        return 0
    return WEIGHT_AXIS[node.op_type]


def _pair(
    model: ModelProto, tensor: str, scale: np.ndarray, axis: int | None
) -> tuple[NodeProto, NodeProto]:
    names = [f"{tensor}/scale", f"{tensor}/zero_point"]
    set_constant(model, names[0], scale)
    set_constant(model, names[1], np.zeros(scale.shape, np.int8))
    options = {} if axis is None else {"axis": axis}
    middle, end = f"{tensor}/quantized", f"{tensor}/dequantized"
    return (
        helper.make_node("QuantizeLinear", [tensor, *names], [middle], name=middle, **options),
        helper.make_node("DequantizeLinear", [middle, *names], [end], name=end, **options),
    )


def _redirect(node: NodeProto, old: str, new: str) -> None:
    for place, name in enumerate(node.input):
        if name == old:
            node.input[place] = new


def _insert_before(
    model: ModelProto, readers: list[NodeProto], pair: tuple[NodeProto, NodeProto]
) -> None:
    nodes = model.graph.node
    first = min(place for place, node in enumerate(nodes) if any(node is r for r in readers))
    for node in reversed(pair):
        nodes.insert(first, node)
