"""Alterations of ONNX graphs: what may be folded is folded, the rest is left alone."""

import math

import numpy as np
import pytest
from networks import Network, by_hand, nodes, pixels, run, weights
from onnx import ModelProto, helper

from pipeline import graph
from pipeline.errors import PipelineError
from pipeline.last_layer import LastLayer
from pipeline.surgery import (
    backbone_of,
    constants,
    drop_unused,
    find_last_layer,
    fold_batch_norm,
    fold_pad,
    rename,
    replace_erfc,
    set_constant,
    set_last_layer,
)

W, B = weights(4, 3, 3, 3), weights(4, seed=1)
SCALE, SHIFT = weights(1, 4, 1, 1, seed=2), weights(4, 1, 1, seed=3)
PICTURES = pixels(3, size=8)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    result: np.ndarray = powers / powers.sum(1, keepdims=True)
    return result


def assert_same(model: ModelProto, wanted: np.ndarray) -> None:
    graph.check(model)
    np.testing.assert_allclose(run(model, PICTURES, "last")[0], wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x, w)  s = Mul (c, scale)  last = Add (s, shift)",
        "c = Conv (x, w, b)  s = Mul (scale, c)  last = Add (shift, s)",
        "c = Conv (x, w, b)  s = Add (c, shift)  last = Mul (s, scale)",
        "c = Conv (x, w)  s = Mul (c, two)  last = Add (s, one)",
        "c = Conv <group = 3> (x, d)  s = Mul (c, scale3)  last = Add (s, shift3)",
        "c = Conv (x, w, b)  s = Mul (c, scale)  t = Add (s, shift)  last = Relu (t)",
    ],
)
def test_scale_and_shift_become_part_of_the_convolution(body: str) -> None:
    named = {
        "w": W,
        "b": B,
        "d": weights(3, 1, 3, 3),
        "scale": SCALE,
        "shift": SHIFT,
        "scale3": SCALE[:, :3],
        "shift3": SHIFT[:3],
        "two": np.array(2, np.float32),
        "one": np.ones((1, 1, 1, 1), np.float32),
    }
    model = by_hand(
        body, 3 if "group" in body else 4, {k: v for k, v in named.items() if k in body}
    )
    wanted = run(model, PICTURES, "last")[0]
    fold_batch_norm(model)
    drop_unused(model)
    assert not nodes(model, "Mul")
    assert not nodes(model, "Add")
    assert len(nodes(model, "Conv")[0].input) == 3
    assert_same(model, wanted)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        # The convolution's own result is needed too.
        ("c = Conv (x, w)  s = Mul (c, scale)  last = Add (s, c)", ["Mul", "Add"]),
        ("c = Conv (x, w)  last = Mul (c, c)", ["Mul"]),
        # Along the width, not along the channels.
        ("c = Conv <pads = [0, 0, 0, 0]> (x, v)  last = Mul (c, row)", ["Mul"]),
        # Two different results of one.
        ("c = Conv (x, w)  last = Mul (c, pair)", ["Mul"]),
        # Not constant.
        ("c = Conv (x, w)  m = ReduceMean <axes = [1, 2, 3]> (x)  last = Mul (c, m)", ["Mul"]),
    ],
)
def test_other_arithmetic_stays(body: str, left: list[str]) -> None:
    named = {
        "w": W,
        "v": weights(8, 3, 1, 1),
        "scale": SCALE,
        "row": weights(8),
        "pair": weights(3, 4, 1, 1),
    }
    used = {k: v for k, v in named.items() if f"{k})" in body}
    model = by_hand(body, 8 if "row" in body else 4, used)
    wanted = run(model, PICTURES, "last")[0]
    fold_batch_norm(model)
    assert [n.op_type for n in model.graph.node if n.op_type in ("Mul", "Add")] == left
    assert_same(model, wanted)


