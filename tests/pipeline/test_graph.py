"""Keras -> ONNX: the same network, with nothing left that TensorRT can't fuse."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from networks import (
    Network,
    answers,
    by_hand,
    export,
    makers,
    nodes,
    pixels,
    randomise_statistics,
    run,
    weights,
)
from onnx import ModelProto

from engines.tensorflow_graph import INPUT, OUTPUT, import_tensorflow, load
from pipeline import backbones, graph
from pipeline.errors import PipelineError
from pipeline.surgery import constants, consumers

REPOSITORY = Path(__file__).parents[2]
TOLERANCE = 1e-5  # of a probability


def unfused(model: ModelProto) -> list[str]:
    """What stands behind a convolution though it could be part of it."""
    fixed, readers = constants(model), consumers(model)
    return [
        f"{reader.op_type} {reader.name}"
        for conv in nodes(model, "Conv")
        for reader in readers[conv.output[0]]
        if reader.op_type in ("Mul", "Add", "Sub", "Div", "BatchNormalization")
        and any(name in fixed for name in reader.input)
    ]


def test_answers_are_those_of_keras(small: Network) -> None:
    for count in (1, 3, 8):
        pictures = pixels(count, seed=count)
        wanted = np.asarray(small.keras(pictures.astype(np.float32), training=False))
        got = run(small.onnx, pictures)[0]
        assert got.shape == wanted.shape == (count, 3)
        assert np.ptp(wanted) > 0.01, "a network that says the same of all proves nothing"
        np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)


def test_efficientnet_answers_as_in_keras(
    lite0: Network, solar: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    pictures = solar["test"][0][::24]
    wanted = np.asarray(lite0.keras(pictures.astype(np.float32), training=False))
    np.testing.assert_allclose(answers(lite0.onnx, pictures), wanted, rtol=0, atol=TOLERANCE)


def classifier(*body: keras.Layer) -> Network:
    """The export of a small network with `body` in it, and weights that make all of it count."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    start = [keras.Input((16, 16, 3)), layers.Rescaling(1 / 127.5, -1.0)]
    end = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    model = keras.Sequential([*start, *body, *end])
    for weight in model.weights:
        weight.assign(keras.random.uniform(weight.shape, -0.5, 0.5))
    return export(model)


def assert_answers_are_those_of_keras(network: Network) -> None:
    pictures = pixels(4, 16)
    wanted = np.asarray(network.keras(pictures.astype(np.float32), training=False))
    assert np.ptp(wanted) > 0.01
    np.testing.assert_allclose(run(network.onnx, pictures)[0], wanted, rtol=0, atol=TOLERANCE)


def test_exact_gelu_is_exported() -> None:
    layers = keras.layers
    network = classifier(
        layers.Conv2D(8, 3, activation="gelu"), layers.Conv2D(8, 3), layers.Activation("gelu")
    )
    assert graph.operations(network.onnx)["Erf"] == 2
    assert_answers_are_those_of_keras(network)


@pytest.mark.parametrize(
    "options", [{}, {"strides": 2, "padding": "same"}, {"dilation_rate": 2, "use_bias": False}]
)
def test_grouped_convolutions_are_exported(options: dict[str, Any], tmp_path: Path) -> None:
    layers = keras.layers
    network = classifier(
        layers.Conv2D(8, 3), layers.Conv2D(12, 3, groups=4, **options), layers.ReLU()
    )
    groups = [a.i for n in nodes(network.onnx, "Conv") for a in n.attribute if a.name == "group"]
    assert groups == [1, 4]
    assert_answers_are_those_of_keras(network)
    # TensorFlow runs the frozen graph too, without Keras' detour.
    (tmp_path / "frozen.pb").write_bytes(network.frozen)
    with load(str(tmp_path / "frozen.pb")) as tensorflow:
        got = tensorflow.infer(pixels(4, 16))
    np.testing.assert_allclose(got, run(network.onnx, pixels(4, 16))[0], rtol=0, atol=TOLERANCE)


def test_freezing_leaves_tensorflow_as_it_was() -> None:
    tf = import_tensorflow()

    class Broken:
        inputs = (keras.Input((8, 8, 3)),)

        def __call__(self, pixels: object, training: bool) -> object:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        graph.freeze(Broken())
    assert not tf.config.functions_run_eagerly()


