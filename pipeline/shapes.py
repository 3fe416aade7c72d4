"""Names and sizes of what goes into an exported graph and comes out of it."""

from pathlib import Path
from typing import NamedTuple

import onnx

from pipeline.errors import PipelineError


class Shapes(NamedTuple):
    """A classifier's only input, float32 (batch, height, width, 3), and output (batch, classes)."""

    input: str
    height: int
    width: int
    output: str
    classes: int


def shapes_of(graph: Path) -> Shapes:
    """Names and sizes of a graph's input and output; they are the same in each of its precisions.

    Raises:
        PipelineError: it is no classifier of pictures whose batch is free.
    """
    model = onnx.load(graph).graph
    source, result = (value.type.tensor_type for value in (model.input[0], model.output[0]))
    sizes = [dim.dim_value for dim in (*source.shape.dim, *result.shape.dim)]
    floats = source.elem_type == result.elem_type == onnx.TensorProto.FLOAT
    match sizes:
        case [0, height, width, 3, 0, classes] if height and width and classes and floats:
            return Shapes(model.input[0].name, height, width, model.output[0].name, classes)
    raise PipelineError(f"{graph} is no classifier of pictures (batch, height, width, 3)")
