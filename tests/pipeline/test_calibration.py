"""What calibration measures, against the same measured all at once."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import Network, batches, by_hand, pixels, run, weights

from pipeline import calibration
from pipeline.calibration import (
    BINS,
    LEVELS,
    METHODS,
    bytes_each,
    channel_means,
    float_tensors,
    largest_values,
    thresholds,
)
from pipeline.errors import PipelineError

PICTURES = pixels(12)


@pytest.fixture(scope="module")
def amax(mobile: Network) -> dict[str, float]:
    return largest_values(mobile.onnx, batches(PICTURES, 5))


def test_largest_values_are_those_of_all_pictures(mobile: Network, amax: dict) -> None:
    tensors = float_tensors(mobile.onnx)
    assert tensors[0] == "pixels"
    assert list(amax) == tensors
    assert amax["pixels"] == PICTURES.max()
    for tensor, values in zip(tensors[1:], run(mobile.onnx, PICTURES, *tensors[1:]), strict=True):
        assert amax[tensor] == pytest.approx(np.abs(values).max(), rel=1e-5), tensor


def test_batches_do_not_matter(mobile: Network, amax: dict) -> None:
    assert largest_values(mobile.onnx, batches(PICTURES, 1)) == amax
    assert largest_values(mobile.onnx, batches(PICTURES[::-1], 12)) == amax


def test_percentile_leaves_out_what_it_says(mobile: Network, amax: dict) -> None:
    tensors = float_tensors(mobile.onnx)
    found = thresholds(mobile.onnx, batches(PICTURES), amax, tensors, "percentile")
    for tensor, values in zip(tensors[1:], run(mobile.onnx, PICTURES, *tensors[1:]), strict=True):
        exact = np.percentile(np.abs(values), calibration.PERCENTILE, method="inverted_cdf")
        assert exact - 1e-5 <= found[tensor] <= exact + 2.1 * amax[tensor] / BINS, tensor


@pytest.mark.parametrize("method", METHODS)
def test_thresholds_do_not_exceed_the_largest(mobile: Network, amax: dict, method: str) -> None:
    tensors = float_tensors(mobile.onnx)
    found = thresholds(mobile.onnx, batches(PICTURES), amax, tensors, method)
    assert list(found) == tensors
    for tensor in tensors:
        assert 0 < found[tensor] <= amax[tensor] * (1 + 1e-9)


def test_channel_means(mobile: Network) -> None:
    tensors = [t for t in float_tensors(mobile.onnx) if "Relu6" in t]
    found = channel_means(mobile.onnx, PICTURES, tensors)
    for tensor, values in zip(tensors, run(mobile.onnx, PICTURES, *tensors), strict=True):
        np.testing.assert_allclose(found[tensor], values.mean((0, 2, 3)), atol=1e-5)


def test_bytes_of_one_picture(mobile: Network) -> None:
    tensors = [t for t in float_tensors(mobile.onnx) if "Relu6" in t]
    sizes = [values[0].nbytes for values in run(mobile.onnx, PICTURES, *tensors)]
    assert list(bytes_each(mobile.onnx, PICTURES[0], tensors).values()) == sizes
    assert bytes_each(mobile.onnx, PICTURES[0], []) == {}


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_measure_inside(mobile: Network, amax: dict, method: str) -> None:
    """No layer is quantized, or one alone that reads the pixels themselves."""
    assert thresholds(mobile.onnx, batches(PICTURES), amax, [], method) == {}
    found = thresholds(mobile.onnx, batches(PICTURES), amax, ["pixels"], method)
    assert 0 < found["pixels"] <= amax["pixels"]


def test_number_that_is_none_is_named() -> None:
    model = by_hand("r = Sqrt (x) last = Conv <kernel_shape = [1, 1]> (r, w)", 4,
                    {"w": -weights(4, 3, 1, 1)})  # fmt: skip
    # The square root of what a first convolution made negative.
    model.graph.node[1].op_type = "Log"
    with pytest.raises(PipelineError, match="tensor r holds"):
        largest_values(model, lambda: iter([np.zeros((1, 8, 8, 3), np.uint8)]))


def test_memory_does_not_grow_with_the_pictures(mobile: Network, amax: dict) -> None:
    def peak(count: int) -> int:
        def stream() -> Iterator[np.ndarray]:
            return (pixels(8, seed=n) for n in range(count))

        tracemalloc.start()
        thresholds(mobile.onnx, stream, amax, float_tensors(mobile.onnx), "percentile")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(40) < 1.5 * peak(10)


# The entropy method on histograms


def test_lone_outlier_is_clipped() -> None:
    values = np.abs(np.random.default_rng(0).normal(0, 1, 200_000))
    counts = np.histogram(values, BINS, (0, 40))[0]
    counts[-1] = 1
    assert 2 < calibration._least_divergence(counts, 40.0) < 8


def test_values_without_a_tail_are_not_clipped() -> None:
    assert calibration._least_divergence(np.full(BINS, 1000), 6.0) > 5.9


@given(arrays(np.int64, BINS, elements=st.integers(0, 1000), fill=st.just(0)))
def test_threshold_is_always_one_that_can_be(counts: np.ndarray) -> None:
    found = calibration._least_divergence(counts.astype(float), 2.0)
    assert 2.0 * LEVELS / BINS <= found <= 2.0
    assert 0 <= calibration._percentile(counts, 2.0) <= 2.0 + 2.0 / BINS


def test_tensor_that_is_always_zero() -> None:
    zeros = np.zeros(BINS)
    assert calibration._least_divergence(zeros, 0.0) == 0
    assert calibration._percentile(zeros, 0.0) == 0