def test_result_that_leaves_the_graph_is_kept() -> None:
    model = by_hand("c = Conv (x, w)  last = Mul (c, scale)", 4, {"w": W, "scale": SCALE})
    model.graph.output.append(helper.make_tensor_value_info("c", 1, ["batch", 4, 6, 6]))
    wanted = run(model, PICTURES, "c")[0]
    fold_batch_norm(model)
    np.testing.assert_array_equal(run(model, PICTURES, "c")[0], wanted)
    assert len(nodes(model, "Mul")) == 1


def test_convolutions_that_share_weights_part() -> None:
    model = by_hand(
        "a = Conv (x, w)  s = Mul (a, scale)  b = Conv (x, w)  t = Add (b, shift)  "
        "last = Sub (s, t)",
        4,
        {"w": W, "scale": SCALE, "shift": SHIFT},
    )
    wanted = run(model, PICTURES, "last")[0]
    fold_batch_norm(model)
    drop_unused(model)
    assert "w" not in constants(model)
    assert_same(model, wanted)


ZERO = np.array(0, np.float32)
AMOUNTS = np.array([0, 0, 1, 2, 0, 0, 3, 0])


@pytest.mark.parametrize(
    ("body", "pads"),
    [
        ("p = Pad (x, amounts)  last = Conv (p, w)", [1, 2, 3, 0]),
        ("p = Pad (x, amounts, zero)  last = Conv <pads = [1, 0, 1, 0]> (p, w)", [2, 2, 4, 0]),
        (
            "p = Pad (x, amounts, zero)  a = Conv (p, w)  b = Conv (p, w)  last = Sub (a, b)",
            [1, 2, 3, 0],
        ),
    ],
)
def test_padding_becomes_part_of_the_convolution(body: str, pads: list[int]) -> None:
    model = by_hand(body, 4, {"w": W, "amounts": AMOUNTS, "zero": ZERO})
    wanted = run(model, PICTURES, "last")[0]
    fold_pad(model)
    drop_unused(model)
    assert not nodes(model, "Pad")
    for conv in nodes(model, "Conv"):
        assert [list(a.ints) for a in conv.attribute if a.name == "pads"] == [pads]
    assert_same(model, wanted)


@pytest.mark.parametrize(
    ("pad", "amounts"),
    [
        ("p = Pad (x, amounts, one)", AMOUNTS),
        ("f = ReduceMax <keepdims = 0> (x)  p = Pad (x, amounts, f)", AMOUNTS),
        ('p = Pad <mode = "edge"> (x, amounts)', AMOUNTS),
        ('p = Pad <mode = "reflect"> (x, amounts)', AMOUNTS),
        ("p = Pad (x, amounts)", np.array([1, 0, 1, 1, 0, 0, 1, 1])),
        ("p = Pad (x, amounts)", np.array([0, 0, 1, 1, 0, 0, -1, -1])),
        ("p = Pad (x, amounts)  r = Relu (p)", AMOUNTS),
        ("p = Pad (x, amounts)  q = Conv <auto_pad = 'SAME_UPPER'> (p, w)", AMOUNTS),
    ],
)
def test_other_padding_stays(pad: str, amounts: np.ndarray) -> None:
    body = pad.replace("'", '"') + "  last = Conv (p, w)"
    one = np.array(1, np.float32)
    model = by_hand(body, 4, {"w": W, "amounts": amounts, "one": one})
    wanted = run(model, PICTURES, "last")[0]
    fold_pad(model)
    assert len(nodes(model, "Pad")) == 1
    assert_same(model, wanted)


def test_padding_that_leaves_the_graph_is_kept() -> None:
    model = by_hand("p = Pad (x, amounts)  last = Conv (p, w)", 4, {"w": W, "amounts": AMOUNTS})
    model.graph.output.append(helper.make_tensor_value_info("p", 1, ["batch", 3, 12, 10]))
    fold_pad(model)
    assert run(model, PICTURES, "p")[0].shape == (3, 3, 12, 10)


