"""What this machine has, what it can therefore build and run, and what to install for the rest."""

from typing import Any

from engines.catalogue import MODULES, TENSORFLOW, module_of, runs_here
from engines.targets import find_gpus, find_jetson, precisions
from engines.tensorflow_graph import unavailable as tensorflow_unavailable
from pipeline.run import versions


def examine() -> dict[str, Any]:
    """Look at the machine; nothing is changed on it.

    Returns:
        "versions", "jetson" (or None), "gpus", and for each backend whether it "builds" and
        "runs" here, with the "reason" why it does not.
    """
    jetson = find_jetson()
    backends: dict[str, dict[str, Any]] = {
        TENSORFLOW: {
            "builds": tensorflow_unavailable() is None,
            "runs": tensorflow_unavailable() is None,
            "reason": tensorflow_unavailable() or "",
        }
    }
    for name in MODULES:
        reason = module_of(name).unavailable()
        builds, runs = reason is None, runs_here(name)
        if builds and not runs:
            reason = "builds engines for other machines; this one can't run them"
        backends[name] = {"builds": builds, "runs": runs, "reason": reason or ""}
    return {
        "versions": versions(),
        "jetson": _jetson(*jetson) if jetson else None,
        "gpus": [
            {
                "name": gpu.name,
                "compute_capability": list(gpu.compute_capability),
                "precisions": precisions(gpu.compute_capability),
            }
            for gpu in find_gpus()
        ],
        "backends": backends,
    }


def describe(found: dict[str, Any]) -> str:
    """What `examine` found, for people."""
    installed = found["versions"]
    lines = ["installed: " + ", ".join(f"{name} {number}" for name, number in installed.items())]
    if found["jetson"]:
        board = found["jetson"]
        lines.append(
            f"Jetson: {board['model']} ({board['family']}), TensorRT up to {board['tensorrt']}, "
            f"{_suited(board)}"
        )
    gpus = [f"{gpu['name']}, {_suited(gpu)}" for gpu in found["gpus"]]
    lines.append("NVIDIA GPU: " + ("; ".join(gpus) or "none"))
    for name, state in found["backends"].items():
        can = [verb for verb in ("builds", "runs") if state[verb]]
        lines.append(
            f"{name:13} {' and '.join(can) or 'not here':16}"
            + (f"  {state['reason']}" if state["reason"] else "")
        )
    return "\n".join(line.rstrip() for line in lines)


def _suited(gpu: dict[str, Any]) -> str:
    """ "made for fp32, fp16; not for int8", of what has "precisions"."""
    made = [name for name, yes in gpu["precisions"].items() if yes]
    rest = [name for name, yes in gpu["precisions"].items() if not yes]
    return f"made for {', '.join(made)}" + (f"; not for {', '.join(rest)}" if rest else "")


def _jetson(model: str, family: Any) -> dict[str, Any]:
    return {
        "model": model,
        "family": family.name,
        "tensorrt": family.tensorrt,
        "precisions": precisions(family.compute_capability),
    }
