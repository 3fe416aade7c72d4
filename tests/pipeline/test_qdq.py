"""Q/DQ exactly where TensorRT wants it, and nowhere else."""

from collections.abc import Collection

import numpy as np
import pytest
from networks import (
    Network,
    answers,
    batches,
    by_hand,
    makers,
    nodes,
    pixels,
    run,
    weights,
)
from onnx import ModelProto, NodeProto

from pipeline import calibration, graph
from pipeline.qdq import insert_qdq, quantizable_inputs, quantized_inputs, quantized_layers
from pipeline.surgery import constants, consumers, find_last_layer

FUSED = ("Clip", "Relu", "Add")  # what TensorRT computes together with the convolution before it


def quantize(model: ModelProto, floats: Collection[str] = ()) -> ModelProto:
    """With the same range for every tensor: only the places matter."""
    return insert_qdq(model, dict.fromkeys(quantizable_inputs(model), 4.0), floats)


def assert_rules(model: ModelProto, floats: Collection[str] = ()) -> None:
    """Walk a quantized graph, and hold every rule of explicit quantization against it."""
    made_by, fixed, readers = makers(model), constants(model), consumers(model)

    def from_pair(name: str) -> bool:
        return name in made_by and made_by[name].op_type == "DequantizeLinear"

    for kind in ("QuantizeLinear", "DequantizeLinear"):
        for node in nodes(model, kind):
            assert len(node.input) == 3, "TensorRT 8 demands a zero point"
            scale, zero = (fixed[name] for name in node.input[1:])
            assert scale.dtype == np.float32
            assert (scale > 0).all()
            assert zero.dtype == np.int8
            assert not zero.any()
            assert scale.shape == zero.shape
    for quantizer in nodes(model, "QuantizeLinear"):
        (reader,) = readers[quantizer.output[0]]
        assert reader.op_type == "DequantizeLinear"
        assert list(reader.input[1:]) == list(quantizer.input[1:])
        assert reader.attribute == quantizer.attribute
        is_weight = quantizer.input[0] in fixed
        assert is_weight == bool(quantizer.attribute)
        assert is_weight == (fixed[quantizer.input[1]].ndim == 1), "activations: per tensor"

    last = find_last_layer(model)
    layers = [node for kind in ("Conv", "MatMul", "Gemm") for node in nodes(model, kind)]
    quantized = [
        node for node in layers if node.input[1] != last.kernel and node.output[0] not in floats
    ]
    for node in layers:
        assert node in quantized or not any(map(from_pair, node.input))
    for node in quantized:
        assert from_pair(node.input[0]), f"{node.name} reads a float activation"
        assert from_pair(node.input[1]), f"{node.name} has float weights"
        weight = fixed[made_by[made_by[node.input[1]].input[0]].input[0]]
        axis = 0 if node.op_type == "Conv" else 1
        assert made_by[node.input[1]].attribute[0].i == axis
        assert fixed[made_by[node.input[1]].input[1]].shape == (weight.shape[axis],)
        if len(node.input) > 2:
            assert fixed[node.input[2]].dtype == np.float32
        # Nothing between a layer and what is fused with it.
        for reader in readers[node.output[0]]:
            if reader.op_type == "QuantizeLinear":
                after = readers[readers[reader.output[0]][0].output[0]]
                assert not {n.op_type for n in after} & {"Clip", "Relu"}

    for add in nodes(model, "Add"):
        if any(name in fixed for name in add.input):
            assert not any(map(from_pair, add.input))
            continue
        fused = [
            name
            for name in add.input
            if made_by[name].op_type == "Conv"
            and made_by[name] in quantized
            and len(readers[name]) == 1
        ]
        assert sum(map(from_pair, add.input)) == bool(fused), "one shortcut, quantized"
        assert not fused or not from_pair(fused[0])
    for pool in nodes(model, "AveragePool"):
        direct = readers[pool.output[0]]
        pairs = [node for node in direct if node.op_type == "QuantizeLinear"]
        assert from_pair(pool.input[0]) == (direct == pairs)
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm", "Add", "AveragePool"):
            assert not any(map(from_pair, node.input)), f"{node.op_type} reads a dequantized tensor"
    assert not any(map(from_pair, [last.bottlenecks, last.kernel]))


