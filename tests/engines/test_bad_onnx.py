"""A graph that can't become an engine is one clear error, whatever it does to NVIDIA's parser."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, numpy_helper

from engines.catalogue import module_of
from engines.engine import EngineError

rtx = module_of("tensorrt-rtx")
pytestmark = pytest.mark.skipif(
    rtx.unavailable() is not None, reason="there is no TensorRT-RTX for this machine"
)

PIXELS = "float[batch, 8, 8, 3] pixels"
BODY = "x = Transpose <perm = [0, 3, 1, 2]> (pixels)  y = Conv <pads = [1, 1, 1, 1]> (x, w)"
WEIGHTS = np.random.default_rng(0).normal(0, 0.1, (4, 3, 3, 3)).astype(np.float32)
# Both sides of the convolution quantized, as far as the constants are right.
QUANTIZED = """
    x = Transpose <perm = [0, 3, 1, 2]> (pixels)
    xq = QuantizeLinear (x, scale, zero)  xd = DequantizeLinear (xq, scale, zero)
    wq = QuantizeLinear <axis = 0> (w, scales, zeros)
    wd = DequantizeLinear <axis = 0> (wq, scales, zeros)
    bias = DequantizeLinear <axis = 0> (b, scales, bias_zeros)
    y = Conv <pads = [1, 1, 1, 1]> (xd, wd, bias)
