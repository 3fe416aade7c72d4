"""Every backbone in every precision becomes an engine for every GPU that TensorRT-RTX knows.

The parser and the builder are NVIDIA's own, on a machine without a GPU; the graphs are made as the
stages make them. Nine more come from the package onnx, so that not all have the same author.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from networks import batches, export
from onnx import ModelProto

from engines.catalogue import module_of
from engines.engine import processors
from engines.settings import Settings
from engines.targets import RTX_TARGETS
from pipeline import backbones, calibration
from pipeline.backbones import EFFICIENTNET_LITE, IMAGENET, RANDOM
from pipeline.half import to_fp16
from pipeline.qdq import insert_qdq, quantized_inputs

rtx = module_of("tensorrt-rtx")
pytestmark = pytest.mark.skipif(
    rtx.unavailable() is not None, reason="there is no TensorRT-RTX for this machine"
)

BACKBONES = (
    *EFFICIENTNET_LITE,
    *(f"mobilenet_{alpha}_224" for alpha in ("0.25", "0.5", "0.75", "1.0")),
    "mobilenet_0.25_128",
    "mobilenet_v2",
    "inception_v3",
)
PRECISIONS = {"fp32": 4, "fp16": 2, "int8": 1}  # bytes of a weight
LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx"))
MAGIC = b"vtrt"  # every engine starts with it
CODE = 8 << 20  # bytes of an engine that are no weights, at most
# TensorRT-RTX keeps scales in FP32, whatever the graph has.
EXPECTED = "scales to fp32"


class Graphs(NamedTuple):
    """A backbone with a last layer of two classes: a file for each precision, and its size."""

    files: dict[str, Path]
    parameters: int


@pytest.fixture(scope="module", params=BACKBONES)
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """Each backbone in turn, exported once; its INT8 ranges are of random pictures."""
    import keras

    weights = IMAGENET if request.param in EFFICIENTNET_LITE else RANDOM
    backbone = backbones.build(request.param, weights, 0, lambda _: None)
    answer = keras.layers.Dense(2, activation="softmax")(backbone.model.output)
    fp32 = export(keras.Model(backbone.model.input, answer)).onnx
    pictures = np.random.default_rng(0).integers(0, 256, (2, *backbone.size, 3), np.uint8)
    made = {"fp32": fp32, "fp16": to_fp16(fp32), "int8": to_fp16(_quantize(fp32, pictures))}
    folder = tmp_path_factory.mktemp("graphs")
    files = {precision: folder / f"{precision}.onnx" for precision in made}
    for precision, model in made.items():
        onnx.save(model, files[precision])
    return Graphs(files, sum(int(np.prod(tensor.dims)) for tensor in fp32.graph.initializer))


def _quantize(model: ModelProto, pictures: np.ndarray) -> ModelProto:
    amax = calibration.largest_values(model, batches(pictures))
    return insert_qdq(model, {tensor: amax[tensor] for tensor in quantized_inputs(model)})


def engines(graph: Path, precision: str, folder: Path) -> dict[str, tuple[bytes, Any]]:
    """For every GPU the engine and the options it was built with; as many at once as can be."""

    def build(target: str) -> tuple[bytes, Any]:
        file = folder / f"{target}.plan"
        options = rtx.build(str(graph), str(file), precision, target)["options"]
        plan = file.read_bytes()
        file.unlink()  # all of them together are gigabytes
        return plan, options

    with ThreadPoolExecutor(processors()) as pool:
        return dict(zip(RTX_TARGETS, pool.map(build, RTX_TARGETS), strict=True))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_backbone_builds_for_every_gpu(
    graphs: Graphs, precision: str, tmp_path: Path
) -> None:
    built = engines(graphs.files[precision], precision, tmp_path)
    for target, (plan, options) in built.items():
        assert plan.startswith(MAGIC), target
        assert target.encode() in plan, target  # an engine holds the name of what it is for
        assert PRECISIONS[precision] * graphs.parameters < len(plan), target
        assert len(plan) < 4 * graphs.parameters + CODE, target
        surprises = [text for text in options["warnings"] if EXPECTED not in text]
        assert not surprises, target
    assert bool(built["sm86"][1]["warnings"]) == (precision == "int8")  # they are kept


@pytest.mark.parametrize("file", LIGHT, ids=[file.stem for file in LIGHT])
def test_networks_of_others_build(file: Path, tmp_path: Path) -> None:
    """Batches of one and channels first, weights that nodes compute, opset 9."""
    plan = tmp_path / "engine.plan"
    made = rtx.build(str(file), str(plan), "fp32", "sm86", Settings(batch=(1, 1, 1)))
    assert plan.read_bytes().startswith(MAGIC)
    assert not made["options"]["warnings"]


def test_there_are_networks_of_others() -> None:
    assert len(LIGHT) == 9
