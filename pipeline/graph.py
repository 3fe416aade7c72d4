"""Keras model -> frozen GraphDef -> ONNX, with everything folded that can be."""

from collections import Counter
from typing import Any

import onnx
from onnx import ModelProto, helper

from engines.tensorflow_graph import INPUT, OUTPUT, import_tensorflow
from pipeline.errors import PipelineError
from pipeline.surgery import (
    drop_unused,
    fold_batch_norm,
    fold_pad,
    name_in_order,
    rename,
    replace_erfc,
)

# What TensorRT 8.2, the last one for a TX2, reads: ONNX 1.8 is built into its parser.
OPSET = 13
IR_VERSION = 7


def freeze(model: Any) -> bytes:
    """The serialized GraphDef of a Keras model, its variables turned into constants.

    Args:
        model: from pixels (None, height, width, 3) to one output (None, n). It runs as at
            inference: no dropout, batch normalization by its moving statistics.

    Returns:
        A GraphDef with the placeholder "pixels" and the output "probabilities".
    """
    tf = import_tensorflow()
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    function = tf.function(lambda pixels: tf.identity(model(pixels, training=False), name=OUTPUT))
    shape = (None, *model.inputs[0].shape[1:])
    # Keras makes each grouped convolution a function of its own, compiled by XLA, which tf2onnx
    # can't look into. What is called "eagerly" becomes part of the graph instead.
    eagerly = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name=INPUT))
    finally:
        tf.config.run_functions_eagerly(eagerly)
    definition = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    _drop_defaults(definition)
    graph: bytes = definition.SerializeToString(deterministic=True)
    return graph


def _drop_defaults(definition: Any) -> None:
    """Remove what goes without saying from a GraphDef.

    An older TensorFlow, such as a board has, refuses attributes that it does not know, even where
    they only say what it does anyway.
    """
    from tensorflow.python.framework import op_def_registry

    for node in definition.node:
        for attribute in op_def_registry.get(node.op).attr:
            said = node.attr.get(attribute.name)
            if attribute.HasField("default_value") and said == attribute.default_value:
                del node.attr[attribute.name]


def to_onnx(frozen_graph: bytes, output: str = OUTPUT) -> ModelProto:
    """Convert a frozen graph with tf2onnx, and fold what it leaves.

    Args:
        frozen_graph: from `freeze`.
        output: name for the output of the ONNX graph ("probabilities" or "bottlenecks").

    Returns:
        ONNX opset 13, IR 7, input "pixels" (batch, height, width, 3) float32. The same bytes for
        the same network.

    Raises:
        PipelineError: tf2onnx can't convert it, or the ONNX checker refuses the result.
    """
    tf = import_tensorflow()
    import logging

    from tf2onnx import convert

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)
    graph = tf.compat.v1.GraphDef.FromString(frozen_graph)
    try:
        model, _ = convert.from_graph_def(
            graph, input_names=[f"{INPUT}:0"], output_names=[f"{OUTPUT}:0"], opset=OPSET
        )
    except Exception as error:  # tf2onnx raises what its handlers raise
        raise PipelineError(f"tf2onnx can't convert the frozen graph: {error}") from error
    replace_erfc(model)
    for node in model.graph.node:
        if not onnx.defs.has(node.op_type):
            raise PipelineError(
                f"ONNX has no {node.op_type}, which {node.name} computes: "
                "build the model without this layer"
            )
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    _name_ends(model, output)
    fold_batch_norm(model)
    fold_pad(model)
    drop_unused(model)
    name_in_order(model)
    check(model)
    return model


def check(model: ModelProto) -> None:
    """Run ONNX's own checker, shapes included.

    Raises:
        PipelineError: it refuses the model.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's exceptions are not all public
        raise PipelineError(f"the ONNX checker refuses the graph: {error}") from error


def operations(model: ModelProto) -> dict[str, int]:
    """How many nodes of each type there are."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def _name_ends(model: ModelProto, output: str) -> None:
    rename(model, f"{INPUT}:0", INPUT)
    rename(model, f"{OUTPUT}:0", output)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