def count(model: ModelProto) -> tuple[int, int]:
    """Pairs of activations, and of weights."""
    fixed = constants(model)
    of_weights = [node.input[0] in fixed for node in nodes(model, "QuantizeLinear")]
    return len(of_weights) - sum(of_weights), sum(of_weights)


def test_small_networks_follow_the_rules(small: Network) -> None:
    before = small.onnx.SerializeToString()
    quantized = quantize(small.onnx)
    assert_rules(quantized)
    assert small.onnx.SerializeToString() == before
    graph.check(quantized)
    assert (quantized.ir_version, quantized.opset_import[0].version) == (7, 13)
    names = [node.name for node in quantized.graph.node]
    assert len(set(names)) == len(names)


def test_rules_hold_whichever_layer_is_in_float(small: Network) -> None:
    layers = [node.output[0] for node in quantized_layers(small.onnx)]
    whole = count(quantize(small.onnx))
    for layer in layers:
        quantized = quantize(small.onnx, [layer])
        assert_rules(quantized, [layer])
        assert count(quantized)[1] == whole[1] - 1
    assert_rules(quantize(small.onnx, layers[::2]), layers[::2])
    assert quantize(small.onnx, layers) == small.onnx


def test_shortcut_changes_with_the_layer_in_float() -> None:
    model = by_hand(
        "a = Conv (x, w)  b = Conv (x, v)  last = Add (a, b)",
        4, {"w": weights(4, 3, 1, 1), "v": weights(4, 3, 1, 1, seed=1)},
    )  # fmt: skip
    assert list(quantized_inputs(model)) == ["x", "a"]
    assert list(quantized_inputs(model, ["a"])) == ["x", "a"]
    assert list(quantized_inputs(model, ["b"])) == ["x", "b"]
    assert list(quantized_inputs(model, ["a", "b"])) == []
    assert quantizable_inputs(model) == ["x", "a", "b"]


def test_layers_in_float_that_share_weights_or_input() -> None:
    model = by_hand(
        "a = Conv (x, w)  b = Conv (x, w)  last = Concat <axis = 1> (a, b)",
        8, {"w": weights(4, 3, 1, 1)},
    )  # fmt: skip
    quantized = quantize(model, ["a"])
    assert_rules(quantized, ["a"])
    assert count(quantized) == (1, 1)
    first, second = nodes(quantized, "Conv")
    assert list(first.input) == ["x", "w"]
    assert list(second.input) == ["x/dequantized", "w/dequantized"]


def test_pairs_are_counted(
    mobile: Network, residual: Network, inception: Network, lite0: Network
) -> None:
    # One pair for each tensor that a convolution reads, however many read it. In `mobile` and
    # `lite0` the shortcuts are such tensors too; in `residual` the output of the convolution in
    # each of the two shortcuts that has one comes on top; in `inception` what the two average
    # pools read is read by convolutions as well, and what they give comes on top.
    assert count(quantize(mobile.onnx)) == (12, 12)
    assert count(quantize(residual.onnx)) == (9, 9)
    assert count(quantize(inception.onnx)) == (10, 12)
    assert count(quantize(lite0.onnx)) == (49, 49)


def test_efficientnet_follows_the_rules(quantized: ModelProto) -> None:
    assert_rules(quantized)
    residuals = [
        add
        for add in nodes(quantized, "Add")
        if any(name.endswith("/dequantized") for name in add.input)
    ]
    assert len(residuals) == 9


