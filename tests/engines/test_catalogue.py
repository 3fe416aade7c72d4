"""Engine files are native code: none is loaded that is not the one that was built."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engines import catalogue
from engines.catalogue import load_engine, read_sidecar, read_sidecars
from engines.engine import EngineError


def sidecar(**changes: Any) -> dict[str, Any]:
    return {
        "schema": catalogue.SCHEMA, "name": "openvino-fp32", "backend": "openvino",
        "precision": "fp32", "target": "cpu", "status": "built", "reason": "",
        "onnx": "model.fp32.onnx",
        "onnx_sha256": "", "depends": {}, "file": "openvino-fp32.blob",
        "sha256": hashlib.sha256(b"engine").hexdigest(), **changes,
    }  # fmt: skip


class Module:
    """Stands in for a backend: remembers what it was given to load."""

    def __init__(self) -> None:
        self.loaded: list = []

    def unavailable(self) -> None:
        """Nothing is in the way."""

    def load(self, data: bytes, path: str, precision: str) -> str:
        self.loaded.append((data, path, precision))
        return "engine"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    module = Module()
    monkeypatch.setattr(catalogue, "module_of", lambda backend: module)
    return module


def test_engine_that_was_built_is_loaded(module: Module, tmp_path: Path) -> None:
    (tmp_path / "openvino-fp32.blob").write_bytes(b"engine")
    load_engine(tmp_path, sidecar())
    assert module.loaded == [(b"engine", str(tmp_path / "openvino-fp32.blob"), "fp32")]


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"enginf", "not the file that was built"), (b"", "not the file"), (None, "can't be read")],
)
def test_engine_that_was_changed_is_not(
    module: Module, tmp_path: Path, data: bytes, words: str
) -> None:
    if data is not None:
        (tmp_path / "openvino-fp32.blob").write_bytes(data)
    with pytest.raises(EngineError, match=words):
        load_engine(tmp_path, sidecar())
    assert not module.loaded


@pytest.mark.parametrize("key", ["file", "onnx", "name"])
@pytest.mark.parametrize("file", ["../engine.blob", "/tmp/engine.blob", "a/b.blob", "..", "."])
def test_no_path_leaves_the_folder(tmp_path: Path, key: str, file: str) -> None:
    (tmp_path / "openvino-fp32.json").write_text(json.dumps(sidecar(**{key: file})))
    with pytest.raises(EngineError, match="is damaged; build it again"):
        read_sidecar(tmp_path / "openvino-fp32.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "warp"},
        {"precision": "int4"},
        {"sha256": None},
        {"target": 86},
        {"status": "perhaps"},
        {"options": [1]},
        {"depends": 3},
        {"name": "another"},
        {"file": "a\0b"},
        {"file": "\ud800"},
        {"file": ""},
    ],
)
def test_damaged_sidecar(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "openvino-fp32.json").write_text(json.dumps(sidecar(**changes)))
    with pytest.raises(EngineError, match="is damaged; build it again"):
        read_sidecar(tmp_path / "openvino-fp32.json")


@pytest.mark.parametrize("key", sorted(set(sidecar()) - {"schema"}))
def test_sidecar_that_lacks_something(tmp_path: Path, key: str) -> None:
    whole = sidecar()
    del whole[key]
    (tmp_path / "openvino-fp32.json").write_text(json.dumps(whole))
    with pytest.raises(EngineError, match="is damaged; build it again"):
        read_sidecar(tmp_path / "openvino-fp32.json")


def test_engine_that_could_not_be_built_has_no_file(tmp_path: Path) -> None:
    record = sidecar(status="unavailable")
    del record["file"], record["sha256"]
    (tmp_path / "openvino-fp32.json").write_text(json.dumps(record))
    assert read_sidecar(tmp_path / "openvino-fp32.json") == record


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"schema": 99}', "\x00\xff", "[" * 100_000]
)
def test_sidecar_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "openvino-fp32.json").write_text(text, encoding="latin-1")
    with pytest.raises(EngineError, match=r"openvino-fp32\.json"):
        read_sidecar(tmp_path / "openvino-fp32.json")


def test_sidecars_come_in_the_order_of_a_report(tmp_path: Path) -> None:
    for backend in ("tensorrt-rtx", "onnxruntime", "openvino"):
        for precision in ("int8", "fp32", "fp16"):
            name = f"{backend}-{precision}"
            record = sidecar(backend=backend, precision=precision, name=name)
            (tmp_path / f"{backend}-{precision}.json").write_text(json.dumps(record))
    found = [(s["backend"], s["precision"]) for s in read_sidecars(tmp_path)]
    assert found == [
        (backend, precision)
        for backend in ("onnxruntime", "openvino", "tensorrt-rtx")
        for precision in ("fp32", "fp16", "int8")
    ]
