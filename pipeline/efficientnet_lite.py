"""EfficientNet-Lite0, 1 and 2 in Keras, and PyTorch's ImageNet weights for them.

Sources: Tan and Le, "EfficientNet" (arXiv 1905.11946), for the stages and the rounding of widths;
tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py, for what Lite
changes: no squeeze-and-excite, ReLU6 for swish, and no scaling of the stem's and head's widths
or of the first and last stages' depths.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pipeline.torch_weights import WeightsError

# A pixel 0..255 goes into the network as (pixel - PIXEL_MEAN) / PIXEL_SCALE, in every channel.
# Source: MEAN_RGB and STDDEV_RGB in efficientnet_lite_builder.py.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0

FEATURES = 1280
CLASSES = 1000
STEM_WIDTH = 32
BATCH_NORM_EPSILON = 1e-3

ADVICE = "Give the state dict of this very variant, as its package has it."


class Variant(NamedTuple):
    """One network of the family.

    size: height and width of the input, in pixels.
    width, depth: factors for the channels and for the repeats of a stage.
    """

    size: int
    width: float
    depth: float


# Source: efficientnet_lite_params() in efficientnet_lite_builder.py.
VARIANTS = {
    "lite0": Variant(size=224, width=1.0, depth=1.0),
    "lite1": Variant(size=240, width=1.0, depth=1.1),
    "lite2": Variant(size=260, width=1.1, depth=1.2),
}


class Stage(NamedTuple):
    """A run of equal blocks, before scaling; the stride is that of the first block."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


# Source: table 1 of the paper, and _DEFAULT_BLOCKS_ARGS in efficientnet_lite_builder.py.
STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expansion=1, width=16),
    Stage(repeats=2, kernel=3, stride=2, expansion=6, width=24),
    Stage(repeats=2, kernel=5, stride=2, expansion=6, width=40),
    Stage(repeats=3, kernel=3, stride=2, expansion=6, width=80),
    Stage(repeats=3, kernel=5, stride=1, expansion=6, width=112),
    Stage(repeats=4, kernel=5, stride=2, expansion=6, width=192),
    Stage(repeats=1, kernel=3, stride=1, expansion=6, width=320),
)

# End of a layer's name here -> the PyTorch module, inside its block or in the whole network.
BLOCK_MODULES = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
OUTER_MODULES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
}
BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
# What a state dict holds beside the backbone: the classifier, and counters of training steps.
CLASSIFIER_TENSORS = ("_fc.weight", "_fc.bias")
COUNTER = ".num_batches_tracked"


class Block(NamedTuple):
    """One inverted residual block, after scaling; `block3b` is the second one of stage 3."""

    name: str
    kernel: int
    stride: int
    expansion: int
    width: int


def blocks(variant: str) -> list[Block]:
    """The blocks of a variant, first to last; ValueError if there is no such variant."""
    scale = _variant(variant)
    result = []
    for number, stage in enumerate(STAGES, start=1):
        fixed = number in (1, len(STAGES))
        repeats = stage.repeats if fixed else math.ceil(stage.repeats * scale.depth)
        width = _round_width(stage.width * scale.width)
        for repeat in range(repeats):
            name = f"block{number}{string.ascii_lowercase[repeat]}"
            stride = stage.stride if repeat == 0 else 1
            result.append(Block(name, stage.kernel, stride, stage.expansion, width))
    return result


def build(variant: str) -> Any:
    """The network up to its pooled features, with random weights, frozen.

    Args:
        variant: a key of VARIANTS.

    Returns:
        keras.Model: float32 pixels (None, size, size, 3), RGB, already scaled with PIXEL_MEAN
        and PIXEL_SCALE, to float32 features (None, 1280), 0..6. It has no dropout, so it is
        not trainable.

    Raises:
        ValueError: there is no such variant.
    """
    from keras import Input, Model, layers

    size = _variant(variant).size
    inputs = Input((size, size, 3), name="scaled_pixels")
    x = _convolve(inputs, "stem", kernel=3, stride=2, width=STEM_WIDTH)
    for block in blocks(variant):
        x = _inverted_residual(x, block)
    x = _convolve(x, "head", width=FEATURES)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    model = Model(inputs, features, name=f"efficientnet_{variant}")
    model.trainable = False
    return model


