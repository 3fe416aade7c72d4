"""How large the numbers in a network get, measured on pictures."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, shape_inference

from engines.engine import processors
from pipeline.dataset import in_threads
from pipeline.errors import PipelineError

METHODS = ("max", "entropy", "percentile")
BINS = 2048
PERCENTILE = 99.99
LEVELS = 128  # of |x| that INT8 has
STRIDE = 16  # bins between the thresholds that the entropy method tries

Batches = Callable[[], Iterator[np.ndarray]]  # begins anew each time it is called


def float_tensors(model: ModelProto) -> list[str]:
    """Every float32 tensor that depends on the input, the input first."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.value_info, *inferred.output)
    }
    made = [name for node in model.graph.node for name in node.output]
    return [model.graph.input[0].name] + [n for n in made if kinds.get(n) == TensorProto.FLOAT]


def largest_values(model: ModelProto, batches: Batches) -> dict[str, float]:
    """The largest absolute value of every float tensor over all pictures.

    Raises:
        PipelineError: a tensor holds something that is no number.
    """
    tensors = float_tensors(model)
    amax: np.ndarray = np.zeros(len(tensors))
    for found in _measure(model, tensors, batches, lambda _, values: _largest(values)):
        amax = np.maximum(amax, found)
    for tensor, value in zip(tensors, amax, strict=True):
        if not np.isfinite(value):
            raise PipelineError(f"tensor {tensor} holds {value} on calibration pictures")
    return dict(zip(tensors, amax.tolist(), strict=True))


def channel_means(
    model: ModelProto, pixels: np.ndarray, tensors: list[str]
) -> dict[str, np.ndarray]:
    """The mean of each channel of some tensors (N, channels, height, width): (channels,)."""
    totals = None
    for means in _measure(
        model, tensors, lambda: iter([pixels]), lambda _, values: values.mean((0, 2, 3), np.float64)
    ):
        totals = means if totals is None else [a + b for a, b in zip(totals, means, strict=True)]
    return {t: total / len(pixels) for t, total in zip(tensors, totals or [], strict=True)}


def sums(model: ModelProto, batches: Batches, tensors: list[str]) -> dict[str, float]:
    """The sum of some tensors' values over all pictures."""
    totals: np.ndarray = np.zeros(len(tensors))
    for found in _measure(
        model, tensors, batches, lambda _, values: float(values.sum(dtype=np.float64))
    ):
        totals += found
    return dict(zip(tensors, totals.tolist(), strict=True))


def bytes_each(model: ModelProto, picture: np.ndarray, tensors: list[str]) -> dict[str, int]:
    """How many bytes each of some tensors takes for one picture (height, width, 3)."""
    [sizes] = _measure(
        model, tensors, lambda: iter([picture[np.newaxis]]), lambda _, values: values.nbytes
    )
    return dict(zip(tensors, sizes, strict=True))


def thresholds(
    model: ModelProto, batches: Batches, amax: dict[str, float], tensors: list[str], method: str
) -> dict[str, float]:
    """The largest absolute value that each tensor's INT8 shall represent.

    Args:
        amax: from `largest_values`.
        tensors: which are to be quantized.
        method: "max": amax itself. "percentile": what 99.99 % of the values don't exceed.
            "entropy": the clipping that loses least information, as TensorRT's
            EntropyCalibrator2 does (S. Migacz, "8-bit inference with TensorRT", GTC 2017).
    """
    if method == "max" or not tensors:
        return {tensor: amax[tensor] for tensor in tensors}
    choose = {"percentile": _percentile, "entropy": _least_divergence}[method]
    histograms = _histograms(model, batches, amax, tensors)
    return {tensor: choose(histograms[tensor], amax[tensor]) for tensor in tensors}


def _largest(values: np.ndarray) -> float:
    # Half the memory traffic of np.abs(values).max(), and NaN comes through as well.
    return float(np.maximum(values.max(), -values.min()))


