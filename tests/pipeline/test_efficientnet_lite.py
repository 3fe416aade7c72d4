"""The Keras port against the PyTorch networks, and its answers to weights that don't fit."""

from __future__ import annotations

import functools
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import efficientnet_lite
from pipeline.torch_weights import WeightsError, load_state_dict

GOLDEN = Path(__file__).parent.parent / "golden"
RECIPE = runpy.run_path(str(GOLDEN / "make_efficientnet_lite.py"))

State = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def golden() -> State:
    with np.load(GOLDEN / "efficientnet_lite.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def state() -> State:
    return load_state_dict(RECIPE["weights_file"]("lite0"))


build = functools.cache(efficientnet_lite.build)  # each network once


@pytest.fixture
def lite0() -> Any:
    return build("lite0")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("variant", "tensors", "size"),
    [("lite0", 296, 224), ("lite1", 386, 240), ("lite2", 386, 260)],
)
def test_port_agrees_with_pytorch(variant: str, tensors: int, size: int, golden: State) -> None:
    state = load_state_dict(RECIPE["weights_file"](variant))
    assert len(state) == tensors
    assert RECIPE["digest"](state) == str(golden[f"{variant}_state_dict"])

    model = build(variant)
    efficientnet_lite.load_weights(model, state)
    features = np.asarray(model(RECIPE["inputs"](size), training=False))
    assert model.input_shape == (None, size, size, 3)
    assert features.shape == (8, 1280)
    assert not model.trainable_weights

    kernel, bias = efficientnet_lite.classifier(state)
    difference = np.abs(softmax(features @ kernel + bias) - golden[variant]).max()
    print(f"{variant}: largest difference of a probability {difference:.2e}")
    assert difference <= 1e-5


def test_layers_have_readable_names(lite0: Any) -> None:
    names = [layer.name for layer in lite0.layers]
    assert names[:4] == ["scaled_pixels", "stem_conv", "stem_bn", "stem_relu6"]
    assert "block1a_depthwise_conv" in names
    assert "block1a_expand_conv" not in names  # the first block has no expansion
    assert "block3b_expand_conv" in names
    assert "block3b_add" in names
    assert names[-4:] == ["head_conv", "head_bn", "head_relu6", "features"]


def test_first_and_last_stages_are_not_made_deeper() -> None:
    stages = [block.name[:-1] for block in efficientnet_lite.blocks("lite2")]
    depths = [stages.count(f"block{number}") for number in range(1, 8)]
    assert depths == [1, 3, 3, 4, 4, 5, 1]


def test_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"lite3.*lite0"):
        efficientnet_lite.build("lite3")


@pytest.mark.parametrize(
    ("name", "shape", "needed"),
    [
        ("_conv_stem.weight", (32, 3, 3), (32, 3, 3, 3)),
        ("_blocks.4._depthwise_conv.weight", (240, 1, 3, 3), (240, 1, 5, 5)),
        ("_blocks.4._bn2.running_var", (41,), (40,)),
        ("_conv_head.weight", (320, 1280, 1, 1), (1280, 320, 1, 1)),
    ],
)
def test_shape_that_does_not_fit_is_named(
    lite0: Any, state: State, name: str, shape: tuple[int, ...], needed: tuple[int, ...]
) -> None:
    assert state[name].shape == needed
    with pytest.raises(WeightsError) as raised:
        efficientnet_lite.load_weights(lite0, {**state, name: np.zeros(shape, np.float32)})
    for part in (name, str(shape), str(needed)):
        assert part in str(raised.value)


def test_first_misfit_is_the_one_named(lite0: Any) -> None:
    other = load_state_dict(RECIPE["weights_file"]("lite1"))
    # Lite1 has a third block in stage 2, where Lite0's stage 3 begins with larger kernels.
    with pytest.raises(WeightsError, match=r"'_blocks\.3\._depthwise_conv\.weight'"):
        efficientnet_lite.load_weights(lite0, other)


def test_tensors_that_are_missing_left_over_or_broken_are_named(lite0: Any, state: State) -> None:
    before = [weights.copy() for weights in lite0.get_weights()]
    name = "_blocks.7._project_conv.weight"
    missing = {key: tensor for key, tensor in state.items() if key != name}
    bad = state[name].copy()
    bad[0, 0, 0, 0] = np.nan
    for wrong, word in (
        (missing, "is missing"),
        ({**state, name: state[name].astype(np.int64)}, "int64"),
        ({**state, name: bad}, "not finite"),
    ):
        with pytest.raises(WeightsError, match=word) as raised:
            efficientnet_lite.load_weights(lite0, wrong)
        assert name in str(raised.value)
    with pytest.raises(WeightsError, match=r"'_blocks\.16\._bn9\.weight' has no place"):
        efficientnet_lite.load_weights(lite0, {**state, "_blocks.16._bn9.weight": state[name]})
    after = lite0.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_classifier_of_another_size_is_named(state: State) -> None:
    with pytest.raises(WeightsError, match=r"_fc\.bias.*\(1000,\)"):
        efficientnet_lite.classifier({**state, "_fc.bias": np.zeros(10, np.float32)})
