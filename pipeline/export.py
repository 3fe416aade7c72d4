"""Frozen graph -> ONNX, which then proves that it is the same network."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from benchmarks.progress import Console
from engines.files import write_bytes
from engines.tensorflow_graph import INPUT, import_tensorflow, load
from pipeline import graph, loader
from pipeline.dataset import Dataset
from pipeline.errors import PipelineError
from pipeline.retrain import trained_dataset
from pipeline.run import Outcome, Run

TOLERANCE = 1e-4  # largest difference of a probability between TensorFlow and ONNX Runtime
PICTURES = 32  # test pictures that it is proved on
LAYER_TOLERANCE = 1e-3  # of a layer's output, relative to its largest value


def export(run: Run, console: Console) -> dict[str, Any]:
    """Stage 2: convert the frozen graph and prove the result on real test pictures.

    Returns:
        "largest_difference" of a probability, "pictures" it was measured on, and "operations":
        how many nodes of each type the graph has.

    Raises:
        PipelineError: the graph can't be converted, or answers otherwise than TensorFlow.
    """
    run.require("retrain")
    dataset = trained_dataset(run)

    def work() -> Outcome:
        frozen = run.frozen_graph.read_bytes()
        model = graph.to_onnx(frozen)
        pixels = _test_pictures(run, dataset)
        difference = prove(run.frozen_graph, model, pixels)
        write_bytes(run.onnx("fp32"), model.SerializeToString())
        console.say(
            f"export: opset {graph.OPSET}, {len(model.graph.node)} nodes; largest difference from "
            f"TensorFlow {difference:.1e} on {len(pixels)} test pictures"
        )
        return Outcome(
            [run.onnx("fp32")],
            {
                "largest_difference": difference,
                "pictures": len(pixels),
                "operations": graph.operations(model),
            },
        )

    options = {"opset": graph.OPSET, "ir_version": graph.IR_VERSION}
    return run.perform("export", [run.frozen_graph], options, work, console)


def prove(frozen_graph: Path, model: ModelProto, pixels: np.ndarray) -> float:
    """Hold ONNX Runtime on `model` against TensorFlow on the frozen graph.

    Args:
        pixels: (N, height, width, 3) uint8.

    Returns:
        The largest difference of a probability.

    Raises:
        PipelineError: it is above `TOLERANCE`; names the first layer that differs.
    """
    with load(str(frozen_graph)) as tensorflow:
        wanted = tensorflow.infer(pixels)
    answers = _onnx_tensors(model, [model.graph.output[0].name], pixels)[0]
    difference = float(np.abs(answers - wanted).max())
    if not difference <= TOLERANCE:  # also if it is NaN
        layer = first_difference(frozen_graph, model, pixels[:1])
        raise PipelineError(
            f"the ONNX graph differs from TensorFlow by up to {difference:.2g} in a probability "
            f"(at most {TOLERANCE:g} is right); the first layer that differs is {layer}"
        )
    return difference


def first_difference(frozen_graph: Path, model: ModelProto, pixels: np.ndarray) -> str:
    """The first tensor, in the order of computing, that both graphs have and that differs.

    tf2onnx keeps TensorFlow's names, so tensors are matched by name.
    """
    tf = import_tensorflow()
    frozen = tf.compat.v1.GraphDef.FromString(frozen_graph.read_bytes())
    made_by_tensorflow = {f"{node.name}:0" for node in frozen.node}
    made = [name for node in model.graph.node for name in node.output]
    common = [name for name in made if name in made_by_tensorflow]
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(frozen, name=""), [])
    function = wrapped.prune(f"{INPUT}:0", common)
    wanted = function(tf.constant(pixels.astype(np.float32)))
    found = _onnx_tensors(model, common, pixels)
    for name, right, wrong in zip(common, wanted, found, strict=True):
        right = right.numpy()
        if wrong.ndim == 4 and wrong.shape != right.shape:
            wrong = wrong.transpose(0, 2, 3, 1)  # ONNX has channels first
        if wrong.shape != right.shape:
            continue
        if not np.abs(wrong - right).max() <= LAYER_TOLERANCE * max(np.abs(right).max(), 1e-6):
            return name.removesuffix(":0")
    return model.graph.output[0].name


def _onnx_tensors(model: ModelProto, names: list[str], pixels: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    watched = ModelProto()
    watched.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    watched.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(names, {INPUT: pixels.astype(np.float32)})
    return found


def _test_pictures(run: Run, dataset: Dataset) -> np.ndarray:
    height, width = frozen_input_size(run.frozen_graph)
    pictures = dataset.split("test")[:PICTURES]
    return np.concatenate(list(loader.batches(dataset, pictures, (height, width), PICTURES)))


def frozen_input_size(frozen_graph: Path) -> tuple[int, int]:
    """Height and width of the pictures that a frozen graph takes."""
    with load(str(frozen_graph)) as engine:
        _, height, width, _ = engine.input.shape
    return int(height or 0), int(width or 0)
