"""NVIDIA's own parser and builder take every graph, on a machine without a GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Network, batches, by_hand, pixels, weights
from onnx import ModelProto

from engines.engine import EngineError
from engines.targets import RTX_TARGETS
from engines.tensorrt import rtx
from pipeline import calibration
from pipeline.half import to_fp16
from pipeline.qdq import insert_qdq, quantized_inputs
from pipeline.surgery import set_constant

pytestmark = pytest.mark.skipif(
    rtx.unavailable() is not None, reason="there is no TensorRT-RTX for this machine"
)


def quantize(model: ModelProto, pictures: np.ndarray) -> ModelProto:
    amax = calibration.largest_values(model, batches(pictures))
    return insert_qdq(model, {tensor: amax[tensor] for tensor in quantized_inputs(model)})


# TensorRT-RTX keeps scales in FP32, whatever the graph has.
EXPECTED = "scales to fp32"

VARIANTS: dict[str, Callable[[ModelProto, np.ndarray], ModelProto]] = {
    "fp32": lambda model, _: model,
    "fp16": lambda model, _: to_fp16(model),
    "int8": quantize,
    "int8-fp16": lambda model, pictures: to_fp16(quantize(model, pictures)),
}


def build(model: ModelProto, folder: Path, target: str) -> tuple[bytes, dict]:
    onnx.save(model, folder / "graph.onnx")
    plan = folder / "engine.plan"
    options = rtx.build(str(folder / "graph.onnx"), str(plan), "fp32", target)
    return plan.read_bytes(), options


@pytest.mark.parametrize("variant", VARIANTS)
def test_small_networks_build(small: Network, variant: str, tmp_path: Path) -> None:
    model = VARIANTS[variant](small.onnx, pixels(4))
    plan, options = build(model, tmp_path, "sm86")
    assert len(plan) > 10_000
    assert options["strongly_typed"]
    assert not [text for text in options["warnings"] if EXPECTED not in text]


@pytest.mark.parametrize("variant", VARIANTS)
def test_efficientnet_builds(
    lite0: Network,
    solar: dict[str, tuple[np.ndarray, np.ndarray]],
    variant: str,
    tmp_path: Path,
) -> None:
    pictures = solar["train"][0][::80]
    plan, options = build(VARIANTS[variant](lite0.onnx, pictures), tmp_path, "sm89")
    weights_bytes = 3.4e6 * {"fp32": 4, "fp16": 2, "int8": 1, "int8-fp16": 1}[variant]
    assert len(plan) > weights_bytes
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


@pytest.mark.parametrize("target", RTX_TARGETS)
def test_every_target_builds(mobile: Network, target: str, tmp_path: Path) -> None:
    model = VARIANTS["int8-fp16"](mobile.onnx, pixels(4))
    plan, _ = build(model, tmp_path, target)
    assert len(plan) > 10_000


def test_unknown_target_names_the_known_ones(mobile: Network, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"builds for sm75, .*, not for sm53"):
        build(mobile.onnx, tmp_path, "sm53")
    assert not (tmp_path / "engine.plan").exists()


def test_what_the_parser_refuses_is_named(tmp_path: Path) -> None:
    model = by_hand("d = Det (x)  s = Unsqueeze (d, axes)  last = Conv (x, w)", 4, {
        "w": weights(4, 3, 1, 1), "axes": np.array([2, 3])})  # fmt: skip
    model.graph.node[1].name = "odd one"
    with pytest.raises(EngineError, match=r"parser refuses .*graph.onnx: .*odd one.*"):
        build(model, tmp_path, "sm86")


def test_mixed_types_are_refused(tmp_path: Path) -> None:
    """Strong typing: nothing is cast in silence."""
    model = by_hand("last = Conv (x, w)", 4, {"w": weights(4, 3, 1, 1)})
    set_constant(model, "w", weights(4, 3, 1, 1).astype(np.float16))
    with pytest.raises(EngineError, match="TensorRT"):
        build(model, tmp_path, "sm86")


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x07" * 100])
def test_file_that_is_no_graph(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(data)
    with pytest.raises(EngineError, match=r"parser refuses|no graph with one input"):
        rtx.build(str(tmp_path / "graph.onnx"), str(tmp_path / "x.plan"), "fp32", "sm86")