def test_erfc_becomes_erf() -> None:
    model = by_hand("e = Relu (x)  last = Relu (e)", 3, {})
    first, second = nodes(model, "Relu")
    first.op_type = second.op_type = "Erfc"
    model.graph.node[-1].name = "unchanged"
    replace_erfc(model)
    assert [n.op_type for n in model.graph.node][1:5] == ["Erf", "Sub", "Erf", "Sub"]
    assert model.graph.node[-1].name == "unchanged"
    graph.check(model)
    pictures = pixels(3, size=8) / 100.0 - 1
    x, e, last = run(model, pictures, "x", "e", "last")
    erfc = np.vectorize(math.erfc)
    np.testing.assert_allclose(e, erfc(x), rtol=0, atol=1e-6)
    np.testing.assert_allclose(last, erfc(e), rtol=0, atol=1e-6)


def test_graph_without_erfc_stays() -> None:
    model = by_hand("last = Erf (x)", 3, {})
    before = model.SerializeToString()
    replace_erfc(model)
    assert model.SerializeToString() == before


def test_last_layer_comes_back_as_it_was_put_in(small: Network) -> None:
    model = ModelProto()
    model.CopyFrom(small.onnx)
    names = find_last_layer(model)
    width, classes = constants(model)[names.kernel].shape
    layer = LastLayer(weights(width, classes, seed=5), weights(classes, seed=6))
    set_last_layer(model, layer)
    graph.check(model)

    values = constants(model)
    assert names.bias is not None
    np.testing.assert_array_equal(values[names.kernel], layer.kernel)
    np.testing.assert_array_equal(values[names.bias], layer.bias)
    backbone = backbone_of(model)
    graph.check(backbone)
    assert (backbone.ir_version, backbone.opset_import[0].version) == (7, 13)
    result = backbone.graph.output[0].type.tensor_type.shape
    assert [d.dim_param or d.dim_value for d in result.dim] == ["batch", width]
    pictures = pixels(4)
    bottlenecks = run(backbone, pictures)[0]
    np.testing.assert_allclose(
        run(model, pictures)[0],
        softmax(bottlenecks @ layer.kernel + layer.bias),
        rtol=0,
        atol=1e-5,
    )
    np.testing.assert_array_equal(run(backbone_of(small.onnx), pictures)[0], bottlenecks)


def test_bias_is_added_where_there_was_none() -> None:
    model = by_hand("last = Conv (x, w)", 4, {"w": W})
    # Something may be computed after the softmax, which then is not the last node.
    model.graph.node.append(helper.make_node("Identity", ["last"], ["copy"], name="copy"))
    assert find_last_layer(model).bias is None
    layer = LastLayer(weights(4, 2, seed=5), weights(2, seed=6) + 3)
    set_last_layer(model, layer)
    graph.check(model)
    assert find_last_layer(model).bias is not None
    bottlenecks = run(model, PICTURES, "bottlenecks")[0]
    np.testing.assert_allclose(
        run(model, PICTURES)[0], softmax(bottlenecks @ layer.kernel + layer.bias), atol=1e-6
    )
    again = LastLayer(layer.kernel, layer.bias - 5)
    set_last_layer(model, again)
    assert len(nodes(model, "Add")) == 1


def test_network_without_a_last_layer_is_refused(mobile: Network) -> None:
    with pytest.raises(PipelineError, match="last layer and a softmax"):
        find_last_layer(backbone_of(mobile.onnx))
    bare = by_hand("last = Conv (x, w)", 4, {"w": W})
    rename(bare, "probabilities", "unused")
    rename(bare, "logits", "probabilities")
    bare.graph.output[0].name = "probabilities"
    with pytest.raises(PipelineError, match="last layer and a softmax"):
        find_last_layer(bare)


def test_set_constant_replaces_or_adds() -> None:
    model = by_hand("last = Conv (x, w)", 4, {"w": W})
    set_constant(model, "w", W * 2)
    set_constant(model, "new", np.arange(3))
    assert [tensor.name for tensor in model.graph.initializer].count("w") == 1
    np.testing.assert_array_equal(constants(model)["w"], W * 2)
    np.testing.assert_array_equal(constants(model)["new"], np.arange(3))
