"""Look into an ONNX graph, and alter it."""

import re
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference
from onnx.utils import Extractor

from pipeline.errors import PipelineError
from pipeline.last_layer import LastLayer


def constants(model: ModelProto) -> dict[str, np.ndarray]:
    """Every initializer as an array."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """For each tensor, the nodes that read it."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def set_constant(model: ModelProto, name: str, value: np.ndarray) -> None:
    """Add or replace the initializer `name`."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(value, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(value, name))


def fold_batch_norm(model: ModelProto) -> None:
    """Fold every per-channel Mul and Add behind a Conv into its weights and bias.

    tf2onnx folds batch normalization into ordinary convolutions but leaves it behind depthwise
    ones. With weights W and bias b: m * (W x + b) + a = (m W) x + (m b + a), in float64.
    """
    values = constants(model)
    graph_outputs = {output.name for output in model.graph.output}
    for conv in [node for node in model.graph.node if node.op_type == "Conv"]:
        while conv.output[0] not in graph_outputs:
            readers = consumers(model).get(conv.output[0], [])
            if len(readers) != 1 or readers[0].op_type not in ("Mul", "Add"):
                break
            scale_or_shift = readers[0]
            constant = next((n for n in scale_or_shift.input if n in values), None)
            weight = values.get(conv.input[1])
            if constant is None or weight is None:
                break
            channels = weight.shape[0]
            factor = values[constant].astype(np.float64)
            if factor.size == 1:
                factor = np.full(channels, factor.item())
            elif factor.shape not in ((channels, 1, 1), (1, channels, 1, 1)):
                break
            factor = factor.reshape(channels)
            bias = values[conv.input[2]] if len(conv.input) > 2 else np.zeros(channels)
            if scale_or_shift.op_type == "Mul":
                weight = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
                bias = bias * factor
            else:
                bias = bias + factor
            del conv.input[1:]
            for part, value in (("weight", weight), ("bias", bias)):
                name = f"{scale_or_shift.output[0]}/folded_{part}"
                values[name] = value.astype(np.float32)
                set_constant(model, name, values[name])
                conv.input.append(name)
            conv.output[0] = scale_or_shift.output[0]
            model.graph.node.remove(scale_or_shift)


def fold_pad(model: ModelProto) -> None:
    """Fold every zero Pad of height and width into the Conv behind it.

    A Pad between an activation and its convolution would keep TensorRT from fusing them.
    """
    values = constants(model)
    graph_outputs = {output.name for output in model.graph.output}
    for pad in [node for node in model.graph.node if node.op_type == "Pad"]:
        readers = consumers(model).get(pad.output[0], [])
        zero = len(pad.input) < 3 or not pad.input[2] or not values.get(pad.input[2], np.ones(1))
        amounts = values.get(pad.input[1])
        mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
        if amounts is None or amounts.size != 8 or not zero or mode != b"constant":
            continue
        if pad.output[0] in graph_outputs:
            continue
        before, after = amounts[:4], amounts[4:]
        if before[:2].any() or after[:2].any() or (amounts < 0).any():
            continue
        if not all(r.op_type == "Conv" and _explicit_padding(r) for r in readers):
            continue
        for conv in readers:
            old = next((a for a in conv.attribute if a.name == "pads"), None)
            pads = np.array(old.ints) if old else np.zeros(4, np.int64)
            if old:
                conv.attribute.remove(old)
            total = (pads + np.concatenate([before[2:], after[2:]])).tolist()
            conv.attribute.append(helper.make_attribute("pads", total))
            conv.input[0] = pad.input[0]
        model.graph.node.remove(pad)


def replace_erfc(model: ModelProto) -> None:
    """Replace every Erfc, which ONNX lacks, by 1 - Erf, in float32.

    Keras computes the exact `gelu` with it.
    """
    one = "erfc_one"
    for place, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "Erfc":
            continue
        set_constant(model, one, np.array(1, np.float32))
        erf = f"{node.output[0]}/erf"
        minus = helper.make_node("Sub", [one, erf], node.output, name=node.name)
        node.CopyFrom(helper.make_node("Erf", node.input, [erf], name=erf))
        model.graph.node.insert(place + 1, minus)


def drop_unused(model: ModelProto) -> None:
    """Remove initializers that no node reads, and recorded shapes of inner tensors."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]


