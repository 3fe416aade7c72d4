"""Which backends there are, and engine files: each with a .json beside it that says what it is."""

import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from engines.engine import Engine, EngineError
from engines.files import sha256_of

SCHEMA = 2
PRECISIONS = ("fp32", "fp16", "int8")

# Backend -> module; each has BACKEND, SUFFIX, unavailable(), build(...) and load(...). Those whose
# engines are not for any machine that can build them also have version(), depends(settings),
# graph_for(precision, settings), none_runs(), cannot_run(sidecar) and perhaps refuse(precision,
# settings).
MODULES = {
    "onnxruntime": "engines.onnx_runtime",
    "openvino": "engines.openvino",
    "tensorrt-rtx": "engines.tensorrt.rtx",
    "tensorrt": "engines.tensorrt.standard",
}
TENSORFLOW = "tensorflow"  # needs no building: it runs the frozen graph


def module_of(backend: str) -> Any:
    """The module of a backend in `MODULES`."""
    return importlib.import_module(MODULES[backend])


def none_runs(backend: str) -> Optional[str]:
    """Why no engine of a backend can run on this machine; None if one could that is made for it."""
    module = module_of(backend)
    reason: Optional[str] = getattr(module, "none_runs", module.unavailable)()
    return reason


def backends_here() -> Dict[str, List[Any]]:
    """Of each backend what decides which engines can be built and run here.

    Returns:
        For each its version where that is not known otherwise, why it builds none, and why it
        runs none.
    """
    found = {}
    for name in MODULES:
        module = module_of(name)
        version = module.version() if hasattr(module, "version") else None
        found[name] = [version, module.unavailable(), none_runs(name)]
    return found


def cannot_run(sidecar: Dict[str, Any]) -> Optional[str]:
    """Why a built engine can't run on this machine; None if it can.

    Args:
        sidecar: as `read_sidecar` gives it, "status" "built".
    """
    module = module_of(sidecar["backend"])
    reason: Optional[str]
    reason = module.cannot_run(sidecar) if hasattr(module, "cannot_run") else module.unavailable()
    return reason


def read_sidecar(path: Union[str, Path]) -> Dict[str, Any]:
    """The .json beside an engine.

    Raises:
        EngineError: it can't be read, was not written by this version or is damaged, or names a
            file outside its folder.
    """
    try:
        sidecar = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError("{} can't be read ({}); build it again".format(path, error)) from error
    if not isinstance(sidecar, dict) or sidecar.get("schema") != SCHEMA:
        raise EngineError("{} was not written by this version; build it again".format(path))
    if not _is_whole(sidecar) or sidecar["name"] != Path(path).stem:
        raise EngineError("{} is damaged; build it again".format(path))
    return sidecar


def _is_whole(sidecar: Dict[str, Any]) -> bool:
    texts = ["name", "backend", "precision", "target", "status", "reason", "onnx", "onnx_sha256"]
    if sidecar.get("status") == "built":
        texts += ["file", "sha256"]
    if not all(isinstance(sidecar.get(text), str) for text in texts):
        return False
    names = [sidecar[text] for text in ("name", "onnx", "file") if text in texts]
    return (
        sidecar["status"] in ("built", "unavailable")
        and sidecar["backend"] in MODULES
        and sidecar["precision"] in PRECISIONS
        and isinstance(sidecar.get("depends"), dict)
        and isinstance(sidecar.get("options", {}), dict)
        # No path out of the folder, and nothing that is no file name.
        and all(n and Path(n).name == n != ".." and n.isprintable() for n in names)
    )


def read_sidecars(folder: Union[str, Path]) -> List[Dict[str, Any]]:
    """Those of every engine in a folder, in the order of `MODULES` and `PRECISIONS`."""
    sidecars = [read_sidecar(path) for path in sorted(Path(folder).glob("[!.]*.json"))]
    backends = list(MODULES)
    return sorted(
        sidecars,
        key=lambda s: (backends.index(s["backend"]), PRECISIONS.index(s["precision"]), s["target"]),
    )


def is_made_of(sidecar: Dict[str, Any], graphs: Path) -> bool:
    """Whether an engine was built from the graph of its name that is in a folder now."""
    graph = graphs / sidecar["onnx"]
    return graph.is_file() and sha256_of(graph) == sidecar["onnx_sha256"]


def load_engine(folder: Union[str, Path], sidecar: Dict[str, Any]) -> Engine:
    """Load an engine, after checking that it is for this machine and is the file that was built.

    An engine holds native code or becomes it: one that was changed is never handed on.

    Args:
        folder: where the engine lies.
        sidecar: as `read_sidecar` gives it.

    Raises:
        EngineError: it is for another machine, the file is gone or not the one that was built,
            or does not load here.
    """
    reason = cannot_run(sidecar)
    if reason is not None:
        raise EngineError("{} can't run here: {}".format(sidecar["name"], reason))
    path = Path(folder) / sidecar["file"]
    try:
        data = path.read_bytes()  # once: what is loaded is what was checked
    except OSError as error:
        raise EngineError("{} can't be read: {}".format(path, error.strerror)) from error
    if hashlib.sha256(data).hexdigest() != sidecar["sha256"]:
        raise EngineError("{} is not the file that was built; build it again".format(path))
    engine: Engine = module_of(sidecar["backend"]).load(data, str(path), sidecar["precision"])
    return engine
