"""What is kept of engines, and what is cleared away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from known import KNOWN

from engines import openvino
from engines.engine import EngineError
from engines.orders import Order, fulfil, tidy
from engines.settings import DEFAULT

GRAPH = KNOWN / "model.fp32.onnx"
ORDER = Order("onnxruntime", "fp32", "cpu")


@pytest.mark.parametrize(
    ("order", "name"),
    [
        (ORDER, "onnxruntime-fp32"),
        (Order("tensorrt", "int8", "sm87"), "tensorrt-int8-sm87"),
        (Order("tensorrt", "int8", "gpu"), "tensorrt-int8"),
        (
            Order("tensorrt", "int8", "sm87", DEFAULT._replace(int8="minmax")),
            "tensorrt-int8-minmax-sm87",
        ),
        (Order("tensorrt", "fp16", "sm87", DEFAULT._replace(int8="minmax")), "tensorrt-fp16-sm87"),
    ],
)
def test_names(order: Order, name: str) -> None:
    assert order.name == name


def test_second_time_nothing_is_built(tmp_path: Path) -> None:
    made, there = fulfil(ORDER, GRAPH, tmp_path, {"versions": {"a": "1"}})
    assert (made["status"], there) == ("built", False)
    assert fulfil(ORDER, GRAPH, tmp_path, {"versions": {"a": "1"}}) == (made, True)
    assert not fulfil(ORDER, GRAPH, tmp_path, {"versions": {"a": "2"}})[1]


def test_an_engine_that_was_changed_is_built_again(tmp_path: Path) -> None:
    made, _ = fulfil(ORDER, GRAPH, tmp_path, {})
    (tmp_path / made["file"]).write_bytes(b"changed")
    assert not fulfil(ORDER, GRAPH, tmp_path, {})[1]
    assert (tmp_path / made["file"]).read_bytes() != b"changed"


def test_of_an_older_graph_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order("openvino", "fp32", "cpu")
    made, _ = fulfil(order, GRAPH, tmp_path, {})
    other = tmp_path / "model.other.onnx"
    other.write_bytes(GRAPH.read_bytes() + b"\x7a\x00")
    monkeypatch.setattr(openvino, "unavailable", lambda: "OpenVINO is gone")
    assert fulfil(order, GRAPH, tmp_path, {})[0]["reason"] == "OpenVINO is gone"
    assert (tmp_path / made["file"]).exists()  # it is of this graph, and as good as it was
    assert fulfil(order, other, tmp_path, {})[0]["reason"] == "OpenVINO is gone"
    assert not (tmp_path / made["file"]).exists()
    assert json.loads((tmp_path / "openvino-fp32.json").read_text())["status"] == "unavailable"


def test_a_build_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise EngineError("no room")

    monkeypatch.setattr(openvino, "build", fail)
    made, there = fulfil(Order("openvino", "fp32", "cpu"), GRAPH, tmp_path, {})
    assert (made["status"], made["reason"], there) == ("unavailable", "no room", False)
    assert [path.name for path in tmp_path.iterdir()] == ["openvino-fp32.json"]


def test_tidying_up(tmp_path: Path) -> None:
    fulfil(ORDER, GRAPH, tmp_path, {})
    lost, _ = fulfil(Order("tensorrt", "fp32", "gpu"), GRAPH, tmp_path, {}, "there is none")
    (tmp_path / "old.json").write_text('{"schema": 1}')
    olds = [tmp_path / name for name in ("old.onnx", "old-0123456789ab.plan", "old.blob")]
    others = [tmp_path / name for name in ("older.onnx", "old-012345.plan", "old.txt")]
    for path in (*olds, *others):
        path.write_bytes(b"an engine")
    tidy(tmp_path, [Order("tensorrt", "fp32", "gpu")])
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "onnxruntime-fp32.json",
        f"{lost['name']}.json",
    }
    assert not [path for path in olds if path.exists()]
    assert [path for path in others if path.exists()] == others
    tidy(tmp_path, [ORDER])
    assert {path.name for path in tmp_path.glob("*.json")} == {"onnxruntime-fp32.json"}