"""
SCALES: dict[str, np.ndarray] = {
    "scale": np.array(0.1, np.float32),
    "zero": np.array(0, np.int8),
    "scales": np.full(4, 0.01, np.float32),
    "zeros": np.zeros(4, np.int8),
    "b": np.zeros(4, np.int8),
    "bias_zeros": np.zeros(4, np.int8),
}


def graph(
    body: str = BODY,
    inputs: str = PIXELS,
    outputs: str = "float[batch, 4, 8, 8] y",
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 13,
) -> ModelProto:
    """A graph whose nodes are named "node 0", "node 1" ..., with weights "w"."""
    model: ModelProto = onnx.parser.parse_model(
        f'<ir_version: 7, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    for name, value in {"w": WEIGHTS, **(constants or {})}.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    for number, node in enumerate(model.graph.node):
        node.name = f"node {number}"
    return model


def quantized(**constants: np.ndarray) -> ModelProto:
    return graph(QUANTIZED, constants={**SCALES, **constants})


def without_output(model: ModelProto) -> ModelProto:
    del model.graph.node[0].output[:]
    return model


def with_bytes_for_a_name(model: ModelProto) -> bytes:
    """The parser names the node, and the name is no text."""
    model.graph.node[1].input[0] = "nowhere"
    return model.SerializeToString().replace(b"node 1", b"node\xff1")


def elsewhere(location: str) -> ModelProto:
    """A graph whose weights are in another file."""
    model = graph()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


# What is wrong -> the graph, and what the error names beside the file.
BAD: dict[str, tuple[Callable[[], ModelProto | bytes], str]] = {
    "empty": (lambda: b"", ""),
    "text": (lambda: b"no graph", ""),
    "picture": (lambda: cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), ""),
    "other message": (lambda: b"\x08\x07" * 100, ""),
    "cut in the graph": (lambda: graph().SerializeToString()[:300], ""),
    "cut at the end": (lambda: graph().SerializeToString()[:-1], ""),
    "operations of the future": (lambda: graph(opset=99), "opset"),
    "operation that TensorRT lacks": (
        lambda: graph("x = Transpose <perm = [0, 3, 1, 2]> (pixels)  y = Det (x)",
                      outputs="float[batch, 3] y"),
        r"node 1.*Det",
    ),
    "operation that nobody has": (lambda: graph("y = Guess (pixels)"), r"node 0.*Guess"),
    "int32 bias": (
        lambda: quantized(b=np.zeros(4, np.int32), bias_zeros=np.zeros(4, np.int32)),
        r"node 5.*Int32",
    ),
    "zero point": (lambda: quantized(zero=np.array(5, np.int8)), r"node 1.*[Zz]ero point"),
    "unsigned": (lambda: quantized(zero=np.array(128, np.uint8)), r"node 1.*[Zz]ero point"),
    "mixed types": (lambda: graph(constants={"w": WEIGHTS.astype(np.float16)}), r"node 1.*Half"),
    "kernel that does not fit": (lambda: graph(constants={"w": WEIGHTS[:, :2]}), "node 1"),
    "tensor that nobody makes": (lambda: graph(BODY + " z = Add (y, nowhere)"), "node 2"),
    "cycle": (lambda: graph("y = Add (pixels, z)  z = Relu (y)"), ""),
    "two inputs": (lambda: graph("y = Add (pixels, more)", f"{PIXELS}, {PIXELS[:-6]}more"),
                   "one input"),
    "no input": (lambda: graph("y = Relu (w)", "", "float[4, 3, 3, 3] y"), "one input"),
    "two outputs": (lambda: graph(BODY + " z = Relu (y)",
                                  outputs="float[batch, 4, 8, 8] y, float[batch, 4, 8, 8] z"),
                    "one output"),
    "no output": (lambda: graph(outputs=""), "one output"),
    "pictures of any size": (
        lambda: graph(inputs="float[batch, height, width, 3] pixels",
                      outputs="float[batch, 4, height, width] y"),
        "pixels",
    ),
    "batches of two": (lambda: graph(inputs="float[2, 8, 8, 3] pixels",
                                     outputs="float[2, 4, 8, 8] y"), "pixels"),
    "texts": (lambda: graph("y = Identity (pixels)", "string[batch, 8, 8, 3] pixels",
                            "string[batch, 8, 8, 3] y"), ""),
    "larger than any memory": (
        lambda: graph("y = Relu (pixels)", "float[batch, 1000000, 1000000, 3] pixels",
                      "float[batch, 1000000, 1000000, 3] y"),
        "pixels",
    ),
    "weights in another file": (lambda: elsewhere("weights.bin"), "w"),
    "weights in the system's files": (lambda: elsewhere("/etc/hostname"), "w"),
    # These two end the process that parses them: a segmentation fault, and a UnicodeDecodeError.
    "node without an output": (lambda: without_output(graph()), "crashed"),
    "name that is no text": (lambda: with_bytes_for_a_name(graph()), ""),
}  # fmt: skip


def build(data: bytes, folder: Path) -> str:
    """What is wrong with a graph, in one line; empty if it became an engine."""
    file, plan = folder / "bad.onnx", folder / "engine.plan"
    file.write_bytes(data)
    try:
        rtx.build(str(file), str(plan), "fp32", "sm86")
    except EngineError as error:
        assert not plan.exists()
        text = str(error)
        assert str(file) in text, text
        assert len(text.splitlines()) == 1, text
        assert "Traceback" not in text
        return text
    assert plan.read_bytes().startswith(b"vtrt")
    return ""


def test_good_graphs_build(tmp_path: Path) -> None:
    """What is bad about the others is what was made bad."""
    assert not build(graph().SerializeToString(), tmp_path)
    assert not build(quantized().SerializeToString(), tmp_path)


@pytest.mark.parametrize("what", BAD)
def test_bad_graph_is_one_clear_error(what: str, tmp_path: Path) -> None:
    make, named = BAD[what]
    made = make()
    text = build(made if isinstance(made, bytes) else made.SerializeToString(), tmp_path)
    assert text, "it became an engine"
    assert re.search(named, text), text


@pytest.mark.parametrize("what", ["nothing", "folder"])
def test_no_file(what: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.onnx"
    if what == "folder":
        file.mkdir()
    with pytest.raises(EngineError, match=re.escape(str(file))):
        rtx.build(str(file), str(tmp_path / "engine.plan"), "fp32", "sm86")


def test_operation_with_a_line_break_in_its_name(tmp_path: Path) -> None:
    graph = quantized()
    graph.graph.node[0].op_type += "\nof mine"
    assert "\\nof mine" in build(graph.SerializeToString(), tmp_path)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_graph_builds_or_is_one_clear_error(data: st.DataObject) -> None:
    """Cut off, or with some bits flipped outside the weights, which take any."""
    whole = quantized().SerializeToString()
    weights = whole.index(WEIGHTS.tobytes())
    skipped = range(weights, weights + WEIGHTS.nbytes)
    places = [place for place in range(len(whole)) if place not in skipped]
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4)):
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    end = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    with TemporaryDirectory() as folder:
        build(bytes(damaged[:end]), Path(folder))
