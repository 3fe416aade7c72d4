"""INT8 within a budget of accuracy: the layers that harm it most are returned to float."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from onnx import ModelProto

from benchmarks.accuracy import paired, top1
from benchmarks.latency import measure
from benchmarks.progress import Console
from benchmarks.results import summarize
from benchmarks.scenarios import QUICK, SINGLE_STREAM
from engines.files import write_bytes
from pipeline.last_layer import Labelled, LastLayer
from pipeline.qdq import insert_qdq, quantized_layers
from pipeline.retrain import computing_engine
from pipeline.surgery import backbone_of

PICTURES = 16  # to rank the layers with
EFFORT = QUICK._replace(queries=200, turns=20)  # for the latencies of what was tried
DECIDES, VERDICT = "validation", "test"  # splits: the second has no part in any decision
FP32 = "fp32"


class Candidate(NamedTuple):
    """A classifier that may be the one to keep.

    model: the whole graph, ready to use.
    layer: its last layer.
    splits: the bottlenecks of its backbone, of "validation" and "test" at least.
    heads: how it does with each last layer there is, as the stage reports it.
    """

    model: ModelProto
    layer: LastLayer
    splits: dict[str, Labelled]
    heads: dict[str, Any]

    def answers(self, split: str) -> np.ndarray:
        """Class numbers (N,) that it gives for the pictures of a split."""
        return self.layer.probabilities(self.splits[split]).argmax(1)


class Point(NamedTuple):
    """One place on the curve: which layers are in float, and what is then right.

    drop: points of top-1 that it loses against FP32 on the validation split.
    """

    floats: Sequence[str]
    accuracy: dict[str, dict[str, Any]]
    drop: float


class Ranked(NamedTuple):
    """A layer, by the tensor it makes, and what its quantization alone leaves of the bottlenecks.

    decibels: signal to noise; infinite where nothing changes.
    """

    layer: str
    decibels: float


def keep_accuracy(
    make: Callable[[Sequence[str]], Candidate],
    reference: Candidate,
    thresholds: dict[str, float],
    max_drop: float,
    pixels: np.ndarray,
    folder: Path,
    console: Console,
) -> tuple[Candidate, dict[str, Any]]:
    """Find the INT8 graph with the fewest layers in float that keeps within a budget.

    The worst of `rank` are returned to float, twice as many each time, up to half of all: with
    more, the graph would be INT8 in name only. What is kept is decided on the validation split.

    Args:
        make: gives the INT8 graph that leaves some layers in float, with its own last layer.
        reference: FP32.
        thresholds: largest absolute value that INT8 represents of each tensor.
        max_drop: the budget, in points of top-1 lost on the validation split.
        pixels: (N, height, width, 3) uint8, calibration pictures.
        folder: for the graphs that are tried.

    Returns:
        The graph to keep, which is the best one found where none keeps within the budget, and
        for the report:
        "met", "max_drop", "layers" (how many there are), "float_layers" (those kept in float,
        by the tensor each makes), "ranking" (worst first, empty where it was not needed),
        "backend" that latencies were measured on, "fp32" and "points" (each with accuracy of
        both splits and p50 in ms; "chosen" is one's place), "test" (the chosen one beside FP32
        on the test split) and "seconds".
    """
    start = time.monotonic()
    layers = len(quantized_layers(reference.model))
    fp32 = _accuracy(reference)
    one = 100 / fp32[DECIDES]["n"]
    if 0 < max_drop < one:
        console.warn(
            f"accuracy guard: one of {fp32[DECIDES]['n']} validation pictures is {one:.2f} points, "
            f"more than the {max_drop:g} that may be lost: none may be lost, then; a larger "
            "--validation-percentage would tell more"
        )
    ranking: list[Ranked] = []
    points: list[Point] = []
    best, chosen = reference, 0
    _save(reference, folder, FP32)
    for count in (0, *_counts(layers)):
        if count and not ranking:
            ranking = rank(reference.model, thresholds, pixels, console)
        floats = [worst.layer for worst in ranking[:count]]
        candidate = make(floats)
        _save(candidate, folder, str(count))
        point = _judge(candidate, reference, floats)
        console.say(
            f"accuracy guard: {count} of {layers} layers in float: "
            f"{point.accuracy[DECIDES]['top1']:.2%} of {fp32[DECIDES]['n']} validation "
            f"pictures, FP32 {fp32[DECIDES]['top1']:.2%}; {max_drop:g} points may be lost"
        )
        if not points or point.drop < points[chosen].drop:
            best, chosen = candidate, len(points)
        points.append(point)
        if point.drop <= max_drop:
            break
    backend, p50 = _latencies(folder, [FP32, *map(_name, points)], pixels, console)
    met = points[chosen].drop <= max_drop
    if not met:
        console.warn(
            f"INT8 can't be kept within --max-accuracy-drop {max_drop:g}: the best found loses "
            f"{points[chosen].drop:.2f} points on the validation pictures, with "
            f"{_name(points[chosen])} of {layers} layers in float; it is kept all the same"
        )
    return best, {
        "met": met,
        "max_drop": max_drop,
        "layers": layers,
        "float_layers": list(points[chosen].floats),
        "ranking": [
            {"layer": r.layer, "decibels": round(r.decibels, 2) if r.decibels < math.inf else None}
            for r in ranking
        ],
        "backend": backend,
        FP32: {**fp32, "p50_ms": p50[FP32]},
        "points": [
            {
                "float_layers": len(point.floats),
                **point.accuracy,
                "drop": point.drop,
                "p50_ms": p50[_name(point)],
            }
            for point in points
        ],
        "chosen": chosen,
        VERDICT: paired(
            best.answers(VERDICT), reference.answers(VERDICT), reference.splits[VERDICT].labels
        ),
        "seconds": round(time.monotonic() - start, 1),
    }


def rank(
    model: ModelProto, thresholds: dict[str, float], pixels: np.ndarray, console: Console
) -> list[Ranked]:
    """Every layer by how much its quantization alone moves the bottlenecks, the worst first.

    Args:
        model: FP32, a whole classifier.
        thresholds: largest absolute value to represent, of each tensor of
            `qdq.quantizable_inputs`.
        pixels: (N, height, width, 3) uint8; the first 16 are used.
    """
    layers = [node.output[0] for node in quantized_layers(model)]
    some = pixels[:PICTURES]
    exact = _bottlenecks(model, some)
    found = []
    with console.progress("ranking", len(layers), "layers") as advance:
        for layer in layers:
            alone = insert_qdq(model, thresholds, [other for other in layers if other != layer])
            rough = _bottlenecks(alone, some)
            found.append(Ranked(layer, _signal_to_noise(exact, rough)))
            advance(1)
    return sorted(found, key=lambda ranked: ranked.decibels)


def _bottlenecks(model: ModelProto, pixels: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        backbone_of(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    source = model.graph.input[0].name
    features: np.ndarray = session.run(None, {source: pixels.astype(np.float32)})[0]
    return features


def _counts(layers: int) -> list[int]:
    """How many layers to return to float, one number after the other: 1, 2, 4 .. half of them."""
    most = layers // 2
    return [*(2**i for i in range(most.bit_length()) if 2**i < most), *([most] if most else [])]


def _signal_to_noise(exact: np.ndarray, rough: np.ndarray) -> float:
    return decibels(
        *(float(np.square(values, dtype=np.float64).sum()) for values in (exact, rough - exact))
    )


def decibels(signal: float, noise: float) -> float:
    """Signal to noise, from the sum of squared values and that of their squared errors.

    Returns:
        10 log10(signal / noise); infinite where there is no noise.
    """
    if not noise:
        return math.inf
    return 10 * math.log10(max(signal, float(np.finfo(np.float32).tiny)) / noise)


def _judge(candidate: Candidate, reference: Candidate, floats: Sequence[str]) -> Point:
    truth = reference.splits[DECIDES].labels
    answers = [c.answers(DECIDES) for c in (reference, candidate)]
    before, after = (int((given == truth).sum()) for given in answers)
    return Point(floats, _accuracy(candidate), 100 * (before - after) / len(truth))


def _accuracy(candidate: Candidate) -> dict[str, dict[str, Any]]:
    return {
        split: top1(candidate.answers(split), candidate.splits[split].labels)
        for split in (DECIDES, VERDICT)
    }


def _name(point: Point) -> str:
    return str(len(point.floats))


def _save(candidate: Candidate, folder: Path, name: str) -> None:
    write_bytes(folder / f"{name}.onnx", candidate.model.SerializeToString())


def _latencies(
    folder: Path, names: Sequence[str], pixels: np.ndarray, console: Console
) -> tuple[str, dict[str, float]]:
    """The backend, and the p50 in ms of each graph on it, all taking turns."""
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(
                computing_engine(folder / f"{name}.onnx", FP32 if name == FP32 else "int8")
            )
            for name in names
        }
        with console.progress("latency", EFFORT.turns * len(engines), "turns") as advance:
            timed = measure(SINGLE_STREAM, engines, pixels, (), EFFORT, advance)
        backend = engines[FP32].backend
    return backend, {
        name: round(summarize(SINGLE_STREAM, found, EFFORT)["p50"], 4)
        for name, found in timed.items()
    }
