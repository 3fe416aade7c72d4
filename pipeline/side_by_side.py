"""An FP32 graph and a quantized one of it in one graph, which computes where they differ."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from pipeline.calibration import float_tensors
from pipeline.surgery import constants, set_constant

# In front of tensors' names, for the same in another graph. TensorFlow allows no such sign in a
# name, so there is none yet.
OWN, WHOLE = "own|", "whole|"
MAKE_HALF = ("Cast", "Constant", "ConstantOfShape")  # of their own accord, whatever they read


def energy_of(tensor: str) -> str:
    """The name of the sum of a tensor's squares."""
    return f"energy|{tensor}"


def in_fp32(model: ModelProto) -> ModelProto:
    """A graph in FP16 as one in FP32 whose results are rounded to FP16, each of them.

    Few processors compute in FP16. For others ONNX Runtime computes in FP32, and leaves out the
    rounding between two layers, which is what an engine in FP16 loses by.
    """
    shaped = shape_inference.infer_shapes(model, strict_mode=True).graph
    halves = {
        value.name
        for value in (*shaped.value_info, *shaped.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    wide = ModelProto()
    wide.CopyFrom(model)
    for name, value in constants(model).items():
        if value.dtype == np.float16:
            set_constant(wide, name, value.astype(np.float32))
    del wide.graph.node[:], wide.graph.value_info[:]
    for node in model.graph.node:
        copy = wide.graph.node.add()
        copy.CopyFrom(node)
        for place, name in enumerate(node.output):
            if name not in halves:
                continue
            half, single = f"half|{name}", f"single|{name}"
            copy.output[place] = half if node.op_type in MAKE_HALF else single
            if node.op_type not in MAKE_HALF:
                wide.graph.node.append(
                    helper.make_node("Cast", [single], [half], to=TensorProto.FLOAT16)
                )
            wide.graph.node.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    return wide


class SideBySide:
    """In one graph: an FP32 one, and what was made of it, as a whole and each layer alone.

    layers: the nodes of the FP32 graph whose results can be compared.
    model: all of it.
    energies: the tensors of `model` to compute, scalars.
    """

    def __init__(self, exact: ModelProto, rough: ModelProto) -> None:
        self.model = ModelProto()
        self.model.CopyFrom(exact)
        self.energies: list[str] = []
        self._made_by = {name: node for node in rough.graph.node for name in node.output}
        source, *inside = float_tensors(exact)
        floats = [tensor for tensor in inside if tensor in self._made_by]
        self._comparable = {source, *floats}
        self.layers = [node for node in exact.graph.node if node.output[0] in floats]
        same = {source: source, "": "", **self._share_constants(exact, rough)}
        self._add_twin(rough, WHOLE, same)
        self._add_twin(rough, OWN, same | {tensor: tensor for tensor in floats})

    def measure(self, tensor: str, prefix: str, twin: str) -> None:
        """Let the graph compute the energy of an FP32 tensor, and of its difference from a twin.

        Args:
            prefix: which twin's it is, `WHOLE` or `OWN`.
            twin: the tensor to compare with, by its name in the graph that was made of FP32's.
        """
        self._add_energy(tensor, tensor)
        if energy_of(prefix + twin) not in self.energies:
            difference = f"difference|{prefix}{twin}"
            self._add(helper.make_node("Sub", [tensor, prefix + twin], [difference]))
            self._add_energy(difference, prefix + twin)

    def quantized_inputs(self, layer: NodeProto) -> dict[str, str]:
        """The tensors that are quantized for a layer, and what it reads for each."""
        found = {}
        for name in self._made_by[layer.output[0]].input:
            start = name
            for op_type in ("DequantizeLinear", "QuantizeLinear"):
                node = self._made_by.get(start)
                start = node.input[0] if node is not None and node.op_type == op_type else ""
            if start in self._comparable:
                found[start] = name
        return found

    def _share_constants(self, exact: ModelProto, rough: ModelProto) -> dict[str, str]:
        """Names in `model` of the constants of `rough`; those that are FP32's too are not added.

        What is computed of the same is then one computation, and exact beyond doubt.
        """
        known, names = constants(exact), {}
        for name, value in constants(rough).items():
            old = known.get(name)
            shared = old is not None and old.dtype == value.dtype and np.array_equal(old, value)
            names[name] = name if shared else WHOLE + name
            if not shared:
                set_constant(self.model, names[name], value)
        return names

    def _add_twin(self, rough: ModelProto, prefix: str, known: dict[str, str]) -> None:
        """Add the nodes of `rough`, which shall read what is `known` under another name."""
        for node in rough.graph.node:
            twin = self.model.graph.node.add()
            twin.CopyFrom(node)
            twin.name = prefix + node.output[0]
            twin.input[:] = [known.get(name, prefix + name) for name in node.input]
            twin.output[:] = [name and prefix + name for name in node.output]

    def _add_energy(self, tensor: str, name: str) -> None:
        energy = energy_of(name)
        if energy not in self.energies:
            self._add(helper.make_node("ReduceSumSquare", [tensor], [energy], keepdims=0))
            self.energies.append(energy)

    def _add(self, node: NodeProto) -> None:
        node.name = node.output[0]
        self.model.graph.node.append(node)