@pytest.mark.parametrize(
    ("architecture", "convolutions"), [("mobilenet_0.25_128", 27), ("mobilenet_v2", 52)]
)
def test_mobilenets_are_folded_whole(architecture: str, convolutions: int) -> None:
    backbone = backbones.build(architecture, "random", 0, lambda _: None).model
    randomise_statistics(backbone)
    answer = keras.layers.Dense(3, activation="softmax")
    network = export(keras.Model(backbone.input, answer(backbone.output)))

    found = graph.operations(network.onnx)
    assert found["Conv"] == convolutions
    assert found["Transpose"] == 1
    assert not {"Pad", "BatchNormalization"} & set(found)
    assert unfused(network.onnx) == []
    pictures = pixels(2, backbone.input_shape[1])
    wanted = np.asarray(network.keras(pictures.astype(np.float32), training=False))
    np.testing.assert_allclose(answers(network.onnx, pictures), wanted, rtol=0, atol=TOLERANCE)


def test_efficientnet_is_folded_whole(lite0: Network) -> None:
    found = graph.operations(lite0.onnx)
    assert found == {
        "Add": 11,  # 9 residuals, the pixels' offset, the last layer's bias
        "Clip": 33,
        "Conv": 49,
        "GlobalAveragePool": 1,
        "MatMul": 1,
        "Mul": 1,  # the pixels' scale
        "Softmax": 1,
        "Squeeze": 1,
        "Transpose": 1,
    }
    assert unfused(lite0.onnx) == []


def test_small_networks_are_folded_whole(small: Network) -> None:
    assert unfused(small.onnx) == []
    assert len(nodes(small.onnx, "Transpose")) == 1
    made_by = makers(small.onnx)
    for conv in nodes(small.onnx, "Conv"):
        assert made_by[conv.input[0]].op_type != "Pad"


def test_graph_is_what_tensorrt_8_reads(small: Network) -> None:
    model = small.onnx
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 7
    assert [(imported.domain, imported.version) for imported in model.opset_import] == [("", 13)]
    (source,), (result,) = model.graph.input, model.graph.output
    assert (source.name, result.name) == (INPUT, OUTPUT)
    dims = [d.dim_param or d.dim_value for d in source.type.tensor_type.shape.dim]
    assert dims == ["batch", 40, 40, 3]
    assert [d.dim_param or d.dim_value for d in result.type.tensor_type.shape.dim] == ["batch", 3]
    fixed = constants(model)
    assert all(name in fixed for clip in nodes(model, "Clip") for name in clip.input[1:])
    assert set(fixed) <= {name for node in model.graph.node for name in node.input}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_output_takes_the_name_it_is_given(mobile: Network) -> None:
    model = graph.to_onnx(mobile.frozen, output="bottlenecks")
    assert model.graph.output[0].name == "bottlenecks"
    pictures = pixels(2)
    np.testing.assert_array_equal(run(model, pictures)[0], run(mobile.onnx, pictures)[0])


def test_same_bytes_in_every_process(small: Network, tmp_path: Path) -> None:
    frozen = tmp_path / "frozen.pb"
    frozen.write_bytes(small.frozen)
    script = (
        "import hashlib, pathlib, sys\n"
        "from pipeline import graph\n"
        "model = graph.to_onnx(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "print(hashlib.sha256(model.SerializeToString()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(frozen)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONHASHSEED": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    here = hashlib.sha256(small.onnx.SerializeToString()).hexdigest()
    assert done.stdout.strip() == here, done.stderr


def test_frozen_graph_has_no_variables(mobile: Network) -> None:
    tf = import_tensorflow()
    definition = tf.compat.v1.GraphDef.FromString(mobile.frozen)
    types = {node.op for node in definition.node}
    assert not {"VarHandleOp", "ReadVariableOp", "StatefulPartitionedCall"} & types
    names = {node.name for node in definition.node}
    assert {INPUT, OUTPUT} <= names


def test_operation_that_onnx_lacks_is_named() -> None:
    tf = import_tensorflow()

    class Odd:
        inputs = (keras.Input((8, 8, 3)),)

        def __call__(self, pixels: object, training: bool) -> object:
            return tf.math.igamma(tf.reduce_mean(pixels, (1, 2)), 2.0, name="odd")

    with pytest.raises(PipelineError, match=r"ONNX has no Igamma, which odd\w* computes"):
        graph.to_onnx(graph.freeze(Odd()))


def test_rubbish_is_refused() -> None:
    tf = import_tensorflow()
    empty = tf.compat.v1.GraphDef().SerializeToString()
    with pytest.raises(PipelineError, match="tf2onnx can't convert"):
        graph.to_onnx(empty)


def test_check_names_what_is_wrong() -> None:
    model = by_hand("last = Conv (x, w)", 4, {"w": weights(4, 3, 1, 1)})
    nodes(model, "Conv")[0].input[1] = "elsewhere"
    with pytest.raises(PipelineError, match=r"ONNX checker refuses the graph(.|\n)*elsewhere"):
        graph.check(model)
