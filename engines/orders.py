"""Engines as they are ordered, and building one: the file, and a .json beside it."""

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from engines.catalogue import MODULES, SCHEMA, module_of, read_sidecar
from engines.engine import EngineError
from engines.files import remove, replacing, sha256_of, write_json
from engines.settings import DEFAULT, EXPLICIT, Settings

LAYERS = "layers"  # folder beside the engines: what each is made of


class Order(NamedTuple):
    """One engine to build."""

    backend: str
    precision: str
    target: str
    settings: Settings = DEFAULT

    @property
    def name(self) -> str:
        """As it stands in the report and on the disk, such as "tensorrt-int8-entropy-sm87"."""
        words = [self.backend, self.precision]
        if self.precision == "int8" and self.settings.int8 != EXPLICIT:
            words.append(self.settings.int8)
        if self.target.startswith("sm"):
            words.append(self.target)
        return "-".join(words)

    @property
    def graph(self) -> str:
        """Which of the exported graphs it is built from: "fp32", "int8-fp16" ..."""
        module = module_of(self.backend)
        if hasattr(module, "graph_for"):
            return str(module.graph_for(self.precision, self.settings))
        return self.precision  # the others compute what is not quantized in FP32


def fulfil(
    order: Order,
    graph_file: Path,
    folder: Path,
    about: Dict[str, Any],
    impossible: Optional[str] = None,
    progress: Any = None,
) -> Tuple[Dict[str, Any], bool]:
    """Build an engine into `folder`, unless the one that is there is what it would become.

    If it can't be built, an earlier one of the same graph stays as it is.

    Args:
        graph_file: the graph that `order.graph` names.
        about: what else to keep in its .json: versions, the machine. Decides the engine too,
            where the backend does not say what it depends on.
        impossible: why there is no such graph.
        progress: see `engines.tensorrt.builder.Progress`.

    Returns:
        What became of the order, as in the engine's .json, with "status" "built" or, with the
        "reason", "unavailable"; and whether it was there already.
    """
    module = module_of(order.backend)
    sidecar: Dict[str, Any] = {
        "schema": SCHEMA,
        "name": order.name,
        "backend": order.backend,
        "precision": order.precision,
        "target": order.target,
        "onnx": graph_file.name,
        "onnx_sha256": "" if impossible else sha256_of(graph_file),
        "depends": {},
    }
    path = folder / (order.name + ".json")
    before = _sidecar_before(path)
    try:
        reason = impossible or module.unavailable()
        if reason is None and hasattr(module, "refuse"):
            reason = module.refuse(order.precision, order.settings)
        if reason is None:
            if hasattr(module, "depends"):
                sidecar["depends"] = module.depends(order.settings)
            wanted = dict(sidecar) if sidecar["depends"] else dict(sidecar, **about)
            if before.get("status") == "built" and dict(before, **wanted) == before:
                return before, True
            sidecar.update(about)
            sidecar.update(_make(order, graph_file, folder / _file_name(order, sidecar), progress))
    except EngineError as error:
        reason = str(error)
    if reason is not None:
        sidecar.update(about, status="unavailable", reason=reason)
        if before.get("status") == "built" and before["onnx_sha256"] == sidecar["onnx_sha256"]:
            return sidecar, False
        remove(folder / LAYERS / (order.name + ".json"))
    write_json(path, sidecar)
    for stale in _files_of(order.name, order.backend, folder):  # of an older model, TensorRT or GPU
        if stale.name != sidecar.get("file"):
            remove(stale)
    return sidecar, False


def tidy(folder: Path, orders: Sequence[Order]) -> None:
    """Remove what speaks of no engine: what this version can't read, and unfulfilled orders.

    Args:
        orders: those that were just given; what became of them stays.
    """
    names = {order.name for order in orders}
    for path in folder.glob("*.json"):
        try:
            stays = read_sidecar(path)["status"] == "built" or path.stem in names
        except EngineError:
            stays = False
        if not stays:
            remove(path)
            for backend in MODULES:
                for file in _files_of(path.stem, backend, folder):
                    remove(file)


def _make(order: Order, graph_file: Path, file: Path, progress: Any) -> Dict[str, Any]:
    start = time.perf_counter()
    with replacing(file) as temporary:
        made = module_of(order.backend).build(
            str(graph_file),
            str(temporary),
            order.precision,
            order.target,
            order.settings,
            progress,
        )
    layers = file.parent / LAYERS / (order.name + ".json")
    if made.get("layers"):
        write_json(layers, made["layers"])
    else:
        remove(layers)
    return {
        "status": "built",
        "reason": "",
        "file": file.name,
        "sha256": sha256_of(file),
        "size_bytes": file.stat().st_size,
        "build_seconds": round(time.perf_counter() - start, 3),
        "options": made["options"],
    }


def _file_name(order: Order, sidecar: Dict[str, Any]) -> str:
    """The engine's file; what runs on one GPU and TensorRT only has that in its name."""
    suffix: str = module_of(order.backend).SUFFIX
    if not sidecar["depends"]:
        return order.name + suffix
    words = json.dumps([sidecar["onnx_sha256"], sidecar["depends"]], sort_keys=True)
    return "{}-{}{}".format(order.name, hashlib.sha256(words.encode()).hexdigest()[:12], suffix)


def _files_of(name: str, backend: str, folder: Path) -> List[Path]:
    """Whatever engines an order of that name was fulfilled with so far."""
    suffix = module_of(backend).SUFFIX
    pattern = re.compile("{}(-[0-9a-f]{{12}})?{}".format(*map(re.escape, (name, suffix))))
    return [path for path in folder.iterdir() if pattern.fullmatch(path.name)]


def _sidecar_before(path: Path) -> Dict[str, Any]:
    """What an earlier build left; empty if that is damaged."""
    try:
        sidecar = read_sidecar(path)
        if sidecar["status"] == "built":
            whole = sha256_of(path.with_name(sidecar["file"])) == sidecar["sha256"]
            return sidecar if whole else {}
    except (EngineError, OSError):
        return {}
    return sidecar