def test_quantized_efficientnet_is_nearly_as_good(
    trained: ModelProto,
    quantized: ModelProto,
    solar: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    pictures, labels = solar["test"]
    exact, rough = answers(trained, pictures), answers(quantized, pictures)
    accuracy = (exact.argmax(1) == labels).mean(), (rough.argmax(1) == labels).mean()
    agreement = (exact.argmax(1) == rough.argmax(1)).mean()
    print(f"accuracy {accuracy[0]:.1%} -> {accuracy[1]:.1%}, agreement {agreement:.1%}")
    assert accuracy[0] > 0.7, "a last layer that knows nothing proves nothing"
    assert accuracy[1] > accuracy[0] - 0.08
    assert agreement > 0.85


def test_small_networks_stay_close(small: Network) -> None:
    pictures = pixels(24)
    amax = calibration.largest_values(small.onnx, batches(pictures))
    quantized = insert_qdq(small.onnx, {t: amax[t] for t in quantized_inputs(small.onnx)})
    difference = np.abs(run(quantized, pictures)[0] - run(small.onnx, pictures)[0]).max()
    assert 0 < difference < 0.1


def test_weights_lose_half_a_step_at_most(mobile: Network) -> None:
    quantized = quantize(mobile.onnx)
    made_by, fixed = makers(quantized), constants(quantized)
    for conv in nodes(quantized, "Conv"):
        pair = made_by[made_by[conv.input[1]].input[0]]
        weight, scale = fixed[pair.input[0]], fixed[pair.input[1]].reshape(-1, 1, 1, 1)
        steps = weight / scale
        assert np.abs(steps).max() < 127.5
        np.testing.assert_allclose(np.abs(steps).max(axis=(1, 2, 3)), 127, rtol=1e-5)
        got = run(quantized, pixels(1), conv.input[1])[0]
        assert (np.abs(got - weight) <= scale * 0.5001).all()


def places(body: str, channels: int, **constant: np.ndarray) -> tuple[ModelProto, set[str]]:
    """The quantized network, and which tensors of the "Add" called `sum` come from a pair."""
    quantized = quantize(by_hand(body, channels, constant))
    assert_rules(quantized)
    sums = [n for n in nodes(quantized, "Add") if n.output[0] == "sum"]
    found = {name.removesuffix("/dequantized") for add in sums for name in add.input if "/" in name}
    return quantized, found


W, V = weights(3, 3, 1, 1), weights(3, 3, 1, 1, seed=1)


def test_of_two_convolutions_the_later_fuses() -> None:
    _, found = places(
        "a = Conv (x, w)  b = Conv (x, v)  sum = Add (b, a)  last = Relu (sum)", 3, w=W, v=V
    )
    assert found == {"a"}
    _, found = places(
        "b = Conv (x, v)  a = Conv (x, w)  sum = Add (b, a)  last = Relu (sum)", 3, w=W, v=V
    )
    assert found == {"b"}


def test_convolution_read_elsewhere_does_not_fuse() -> None:
    quantized, found = places(
        "a = Conv (x, w)  b = Conv (x, v)  r = Relu (b)  sum = Add (a, b)  last = Mul (r, sum)",
        3,
        w=W,
        v=V,
    )
    assert found == {"b"}
    assert nodes(quantized, "Relu")[0].input[0] == "b"


def test_shortcut_may_be_the_input_itself() -> None:
    model = by_hand("a = Conv (x, w)  sum = Add (a, x)  last = Relu (sum)", 3, {"w": W})
    # The pixels themselves, channels first.
    model.graph.node.remove(model.graph.node[0])
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == "x":
                node.input[place] = "pixels"
    for dim, size in zip(
        model.graph.input[0].type.tensor_type.shape.dim[1:], (3, 8, 8), strict=True
    ):
        dim.dim_value = size
    quantized = quantize(model)
    assert_rules(quantized)
    assert count(quantized) == (1, 1)


def test_sum_with_a_constant_is_no_residual() -> None:
    quantized, found = places(
        "a = Conv (x, w)  sum = Add (a, c)  last = Relu (sum)", 3, w=W, c=weights(1, 3, 8, 8)
    )
    assert found == set()
    assert count(quantized) == (1, 1)


def test_sums_without_a_convolution_stay_float() -> None:
    for body in (
        "a = Conv (x, w)  r = Relu (a)  last = Add (r, x)",
        "a = Conv (x, w)  last = Add (a, a)",
    ):
        quantized = quantize(by_hand(body, 3, {"w": W}))
        assert count(quantized) == (1, 1)
        (add,) = nodes(quantized, "Add")
        assert not any(name.endswith("dequantized") for name in add.input)


def test_shared_weights_get_one_pair() -> None:
    quantized, _ = places("a = Conv (x, w)  r = Relu (a)  last = Conv (r, w)", 3, w=W)
    assert count(quantized) == (2, 1)
    first, second = nodes(quantized, "Conv")
    assert first.input[1] == second.input[1] == "w/dequantized"


def test_tensor_read_by_several_gets_one_pair() -> None:
    quantized, _ = places(
        "a = Conv (x, w)  r = Relu (a)  b = Conv (r, v)  s = Sigmoid (b)"
        "  c = Conv (r, w)  t = Sigmoid (r)  p = Mul (s, c)  last = Mul (p, t)",
        3,
        w=W,
        v=V,
    )
    assert count(quantized) == (2, 2)
    assert [n.input[0] for n in nodes(quantized, "Conv")[1:]] == ["r/dequantized"] * 2
    assert nodes(quantized, "Sigmoid")[1].input[0] == "r", "float where nothing is gained"


def test_average_pool_is_quantized_only_between_layers() -> None:
    pool = "AveragePool <kernel_shape = [2, 2]>"
    quantized, _ = places(
        f"a = Conv (x, w)  r = Relu (a)  p = {pool} (r)  last = Conv (p, v)", 3, w=W, v=V
    )
    assert count(quantized) == (3, 2)
    for after in (f"last = {pool} (r)", f"p = {pool} (r)  c = Conv (p, v)  last = Mul (c, p)"):
        quantized = quantize(
            by_hand(f"a = Conv (x, w)  r = Relu (a)  {after}", 3, {"w": W, "v": V})
        )
        assert nodes(quantized, "AveragePool")[0].input[0] == "r"


def layer(model: ModelProto, op_type: str) -> tuple[NodeProto, NodeProto]:
    """The first node of a type in a quantized graph, and the quantizer of its weights."""
    made_by = makers(model)
    node = nodes(model, op_type)[0]
    return node, made_by[made_by[node.input[1]].input[0]]


DENSE = (
    "p = GlobalAveragePool (x)  f = Flatten (p)  {}  four = Unsqueeze (d, axes)  last = Relu (four)"
)
AXES = np.array([2, 3])


@pytest.mark.parametrize(
    ("body", "op_type", "weight", "axis"),
    [
        ("d = MatMul (f, w)", "MatMul", weights(3, 5), 1),
        ("d = Gemm (f, w)", "Gemm", weights(3, 5), 1),
        ("d = Gemm <transB = 1> (f, w)", "Gemm", weights(5, 3), 0),
    ],
)
def test_dense_layers_have_a_scale_for_each_output(
    body: str, op_type: str, weight: np.ndarray, axis: int
) -> None:
    quantized = quantize(by_hand(DENSE.format(body), 5, {"w": weight, "axes": AXES}))
    _, quantizer = layer(quantized, op_type)
    assert quantizer.attribute[0].i == axis
    scale = constants(quantized)[quantizer.input[1]]
    np.testing.assert_allclose(scale, np.abs(weight).max(axis=1 - axis) / 127, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "constant"),
    [
        ("last = ConvTranspose (x, w)", {"w": weights(3, 3, 2, 2)}),
        ("last = MatMul (x, w)", {"w": weights(3, 8, 8)}),
        ("w = Relu (v)  last = Conv (x, w)", {"v": W}),
    ],
)
def test_other_products_stay_float(body: str, constant: dict[str, np.ndarray]) -> None:
    model = by_hand(body, 3, constant)
    assert quantized_layers(model) == []
    assert count(quantize(model)) == (0, 0)


def test_what_is_always_zero_survives() -> None:
    dead = W.copy()
    dead[1] = 0
    model = by_hand("a = Conv (x, w)  r = Relu (a)  last = Conv (r, v)", 3, {"w": dead, "v": V})
    quantized = insert_qdq(model, {"x": 255.0, "r": 0.0})
    assert_rules(quantized)
    pictures = pixels(2, size=8)
    assert np.isfinite(run(quantized, pictures)[0]).all()
    (got,) = run(quantized, pictures, "w/dequantized")
    assert not got[1].any()


def test_scale_stands_for_the_largest_value() -> None:
    quantized = insert_qdq(by_hand("last = Conv (x, w)", 3, {"w": W}), {"x": 100.0})
    np.testing.assert_allclose(constants(quantized)["x/scale"], 100 / 127, rtol=1e-6)
    pictures = np.full((1, 8, 8, 3), 101, np.uint8)
    (got,) = run(quantized, pictures, "x/dequantized")
    # TensorRT clips at -128 as well; that is why 127 steps, not 128, make the largest value.
    np.testing.assert_allclose(got, 100, rtol=1e-6)