def _histograms(
    model: ModelProto, batches: Batches, amax: dict[str, float], tensors: list[str]
) -> dict[str, np.ndarray]:
    """For each tensor, how many |x| fall into each of `BINS` equal parts of 0..amax."""
    import cv2

    def count(tensor: str, values: np.ndarray) -> np.ndarray:
        if not amax[tensor]:
            return np.zeros(BINS)
        scaled = np.abs(values.reshape(1, -1))
        scaled *= np.float32(BINS / amax[tensor])
        bins = np.minimum(scaled.astype(np.uint16), BINS - 1)
        # OpenCV counts one row of 16-bit integers at half the cost of np.bincount.
        return cv2.calcHist([bins], [0], None, [BINS], [0, BINS]).ravel()

    totals = np.zeros((len(tensors), BINS))
    for counts in _measure(model, tensors, batches, count):
        totals += counts
    return dict(zip(tensors, totals, strict=True))


def _percentile(counts: np.ndarray, amax: float) -> float:
    shares = np.cumsum(counts) / max(counts.sum(), 1)
    return float((np.searchsorted(shares, PERCENTILE / 100) + 1) / BINS * amax)


def _least_divergence(counts: np.ndarray, amax: float) -> float:
    """Threshold whose 128 levels are closest, by Kullback and Leibler, to what they stand for."""
    counts = counts.astype(np.float64)
    counts[0] = counts[1]  # zeros are exact at any scale and would drown the rest
    best, threshold = np.inf, amax
    for bins in range(LEVELS, BINS + 1, STRIDE):
        reference = counts[:bins].copy()
        reference[-1] += counts[bins:].sum()
        level = np.arange(bins) * LEVELS // bins
        filled = counts[:bins] > 0
        totals = np.bincount(level, counts[:bins], LEVELS)
        members = np.bincount(level, filled, LEVELS)
        spread = np.divide(totals, members, out=np.zeros(LEVELS), where=members > 0)
        approximation = np.where(filled, spread[level], 0.0)
        divergence = _divergence(reference, approximation)
        if divergence < best:
            best, threshold = divergence, bins / BINS * amax
    return float(threshold)


def _divergence(reference: np.ndarray, approximation: np.ndarray) -> float:
    if not reference.sum() or not approximation.sum():
        return np.inf
    p, q = reference / reference.sum(), approximation / approximation.sum()
    filled = p > 0
    # Where the approximation has nothing for something, the smallest share stands for it.
    return float(np.sum(p[filled] * np.log(p[filled] / np.maximum(q[filled], 1e-12))))


def _measure(
    model: ModelProto,
    tensors: list[str],
    batches: Batches,
    measure: Callable[[str, np.ndarray], Any],
) -> Iterator[list[Any]]:
    """What `measure` makes of each tensor's name and values, picture by picture.

    One thread works on one picture: while some compute layers, others measure, and what a layer
    made is still in the cache when it is measured. It took half the time of batches, and no more
    than OpenVINO with the maxima computed inside the graph.
    """
    source = model.graph.input[0].name
    inside = [tensor for tensor in tensors if tensor != source]
    compute = _computer(model, inside) if inside else None  # no graph is without outputs

    def work(picture: np.ndarray) -> list[Any]:
        pixels = picture[np.newaxis].astype(np.float32)
        found = compute(pixels) if compute else []
        values = {source: pixels, **dict(zip(inside, found, strict=True))}
        return [measure(tensor, values[tensor]) for tensor in tensors]

    pictures = (picture for batch in batches() for picture in batch)
    return in_threads(work, pictures, ahead=2 * processors())


def _computer(
    model: ModelProto, tensors: list[str]
) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
    """A function from pixels to the values of some tensors, on one thread."""
    import onnxruntime

    watched = ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(tensor) for tensor in tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    source = model.graph.input[0].name
    return lambda pixels: session.run(tensors, {source: pixels})