def load_weights(model: Any, state_dict: dict[str, np.ndarray]) -> None:
    """Copy a PyTorch state dict into a model that `build` made.

    Args:
        model: as `build` gives it; it is changed only if every tensor fits.
        state_dict: the tensors of the same variant, as `load_state_dict` gives them.

    Raises:
        WeightsError: a tensor is missing, of another shape, not float32, not finite, or has no
            place in the network; names the first one, in the order of the layers.
    """
    rest = dict(state_dict)
    fitting = [(layer, _take_layer(rest, module, layer)) for layer, module in _torch_modules(model)]
    for name in rest:
        if name not in CLASSIFIER_TENSORS and not name.endswith(COUNTER):
            raise WeightsError(f"tensor {name!r} has no place in {model.name}. {ADVICE}")
    for layer, arrays in fitting:
        layer.set_weights(arrays)


def classifier(state_dict: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The ImageNet classifier: float32 kernel (1280, 1000) and bias (1000,), in Keras's layout.

    Raises:
        WeightsError: as `load_weights`.
    """
    rest = dict(state_dict)
    weight, bias = CLASSIFIER_TENSORS
    return _take(rest, weight, (CLASSES, FEATURES)).T, _take(rest, bias, (CLASSES,))


def _variant(name: str) -> Variant:
    if name not in VARIANTS:
        raise ValueError(f"no EfficientNet-Lite named {name!r}. Choose one of {list(VARIANTS)}.")
    return VARIANTS[name]


def _round_width(width: float) -> int:
    """To the nearest multiple of 8, but never down by more than a tenth (round_filters in TF)."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def _inverted_residual(inputs: Any, block: Block) -> Any:
    from keras import layers

    x, width = inputs, inputs.shape[-1]
    if block.expansion != 1:
        x = _convolve(x, f"{block.name}_expand", width=width * block.expansion)
    x = _convolve(x, f"{block.name}_depthwise", kernel=block.kernel, stride=block.stride)
    x = _convolve(x, f"{block.name}_project", width=block.width, activate=False)
    if block.stride == 1 and block.width == width:
        x = layers.Add(name=f"{block.name}_add")([x, inputs])
    return x


def _convolve(
    x: Any,
    name: str,
    kernel: int = 1,
    stride: int = 1,
    width: int | None = None,
    activate: bool = True,
) -> Any:
    """Convolution (depthwise if no width is given), batch norm and ReLU6."""
    from keras import layers

    options = {"padding": "same", "use_bias": False, "name": f"{name}_conv"}
    if width is None:
        x = layers.DepthwiseConv2D(kernel, stride, **options)(x)
    else:
        x = layers.Conv2D(width, kernel, stride, **options)(x)
    x = layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu6")(x) if activate else x


def _torch_modules(model: Any) -> Iterator[tuple[Any, str]]:
    """Each layer that has weights, with the name of its PyTorch module."""
    block_names: list[str] = []
    for layer in model.layers:
        if not layer.weights:
            continue
        if layer.name in OUTER_MODULES:
            yield layer, OUTER_MODULES[layer.name]
            continue
        block, part = layer.name.split("_", maxsplit=1)
        if block not in block_names:
            block_names.append(block)
        yield layer, f"_blocks.{block_names.index(block)}.{BLOCK_MODULES[part]}"


def _take_layer(rest: dict[str, np.ndarray], module: str, layer: Any) -> list[np.ndarray]:
    """Take a layer's tensors out of `rest`, in Keras's order and layout."""
    if layer.name.endswith("_bn"):
        shape = tuple(layer.gamma.shape)
        return [_take(rest, f"{module}.{part}", shape) for part in BATCH_NORM_TENSORS]
    height, width, *channels = layer.weights[0].shape
    if layer.name.endswith("_depthwise_conv"):  # C1HW -> HWC1
        return [_take(rest, f"{module}.weight", (*channels, height, width)).transpose(2, 3, 0, 1)]
    inputs, outputs = channels  # OIHW -> HWIO
    shape = (outputs, inputs, height, width)
    return [_take(rest, f"{module}.weight", shape).transpose(2, 3, 1, 0)]


def _take(rest: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in rest:
        raise WeightsError(f"tensor {name!r} is missing. {ADVICE}")
    tensor = rest.pop(name)
    if tensor.shape != shape or tensor.dtype != np.float32:
        raise WeightsError(
            f"tensor {name!r} is {tensor.dtype} {tensor.shape}; the network needs float32 {shape}. "
            + ADVICE
        )
    if not np.isfinite(tensor).all():
        raise WeightsError(f"tensor {name!r} has values that are not finite. {ADVICE}")
    return tensor
