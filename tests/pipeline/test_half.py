"""FP16: what it rounds to, what it refuses, and that little is lost."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import Network, answers, by_hand, nodes, pixels, run, weights
from onnx import ModelProto, TensorProto, numpy_helper

from pipeline.errors import PipelineError
from pipeline.half import FP16_MAX, _narrow, check_range, to_fp16
from pipeline.surgery import constants

BODY = "last = Conv <kernel_shape = [1, 1]> (x, w)"


def network(weight: np.ndarray) -> ModelProto:
    return by_hand(BODY, 4, {"w": weight})


def test_small_networks_lose_little(small: Network) -> None:
    pictures = pixels(16)
    half = to_fp16(small.onnx)
    assert {tensor.data_type for tensor in half.graph.initializer} <= {
        TensorProto.FLOAT16, TensorProto.INT64,
    }  # fmt: skip
    difference = np.abs(run(half, pictures)[0] - run(small.onnx, pictures)[0]).max()
    assert 0 < difference < 5e-3


def test_efficientnet_decides_the_same(
    trained: ModelProto, solar: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    pictures = solar["test"][0][::4]
    difference = np.abs(answers(to_fp16(trained), pictures) - answers(trained, pictures)).max()
    assert 0 < difference < 2e-2


def test_quantized_network_is_fp16_around_its_pairs(quantized: ModelProto) -> None:
    half = to_fp16(quantized)
    assert half.opset_import[0].version == 19
    shaped = onnx.shape_inference.infer_shapes(half, strict_mode=True, data_prop=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in shaped.graph.value_info}
    convolved = [node.output[0] for node in half.graph.node if node.op_type == "Conv"]
    assert {kinds[name] for name in convolved} == {TensorProto.FLOAT16}
    # The softmax alone is wide, and what is in front of it.
    [softmax] = [node for node in half.graph.node if node.op_type == "Softmax"]
    assert kinds[softmax.input[0]] == TensorProto.FLOAT


def test_given_model_is_left_alone(mobile: Network) -> None:
    before = mobile.onnx.SerializeToString()
    to_fp16(mobile.onnx)
    assert mobile.onnx.SerializeToString() == before


@given(arrays(np.float32, 8, elements=st.floats(2.0**-40, 60000, width=32)))
def test_scales_are_rounded_up(scales: np.ndarray) -> None:
    narrow = _narrow(numpy_helper.from_array(scales, "scale"), up=True)
    assert narrow.dtype == np.float16
    assert (narrow >= scales).all()
    assert (narrow > 0).all()
    below = np.nextafter(narrow, np.float16(-np.inf))
    assert (below.astype(np.float64) < scales).all()


@given(arrays(np.float32, 8, elements=st.floats(-60000, 60000, width=32)))
def test_weights_are_rounded_to_the_nearest(values: np.ndarray) -> None:
    narrow = _narrow(numpy_helper.from_array(values, "weight"), up=False)
    np.testing.assert_array_equal(narrow, values.astype(np.float16))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2 * FP16_MAX, "beyond FP16"),
        (-2 * FP16_MAX, "beyond FP16"),
        (np.inf, "not finite"),
        (np.nan, "not finite"),
    ],
)
def test_weights_that_do_not_fit(value: float, words: str) -> None:
    weight = weights(4, 3, 1, 1)
    weight[1, 2] = value
    with pytest.raises(PipelineError, match=f"constant w .*{words}"):
        to_fp16(network(weight))


def test_largest_number_of_fp16_fits() -> None:
    weight = weights(4, 3, 1, 1)
    weight[0, 0] = FP16_MAX
    assert constants(to_fp16(network(weight)))["w"].max() == FP16_MAX


def test_softmax_inside_the_network_is_refused() -> None:
    model = by_hand("s = Softmax <axis = 1> (x) last = Conv <kernel_shape = [1, 1]> (s, w)", 4,
                    {"w": weights(4, 3, 1, 1)})  # fmt: skip
    with pytest.raises(PipelineError, match="inside the network"):
        to_fp16(model)


def test_largest_number_of_fp16_is_in_range() -> None:
    check_range({"pixels": 255.0, "logits": FP16_MAX, "probabilities": 1.0})
    with pytest.raises(PipelineError, match="tensor last reaches 422080 on .* beyond FP16's 65504"):
        check_range({"pixels": 255.0, "last": 422080.0, "logits": 1e9})


FLOATS_INSIDE = {
    "cast": "low = Less (x, edge)  kept = Cast <to = 1> (low)",
    "tensor": "kept = Constant <value = float[1] {0.5}> ()",
    "number": "kept = Constant <value_float = 0.5> ()",
    "numbers": "kept = Constant <value_floats = [0.5, 0.25, 2.0, 1.0, 3.0, 0.1, 1.5, 0.7]> ()",
    "filled": "kept = ConstantOfShape <value = float[1] {0.5}> (one)",
    "zeros": "kept = ConstantOfShape (one)",
}


@pytest.mark.parametrize("name", FLOATS_INSIDE)
def test_floats_that_nodes_make_are_fp16(name: str) -> None:
    model = by_hand(f"{FLOATS_INSIDE[name]}  last = Mul (x, kept)", 3,
                    {"edge": np.array(100, np.float32), "one": np.array([1])})  # fmt: skip
    half = to_fp16(model)
    # By the tensor and not the answer alone, which of two classes may well be the same.
    [exact] = run(model, pixels(4, 8), "kept")
    [kept] = run(half, pixels(4, 8), "kept")
    assert kept.dtype == np.float16
    np.testing.assert_array_equal(kept, exact.astype(np.float16))
    assert np.abs(run(half, pixels(4, 8))[0] - run(model, pixels(4, 8))[0]).max() < 1e-2


def test_integers_that_nodes_make_stay() -> None:
    model = by_hand("shape = Constant <value_ints = [0, 3, 8, 8]> ()  last = Reshape (x, shape)",
                    3, {})  # fmt: skip
    assert nodes(to_fp16(model), "Constant") == nodes(model, "Constant")


def test_constant_node_that_does_not_fit() -> None:
    model = by_hand("c = Constant <value_float = 1e6> ()  last = Mul (x, c)", 3, {})
    with pytest.raises(PipelineError, match=r"constant c reaches 1e\+06, beyond FP16"):
        to_fp16(model)


def test_scales_of_a_resize_stay_fp32() -> None:
    model = by_hand(
        "scales = Cast <to = 1> (whole)  last = Resize <mode = \"nearest\"> (x, , scales)",
        3, {"whole": np.array([1, 1, 2, 2])})  # fmt: skip
    assert np.abs(run(to_fp16(model), pixels(4, 8))[0] - run(model, pixels(4, 8))[0]).max() < 1e-2
