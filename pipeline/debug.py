"""Tensor by tensor: how far a quantized graph has moved from FP32, and which layers moved it."""

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto

from benchmarks.progress import Console
from engines.text import aligned, printable
from pipeline import calibration, loader
from pipeline.accuracy_guard import decibels
from pipeline.calibration import Batches
from pipeline.errors import PipelineError, UsageError
from pipeline.quantize import BATCH, calibration_pictures
from pipeline.retrain import trained_dataset
from pipeline.run import Run
from pipeline.side_by_side import OWN, WHOLE, SideBySide, energy_of, in_fp32
from pipeline.surgery import find_last_layer, up_to

PRECISIONS = ("int8", "fp16")
HEADER = ("", "layer", "operation", "place", "own dB", "inputs dB", "whole dB")
STANDS_OUT = 10.0  # decibels below the median layer


class Moved(NamedTuple):
    """How far a layer's result is from FP32's: signal to noise in decibels, infinite for exact.

    tensor: what the layer makes, which is also its name.
    place: of the layer in the graph, from 1 on.
    own: what this layer alone does, given the very input that it has in FP32.
    inputs: of each input that is quantized for this layer, what that alone does.
    whole: what it comes to in the whole graph, behind all layers before it.
    """

    tensor: str
    operation: str
    place: int
    own: float
    inputs: dict[str, float]
    whole: float


def debug(run: Run, precision: str, pictures: int, console: Console) -> dict[str, Any]:
    """Find the layers by which a run's quantized graph moves away from FP32.

    Args:
        precision: "int8" or "fp16".
        pictures: how many to compare on, of those that INT8 is calibrated on.

    Returns:
        "precision", "pictures" (how many were used), and "layers" in the order of the graph, from
        the pixels to the bottlenecks (the last layer of an INT8 graph is trained to match, and is
        another one): the fields of `Moved`, with None for infinite, and "stands_out": see
        `standing_out`.

    Raises:
        UsageError: `pictures` is below 1, the run is not quantized yet, or has no such graph.
        PipelineError: a tensor is no finite number on these pictures.
    """
    if pictures < 1:
        raise UsageError(f"--pictures must be at least 1; received {pictures}")
    record = run.require("quantize")
    if reason := record["results"].get("impossible", {}).get(precision):
        raise UsageError(f"{run.onnx(precision).name} could not be made: {reason}")
    dataset = trained_dataset(run)
    some = calibration_pictures(dataset, pictures, run.stage("retrain")["options"]["seed"])
    model, rough = (onnx.load(run.onnx(variant)) for variant in ("fp32", precision))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    size = (dims[1].dim_value, dims[2].dim_value)
    with console.progress("debug", len(some), "pictures") as advance:

        def batches() -> Iterator[np.ndarray]:
            for pixels in loader.batches(dataset, some, size, BATCH):
                yield pixels
                advance(len(pixels))

        layers = compare(model, rough, batches)
    guilty = standing_out(layers)
    return {
        "precision": precision,
        "pictures": len(some),
        "layers": [
            {
                **layer._asdict(),
                "own": _finite(layer.own),
                "inputs": {tensor: _finite(value) for tensor, value in layer.inputs.items()},
                "whole": _finite(layer.whole),
                "stands_out": layer in guilty,
            }
            for layer in layers
        ],
    }


def compare(model: ModelProto, rough: ModelProto, batches: Batches) -> list[Moved]:
    """Every layer from the pixels to the bottlenecks, in the order of the graph.

    Each is computed three times, all in one graph: in FP32; in the quantized graph; and by the
    quantized graph's layer alone, from what FP32 gives it. Differences are squared and summed in
    there too: memory holds one picture's tensors for each processor, however many pictures.

    Args:
        model: FP32, a whole classifier.
        rough: what `qdq.insert_qdq` or `half.to_fp16` made of it; tensors keep their names.

    Raises:
        PipelineError: a tensor is no finite number; names the first.
    """
    end = find_last_layer(model).bottlenecks
    both = SideBySide(up_to(model, end), up_to(in_fp32(rough), end))
    for layer in both.layers:
        for tensor, read in both.quantized_inputs(layer).items():
            both.measure(tensor, OWN, read)
        for prefix in (OWN, WHOLE):
            both.measure(layer.output[0], prefix, layer.output[0])
    sums = calibration.sums(both.model, batches, both.energies)

    def moved(tensor: str, twin: str) -> float:
        signal, noise = sums[energy_of(tensor)], sums[energy_of(twin)]
        if not math.isfinite(signal + noise):
            raise PipelineError(
                f"tensor {tensor} is no finite number on the pictures, in FP32 or as quantized"
            )
        return decibels(signal, noise)

    return [
        Moved(
            layer.output[0],
            layer.op_type,
            place,
            moved(layer.output[0], OWN + layer.output[0]),
            {t: moved(t, OWN + read) for t, read in both.quantized_inputs(layer).items()},
            moved(layer.output[0], WHOLE + layer.output[0]),
        )
        for place, layer in enumerate(both.layers, 1)
    ]


def standing_out(layers: Sequence[Moved]) -> list[Moved]:
    """The layers whose own part is 10 dB worse than the median of those that are not exact."""
    rough = [layer for layer in layers if math.isfinite(layer.own)]
    usual = median([layer.own for layer in rough] or [0])
    return [layer for layer in rough if layer.own < usual - STANDS_OUT]


def describe(found: dict[str, Any]) -> str:
    """What `debug` found, for people: the layer that does most harm comes first."""
    rows = [HEADER]
    for layer in sorted(found["layers"], key=lambda each: _order(each["own"])):
        inputs = layer["inputs"].values()
        rows.append(
            (
                ">" if layer["stands_out"] else "",
                printable(layer["tensor"]),
                layer["operation"],
                str(layer["place"]),
                _shown(layer["own"]),
                _shown(min(inputs, key=_order)) if inputs else "",
                _shown(layer["whole"]),
            )
        )
    count = sum(layer["stands_out"] for layer in found["layers"])
    return (
        f"{aligned(rows, left=3)}\n"
        f"{found['precision']} against fp32 on {found['pictures']} training pictures: "
        f"{count or 'none'} of {len(found['layers'])} layers {'stands' if count < 2 else 'stand'} "
        "out (>)"
    )


def _finite(decibels: float) -> float | None:
    return round(decibels, 2) if math.isfinite(decibels) else None


def _shown(decibels: float | None) -> str:
    return "exact" if decibels is None else f"{decibels:.1f}"


def _order(decibels: float | None) -> float:
    return math.inf if decibels is None else decibels
