"""Small networks with every construction that the exported backbones have, and ONNX by hand."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from pipeline import graph
from pipeline.calibration import Batches
from pipeline.surgery import set_constant

SIZE = 40
CLASSES = 3


class Network(NamedTuple):
    """A Keras classifier, and what `pipeline.graph` makes of it."""

    keras: Any
    frozen: bytes
    onnx: ModelProto


def export(model: Any) -> Network:
    frozen = graph.freeze(model)
    return Network(model, frozen, graph.to_onnx(frozen))


def randomise_statistics(model: Any) -> None:
    """Give every batch normalization statistics as after training, not those it is born with."""
    from keras.layers import BatchNormalization

    random = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, BatchNormalization):
            for weight in layer.weights:
                if weight.name in ("moving_variance", "gamma"):
                    weight.assign(random.uniform(0.5, 2, weight.shape))
                else:
                    weight.assign(random.normal(0, 0.3, weight.shape))


def pixels(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Pictures of blots, as smooth as photographs are."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, size // 8 + 1, size // 8 + 1, 3))
    fine = np.kron(coarse, np.ones((1, 8, 8, 1), int))[:, :size, :size]
    return np.clip(fine + random.integers(-20, 20, fine.shape), 0, 255).astype(np.uint8)


def run(model: ModelProto, pictures: np.ndarray, *names: str) -> list[np.ndarray]:
    """The named tensors, or the output, by ONNX Runtime with nothing optimized away."""
    import onnxruntime

    watched = ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    watched.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known
    )
    options = _options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = list(names) or [model.graph.output[0].name]
    found: list[np.ndarray] = session.run(
        wanted, {model.graph.input[0].name: pictures.astype(np.float32)}
    )
    return found


def answers(model: ModelProto, pictures: np.ndarray) -> np.ndarray:
    """The output for many pictures, by ONNX Runtime at its fastest."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
    )
    source = model.graph.input[0].name
    parts = [
        session.run(None, {source: part.astype(np.float32)})[0] for part in batches(pictures)()
    ]
    return np.concatenate(parts)


def _options() -> Any:
    """Of a session with one thread: beside other tests, more would only wait for each other."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return options


def batches(pictures: np.ndarray, size: int = 8) -> Batches:
    def begin() -> Iterator[np.ndarray]:
        return (pictures[start : start + size] for start in range(0, len(pictures), size))

    return begin


def nodes(model: ModelProto, op_type: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == op_type]


def makers(model: ModelProto) -> dict[str, NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in model.graph.node for name in node.output}


def by_hand(body: str, channels: int, constants: dict[str, np.ndarray]) -> ModelProto:
    """A classifier of 2 classes whose `body` leads from "x" (batch, 3, 8, 8) to "last"."""
    model: ModelProto = onnx.parser.parse_model(
        f"""<ir_version: 7, opset_import: ["": 13]>
        by_hand (float[batch, 8, 8, 3] pixels) => (float[batch, 2] probabilities) {{
            x = Transpose <perm = [0, 3, 1, 2]> (pixels)
            {body}
            pooled = GlobalAveragePool (last)
            bottlenecks = Flatten (pooled)
            logits = MatMul (bottlenecks, kernel)
            probabilities = Softmax <axis = -1> (logits)
        }}"""
    )
    random = np.random.default_rng(0)
    set_constant(model, "kernel", random.normal(0, 0.1, (channels, 2)).astype(np.float32))
    for name, value in constants.items():
        set_constant(model, name, value)
    graph.check(model)
    return model


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def mobile() -> Any:
    """Like MobileNet V2: padded strides, depthwise convolutions, ReLU6 and residuals."""
    from keras import Input, Model, layers

    def convolve(x: Any, width: int | None, activate: bool = True, **options: Any) -> Any:
        options = {"use_bias": False, "padding": "same", **options}
        if width is None:
            x = layers.DepthwiseConv2D(3, **options)(x)
        else:
            x = layers.Conv2D(width, **{"kernel_size": 1, **options})(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU(6.0)(x) if activate else x

    def block(x: Any) -> Any:
        y = convolve(convolve(x, 32), None)
        return layers.Add()([x, convolve(y, x.shape[-1], activate=False)])

    start = Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(start)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = convolve(x, 8, kernel_size=3, strides=2, padding="valid")
    x = convolve(convolve(x, None), 8, activate=False)
    x = block(block(x))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(convolve(x, 24))
    x = convolve(convolve(x, None, strides=2, padding="valid"), 16, activate=False)
    return _classify(start, x, Model)


def residual() -> Any:
    """Like ResNet: biases, a padded MaxPool, a shortcut with a convolution, and one without."""
    from keras import Input, Model, layers

    def block(x: Any, width: int, stride: int, project: bool) -> Any:
        y = layers.Conv2D(width, 1, strides=stride)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(width, 3, padding="same")(y)
        y = layers.BatchNormalization()(y)
        if project:
            x = layers.BatchNormalization()(layers.Conv2D(width, 1, strides=stride)(x))
        return layers.ReLU()(layers.Add()([x, y]))

    start = Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 255)(start)
    x = layers.ZeroPadding2D(3)(x)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 7, strides=2)(x)))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    x = block(x, 16, 1, project=True)
    x = block(block(x, 24, 2, project=True), 24, 1, project=False)
    return _classify(start, x, Model)


def inception() -> Any:
    """Like Inception: branches, unsymmetric kernels, average and maximum pools, Concat."""
    from keras import Input, Model, layers

    def convolve(x: Any, width: int, *kernel: int) -> Any:
        x = layers.Conv2D(width, kernel, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(scale=False)(x))

    def block(x: Any) -> Any:
        pooled = layers.AveragePooling2D(3, strides=1, padding="same")(x)
        branches = [
            convolve(x, 8, 1, 1),
            convolve(convolve(convolve(x, 8, 1, 1), 8, 1, 5), 8, 5, 1),
            convolve(pooled, 8, 1, 1),
        ]
        return layers.Concatenate()(branches)

    start = Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, -1.0)(start)
    x = layers.MaxPooling2D(3, strides=2)(convolve(x, 8, 3, 3))
    x = block(x)
    shrunk = layers.Conv2D(8, 3, strides=2)(x)
    x = layers.Concatenate()([layers.ReLU()(shrunk), layers.MaxPooling2D(3, strides=2)(x)])
    return _classify(start, block(x), Model)


def _classify(start: Any, x: Any, model: Any) -> Any:
    from keras import layers

    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    x = layers.Dense(CLASSES, activation="softmax", bias_initializer="random_normal")(x)
    return model(start, x)


SMALL = {"mobile": mobile, "residual": residual, "inception": inception}
