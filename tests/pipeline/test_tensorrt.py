"""NVIDIA's own parser and builder take every construction, on a machine without a GPU."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import Network, batches, by_hand, pixels, weights
from onnx import ModelProto

from engines.catalogue import module_of
from engines.engine import EngineError
from pipeline import calibration
from pipeline.half import to_fp16
from pipeline.qdq import insert_qdq, quantized_inputs, quantized_layers

rtx = module_of("tensorrt-rtx")
pytestmark = pytest.mark.skipif(
    rtx.unavailable() is not None, reason="there is no TensorRT-RTX for this machine"
)


def quantize(model: ModelProto, pictures: np.ndarray, floats: Sequence[str] = ()) -> ModelProto:
    amax = calibration.largest_values(model, batches(pictures))
    return insert_qdq(model, {t: amax[t] for t in quantized_inputs(model, floats)}, floats)


def half_in_float(model: ModelProto, pictures: np.ndarray) -> ModelProto:
    """Every other layer as the accuracy guard leaves it."""
    floats = [layer.output[0] for layer in quantized_layers(model)][::2]
    return quantize(model, pictures, floats)


# TensorRT-RTX keeps scales in FP32, whatever the graph has.
EXPECTED = "scales to fp32"

VARIANTS: dict[str, Callable[[ModelProto, np.ndarray], ModelProto]] = {
    "fp32": lambda model, _: model,
    "fp16": lambda model, _: to_fp16(model),
    "int8": quantize,
    "int8-fp16": lambda model, pictures: to_fp16(quantize(model, pictures)),
    "half-in-fp32": half_in_float,
    "half-in-fp16": lambda model, pictures: to_fp16(half_in_float(model, pictures)),
}


def build(model: ModelProto, folder: Path, target: str) -> tuple[bytes, dict[str, Any]]:
    onnx.save(model, folder / "graph.onnx")
    plan = folder / "engine.plan"
    made = rtx.build(str(folder / "graph.onnx"), str(plan), "fp32", target)
    return plan.read_bytes(), made["options"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_small_networks_build(small: Network, variant: str, tmp_path: Path) -> None:
    model = VARIANTS[variant](small.onnx, pixels(4))
    plan, options = build(model, tmp_path, "sm86")
    assert len(plan) > 10_000
    assert options["dialect"] == "TensorRT-RTX"
    assert not [text for text in options["warnings"] if EXPECTED not in text]


@pytest.mark.parametrize("variant", ["fp16", "int8-fp16"])
def test_floats_that_nodes_make_build(variant: str, tmp_path: Path) -> None:
    """Strong typing refuses any FP32 that is left over inside."""
    model = by_hand(
        "low = Less (x, edge)  kept = Cast <to = 1> (low)  half = Constant <value_float = 0.5> ()"
        "  part = Mul (kept, half)  y = Mul (x, part)  last = Conv (y, w)",
        4, {"edge": np.array(100, np.float32), "w": weights(4, 3, 3, 3)},
    )  # fmt: skip
    plan, options = build(VARIANTS[variant](model, pixels(4, size=8)), tmp_path, "sm86")
    assert len(plan) > 10_000
    assert not [text for text in options["warnings"] if EXPECTED not in text]


def test_unknown_target_names_the_known_ones(mobile: Network, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"builds for sm75, .*, not for sm53"):
        build(mobile.onnx, tmp_path, "sm53")
    assert not (tmp_path / "engine.plan").exists()
