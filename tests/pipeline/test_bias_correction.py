"""Bias correction: INT8 keeps the means of FP32, and comes closer to it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from networks import Network, answers, batches, by_hand, nodes, pixels, run, weights
from onnx import ModelProto

from pipeline import bias_correction, calibration, graph
from pipeline.bias_correction import correct_biases
from pipeline.calibration import bytes_each, channel_means
from pipeline.qdq import insert_qdq, quantized_inputs
from pipeline.surgery import backbone_of, constants


def quantize(model: ModelProto, pictures: np.ndarray, share: float = 1) -> ModelProto:
    """INT8, with `share` of the range of each tensor."""
    amax = calibration.largest_values(model, batches(pictures))
    return insert_qdq(model, {t: share * amax[t] for t in quantized_inputs(model)})


def count(_done: int) -> None:
    """Take progress that the test is not about."""


def signal_to_noise(exact: np.ndarray, rough: np.ndarray) -> float:
    """In decibels."""
    return float(10 * np.log10((exact**2).sum() / ((rough - exact) ** 2).sum()))


def test_every_channel_of_every_convolution_keeps_its_mean(small: Network) -> None:
    pictures = pixels(8)
    quantized = quantize(small.onnx, pictures, share=0.7)
    names = [node.output[0] for node in nodes(small.onnx, "Conv")]
    wanted = channel_means(small.onnx, pictures, names)

    def errors() -> list[float]:
        got = run(quantized, pictures, *names)
        return [
            float(np.abs(values.mean((0, 2, 3)) - wanted[name]).max() / np.abs(wanted[name]).max())
            for name, values in zip(names, got, strict=True)
        ]

    assert max(errors()) > 0.02, "nothing to correct proves nothing"
    told: list[int] = []
    correct_biases(quantized, small.onnx, pictures, told.append)
    assert max(errors()) < 1e-4
    assert told == [1] * len(names)
    graph.check(quantized)


def test_convolution_without_bias_gets_one() -> None:
    model = by_hand("last = Conv (x, w)", 4, {"w": weights(4, 3, 3, 3)})
    pictures = pixels(4, size=8)
    quantized = quantize(model, pictures, share=0.5)
    before = quantized.SerializeToString()
    correct_biases(quantized, model, pictures, count)
    assert quantized.SerializeToString() != before
    wanted, got = (run(m, pictures, "last")[0].mean((0, 2, 3)) for m in (model, quantized))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)


def test_convolutions_that_share_a_bias_part() -> None:
    model = by_hand(
        "a = Conv (x, w, b)  r = Relu (a)  c = Conv (x, v, b)  last = Add (r, c)",
        4,
        {"w": weights(4, 3, 1, 1), "v": weights(4, 3, 1, 1, seed=1), "b": weights(4, seed=2)},
    )
    pictures = pixels(4, size=8)
    quantized = quantize(model, pictures, share=0.5)
    correct_biases(quantized, model, pictures, count)
    assert len({node.input[2] for node in nodes(quantized, "Conv")}) == 2
    for name in ("a", "c"):
        wanted, got = (run(m, pictures, name)[0].mean((0, 2, 3)) for m in (model, quantized))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)


def test_nothing_but_biases_changes(mobile: Network) -> None:
    pictures = pixels(4)
    quantized = quantize(mobile.onnx, pictures)
    before = ModelProto()
    before.CopyFrom(quantized)
    correct_biases(quantized, mobile.onnx, pictures, count)
    old, new = constants(before), constants(quantized)
    for name, value in old.items():
        np.testing.assert_array_equal(new[name], value)
    for one, other in zip(before.graph.node, quantized.graph.node, strict=True):
        assert one.op_type == other.op_type
        assert list(one.input[:2]) == list(other.input[:2])
        assert one.attribute == other.attribute


def test_network_without_convolutions_is_left_alone() -> None:
    model = by_hand("last = Relu (x)", 3, {})
    quantized = quantize(model, pixels(4, size=8))
    before = quantized.SerializeToString()
    correct_biases(quantized, model, pixels(4, size=8), count)
    assert quantized.SerializeToString() == before


WIDE = 1024  # channels: 8 x 8 x 1024 floats are 256 KiB a picture


def wide() -> ModelProto:
    return by_hand("last = Conv (x, w)", WIDE, {"w": weights(WIDE, 3, 1, 1)})


# What ONNX Runtime allocates only the system counts. Of 512 pictures the output takes 128 MiB.
MEMORY = """
from pathlib import Path
from networks import pixels
from test_bias_correction import correct_biases, count, quantize, wide

def peak(pictures):
    correct_biases(quantize(wide(), pixels(8, size=8)), wide(), pictures, count)
    status = Path("/proc/self/status").read_text()
    return next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM"))

few = peak(pixels(8, size=8))
print((peak(pixels(512, size=8)) - few) // 1024)
"""


def test_outputs_are_in_memory_once() -> None:
    places = [Path(__file__).parent, Path(__file__).parents[2]]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 100 < int(done.stdout) < 1.5 * 128


@pytest.mark.parametrize(("budget", "used"), [(6 * (256 << 10), 6), (1, 4), (1 << 30, 12)])
def test_large_outputs_get_fewer_pictures(
    monkeypatch: pytest.MonkeyPatch, budget: int, used: int
) -> None:
    pictures = pixels(12, size=8)
    model, bounded = wide(), quantize(wide(), pictures)
    expected = ModelProto()
    expected.CopyFrom(bounded)
    correct_biases(expected, model, pictures[:used], count)
    monkeypatch.setattr(bias_correction, "MOST_BYTES", budget)
    correct_biases(bounded, model, pictures, count)
    assert bounded == expected


def test_efficientnet_gets_all_its_pictures(lite0: Network) -> None:
    outputs = [node.output[0] for node in nodes(lite0.onnx, "Conv")]
    sizes = bytes_each(lite0.onnx, pixels(1, 224)[0], outputs)
    assert max(sizes.values()) == 112 * 112 * 96 * 4
    assert bias_correction._Walk(lite0.onnx).affordable(sizes) >= 32


def test_what_a_convolution_reads_counts_too() -> None:
    model = by_hand(
        "a = Conv (x, w)  b = Conv (x, w)  c = Add (a, b)  last = Conv (c, v)",
        4, {"w": weights(4, 3, 1, 1), "v": weights(4, 4, 1, 1)},
    )  # fmt: skip
    walk = bias_correction._Walk(model)
    assert walk.affordable({"a": 1 << 20, "b": 2 << 20, "last": 5 << 20}) == 512 // 8


def test_efficientnet_comes_closer_on_other_pictures(
    trained: ModelProto,
    quantized: ModelProto,
    solar: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    learned, other = solar["train"][0][::20], solar["test"][0][::3]
    corrected = ModelProto()
    corrected.CopyFrom(quantized)
    correct_biases(corrected, trained, learned, count)
    exact, before, after = (
        answers(backbone_of(model), other) for model in (trained, quantized, corrected)
    )
    gain = signal_to_noise(exact, after) - signal_to_noise(exact, before)
    print(f"{signal_to_noise(exact, before):.1f} dB -> {signal_to_noise(exact, after):.1f} dB")
    assert gain > 5
