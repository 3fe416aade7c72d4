"""What this machine has, what it can therefore build and run, and what to install for the rest."""

import importlib
import platform
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, Optional

from engines.catalogue import PRECISIONS, TENSORFLOW, backends_here
from engines.targets import (
    FoundBoard,
    find_board,
    find_cuda,
    find_gpus,
    precisions,
)
from engines.tensorflow_graph import unavailable as tensorflow_unavailable


def examine(versions: Dict[str, str]) -> Dict[str, Any]:
    """Look at the machine; nothing is changed on it.

    Args:
        versions: of what is installed, by name.

    Returns:
        "versions", "board" (or None), "cuda" (the newest that the driver runs, or None), "gpus",
        and for each backend whether it "builds" and "runs" here, with the "reason" why it does
        not.
    """
    gpus = find_gpus()
    board = find_board(gpus=gpus)
    backends = {TENSORFLOW: _backend(tensorflow_unavailable(), None)}
    for name, (_, cannot_build, cannot_run) in backends_here().items():
        backends[name] = _backend(cannot_build, cannot_run)
    return {
        "versions": versions,
        "board": _board(board) if board else None,
        "cuda": find_cuda(),
        "gpus": [
            {
                "name": gpu.name,
                "compute_capability": list(gpu.compute_capability),
                "precisions": precisions(gpu.compute_capability),
            }
            for gpu in gpus
        ],
        "backends": backends,
    }


def describe(found: Dict[str, Any]) -> str:
    """What `examine` found, for people."""
    installed = ["{} {}".format(*pair) for pair in found["versions"].items()]
    lines = ["installed: " + ", ".join(installed)]
    if found["board"]:
        board = found["board"]
        facts = [
            "{} ({})".format(board["model"], board["name"]) if board["model"] else board["name"],
            "L4T " + board["l4t"] if board["l4t"] else "",
            "JetPack " + board["jetpack"] if board["jetpack"] else "",
            "TensorRT up to " + board["tensorrt"],
            _suited(board),
        ]
        lines.append("Jetson: " + ", ".join(fact for fact in facts if fact))
    gpus = ["{}, {}".format(gpu["name"], _suited(gpu)) for gpu in found["gpus"]]
    lines.append("NVIDIA GPU: " + ("; ".join(gpus) or "none"))
    lines.append("CUDA: " + (found["cuda"] or "no driver"))
    for name, state in found["backends"].items():
        can = " and ".join(verb for verb in ("builds", "runs") if state[verb])
        lines.append("{:13} {:16}  {}".format(name, can or "not here", state["reason"]))
    return "\n".join(line.rstrip() for line in lines)


def device_versions() -> Dict[str, str]:
    """Versions of what a device needs, where it is installed, and of TensorFlow."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "tensorrt", "pycuda", "cv2"):
        version = module_version(name)
        if version:
            found[name] = version
    version = _tensorflow_version()
    if version:
        found["tensorflow"] = version
    return found


def module_version(name: str) -> Optional[str]:
    """The version that a module gives of itself; None if it can't be imported."""
    try:
        module = importlib.import_module(name)
    except Exception:  # a library that misses one of its own fails in many ways
        return None
    # pycuda has its version in VERSION_TEXT.
    version = getattr(module, "__version__", None) or getattr(module, "VERSION_TEXT", None)
    return str(version or "of unknown version")


def _tensorflow_version() -> Optional[str]:
    """TensorFlow's version by the name of its metadata folder: its import takes seconds."""
    spec = find_spec("tensorflow")
    if spec is None or not spec.origin:
        return None
    for entry in Path(spec.origin).parents[1].glob("*tensorflow*-info"):
        number = re.match(
            r"(?:nvidia_)?tensorflow(?:_gpu|_cpu)?-([^-]+)(?:-py[0-9.]+)?\.(?:dist|egg)-info$",
            entry.name,
        )
        if number:
            return number.group(1)
    return "of unknown version"


def _suited(gpu: Dict[str, Any]) -> str:
    """ "made for fp32, fp16; not for int8", of what has "precisions"."""
    made = [name for name in PRECISIONS if gpu["precisions"][name]]
    rest = [name for name in PRECISIONS if not gpu["precisions"][name]]
    return "made for " + ", ".join(made) + ("; not for " + ", ".join(rest) if rest else "")


def _backend(cannot_build: Optional[str], cannot_run: Optional[str]) -> Dict[str, Any]:
    """What of a backend goes here; `cannot_run` is why what it builds does not run."""
    reason = cannot_build or (cannot_run and "its engines don't run: " + cannot_run)
    return {
        "builds": cannot_build is None,
        "runs": cannot_build is None and cannot_run is None,
        "reason": reason or "",
    }


def _board(found: FoundBoard) -> Dict[str, Any]:
    return {
        "model": found.model,
        "name": found.board.name,
        "l4t": found.l4t,
        "jetpack": found.jetpack,
        "tensorrt": found.board.jetpacks[-1].tensorrt,
        "precisions": precisions(found.board.compute_capability),
    }
