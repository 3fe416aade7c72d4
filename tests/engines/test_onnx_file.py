"""What a device reads of a graph, against what the onnx package says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx.parser import parse_model

from engines.tensorrt.onnx_file import node_of, opset_of

BODY = "g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }"


def graph(*sets: tuple[str, int], text: str = "") -> onnx.ModelProto:
    model = parse_model(f'<ir_version: 7, opset_import: ["": 13], doc_string: "{text}"> {BODY}')
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*one) for one in sets)
    return model


@pytest.mark.parametrize(
    ("sets", "wanted"),
    [
        ([("", 13)], 13),
        ([("ai.onnx", 21)], 21),
        ([("com.microsoft", 99), ("", 9), ("ai.onnx.ml", 50)], 9),
        ([("com.microsoft", 1)], 0),
        ([], 0),
        ([("", 2**40)], 2**40),
    ],
)
def test_it_is_the_one_of_the_standard_operators(sets: list[tuple[str, int]], wanted: int) -> None:
    assert opset_of(graph(*sets).SerializeToString()) == wanted


@given(
    st.lists(st.tuples(st.sampled_from(["", "ai.onnx", "x"]), st.integers(0, 2**62)), max_size=4),
    st.text(alphabet="ab", max_size=300),
)
def test_as_the_onnx_package_reads_it(sets: list[tuple[str, int]], text: str) -> None:
    model = graph(*sets, text=text)
    wanted = max((s.version for s in model.opset_import if s.domain in ("", "ai.onnx")), default=0)
    assert opset_of(model.SerializeToString()) == wanted


@given(st.binary(max_size=200))
def test_what_is_no_graph_is_left_to_the_parser(data: bytes) -> None:
    assert opset_of(data) >= 0


@given(st.data())
def test_a_graph_that_is_cut_off(data: st.DataObject) -> None:
    whole = graph(("", 13)).SerializeToString()
    assert opset_of(whole[: data.draw(st.integers(0, len(whole)))]) in (0, 13)


def test_nodes_go_by_their_names_or_outputs() -> None:
    model = parse_model(
        '<ir_version: 7, opset_import: ["": 13], producer_name: "somebody"> '
        "g (float[1, 3] x) => (float[1, 3] z) { y = Relu (x)  z = Neg (y) }"
    )
    model.graph.node[1].name = "last"
    data = model.SerializeToString()
    assert [node_of(data, place) for place in (-1, 0, 1, 2)] == [
        None, ("y", "Relu"), ("last", "Neg"), None,
    ]  # fmt: skip
    assert node_of(b"\x08\xff", 0) is None


@given(st.binary(max_size=100), st.integers(-1, 3))
def test_nodes_of_what_is_no_graph(data: bytes, place: int) -> None:
    node_of(data, place)


def test_numbers_and_texts_may_be_anywhere() -> None:
    model = parse_model(f'<ir_version: 7, opset_import: ["": 13]> {BODY}')
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.5))
    model.graph.node[0].name = "ü"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(300.0), "w"))
    assert node_of(model.SerializeToString(), 0) == ("ü", "Relu")
    assert opset_of(model.SerializeToString()) == 13