def name_in_order(model: ModelProto) -> None:
    """Number what tf2onnx numbered, and name and order the constants, by where they stand.

    Its own numbers, and which of several equal constants it keeps, depend on the hashes of
    strings and on earlier conversions: names and bytes would differ from one run to the next.
    """
    numbers: dict[str, str] = {}

    def numbered(name: str) -> str:
        return re.sub(r"__\d+", lambda m: numbers.setdefault(m[0], f"__{len(numbers)}"), name)

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {"": ""}  # an input that is left out
    names.update({value.name: value.name for value in (*model.graph.input, *model.graph.output)})
    for node in model.graph.node:
        node.name = numbered(node.name)
        for name in node.output:
            names.setdefault(name, numbered(name))
        for place, name in enumerate(node.input):
            names.setdefault(name, f"{names[node.output[0]]}/{place}")
        for field in (node.input, node.output):
            field[:] = [names[name] for name in field]
    del model.graph.initializer[:]
    for old, new in names.items():
        if old in tensors:
            tensors[old].name = new
            model.graph.initializer.append(tensors[old])


def rename(model: ModelProto, old: str, new: str) -> None:
    """Give a tensor another name, wherever it stands."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name == old:
            value.name = new
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def _explicit_padding(conv: NodeProto) -> bool:
    auto = next((a.s for a in conv.attribute if a.name == "auto_pad"), b"NOTSET")
    return bool(auto == b"NOTSET")


class LastLayerNames(NamedTuple):
    """Tensors of the last layer: softmax(bottlenecks @ kernel + bias); no bias where it is zero."""

    bottlenecks: str
    kernel: str
    logits: str
    bias: str | None


def find_last_layer(model: ModelProto) -> LastLayerNames:
    """Find the last layer of a classifier, from its output backwards.

    Raises:
        PipelineError: the graph does not end in MatMul, Add (or not) and Softmax.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    values = {tensor.name for tensor in model.graph.initializer}
    node = made_by.get(model.graph.output[0].name)
    if node is not None:
        node = made_by.get(node.input[0]) if node.op_type == "Softmax" else None
    bias = None
    if node is not None and node.op_type == "Add":
        bias = next((name for name in node.input if name in values), None)
        node = next((made_by[name] for name in node.input if name in made_by), None)
    if node is None or node.op_type != "MatMul" or node.input[1] not in values:
        raise PipelineError("the ONNX graph does not end in a last layer and a softmax")
    return LastLayerNames(node.input[0], node.input[1], node.output[0], bias)


def set_last_layer(model: ModelProto, layer: LastLayer) -> None:
    """Put another last layer into a classifier."""
    names = find_last_layer(model)
    set_constant(model, names.kernel, layer.kernel)
    if names.bias is not None:
        set_constant(model, names.bias, layer.bias)
        return
    bias, biased = f"{names.logits}/bias", f"{names.logits}/biased"
    set_constant(model, bias, layer.bias)
    nodes = model.graph.node
    place = next(n for n, node in enumerate(nodes) if names.logits in node.input)
    nodes[place].input[0] = biased
    nodes.insert(place, helper.make_node("Add", [names.logits, bias], [biased], name=biased))


def backbone_of(model: ModelProto) -> ModelProto:
    """The part of a classifier from its pixels to its bottlenecks."""
    return up_to(model, find_last_layer(model).bottlenecks)


def up_to(model: ModelProto, tensor: str) -> ModelProto:
    """The part of a network from its pixels to one of its tensors, which it gives."""
    shaped = shape_inference.infer_shapes(model, strict_mode=True)
    return Extractor(shaped).extract_model([model.graph.input[0].name], [tensor])
