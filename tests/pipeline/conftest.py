"""Networks as the pipeline exports them, made once for all tests; nobody may change them."""

from pathlib import Path

import numpy as np
import pytest
from networks import SMALL, Network, answers, export, randomise_statistics
from onnx import ModelProto

from engines.preprocess import pixels
from pipeline import backbones, calibration
from pipeline.last_layer import LastLayer
from pipeline.qdq import insert_qdq, quantized_inputs
from pipeline.surgery import backbone_of, set_last_layer

TRAIN, TEST = 160, 96  # pictures of each class


@pytest.fixture(scope="session", params=SMALL)
def small(request: pytest.FixtureRequest) -> Network:
    """Each of the small networks in turn."""
    return _small(request.param)


@pytest.fixture(scope="session")
def mobile() -> Network:
    return _small("mobile")


@pytest.fixture(scope="session")
def residual() -> Network:
    return _small("residual")


@pytest.fixture(scope="session")
def inception() -> Network:
    return _small("inception")


_made: dict[str, Network] = {}


def _small(name: str) -> Network:
    if name not in _made:
        import keras

        keras.utils.set_random_seed(0)
        model = SMALL[name]()
        randomise_statistics(model)
        _made[name] = export(model)
    return _made[name]


@pytest.fixture(scope="session")
def lite0() -> Network:
    """EfficientNet-Lite0 with its ImageNet weights and a random last layer of two classes."""
    import keras

    backbone = backbones.build("efficientnet_lite0", "imagenet", 0, lambda _: None).model
    answer = keras.layers.Dense(2, activation="softmax", bias_initializer="random_normal")
    return export(keras.Model(backbone.input, answer(backbone.output)))


@pytest.fixture(scope="session")
def solar(cells: dict[str, list[Path]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pixels (N, 224, 224, 3) and labels (N,) of solar cells: "train" and "test"."""
    sets = {}
    for name, start, count in (("train", 0, TRAIN), ("test", TRAIN, TEST)):
        files = [
            (file, label)
            for label, members in enumerate(cells.values())
            for file in members[start : start + count]
        ]
        pictures = np.stack([pixels(file.read_bytes(), 224, 224) for file, _ in files])
        sets[name] = (pictures, np.array([label for _, label in files]))
    return sets


@pytest.fixture(scope="session")
def trained(lite0: Network, solar: dict[str, tuple[np.ndarray, np.ndarray]]) -> ModelProto:
    """EfficientNet-Lite0 whose last layer tells whole solar cells from broken ones."""
    pictures, labels = solar["train"]
    features = answers(backbone_of(lite0.onnx), pictures)
    middle = features.mean(0)
    centred = features - middle
    # Ridge regression of the two classes, -1 and 1.
    covariance = centred.T @ centred / len(centred) + 0.1 * np.eye(features.shape[1])
    direction = np.linalg.solve(covariance, centred.T @ (2.0 * labels - 1) / len(centred))
    kernel = np.stack([-direction, direction], 1).astype(np.float32)
    model = ModelProto()
    model.CopyFrom(lite0.onnx)
    set_last_layer(model, LastLayer(kernel, (-middle @ kernel).astype(np.float32)))
    return model


@pytest.fixture(scope="session")
def quantized(trained: ModelProto, solar: dict[str, tuple[np.ndarray, np.ndarray]]) -> ModelProto:
    """`trained` in INT8, calibrated on some of its training pictures."""
    pictures, _ = solar["train"]
    amax = calibration.largest_values(trained, lambda: iter([pictures[::10]]))
    return insert_qdq(trained, {tensor: amax[tensor] for tensor in quantized_inputs(trained)})
