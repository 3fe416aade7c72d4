"""The GPU that engines run on here, and whether an engine is for it."""

from typing import Any, Dict, Optional

from engines.targets import Gpu, find_gpus
from engines.tensorrt import memory


def gpu_here() -> Optional[Gpu]:
    """The first GPU, the one that engines are built for and run on."""
    gpus = find_gpus()
    return gpus[0] if gpus else None


def target_of(gpu: Gpu) -> str:
    """Its compute capability as the name of a target: "sm62"."""
    return "sm{}{}".format(*gpu.compute_capability)


def why_none_runs() -> Optional[str]:
    """Why no TensorRT engine at all can run on this machine; None if some could."""
    if gpu_here() is None:
        return "there is no NVIDIA GPU here"
    return memory.unavailable()


def why_elsewhere(sidecar: Dict[str, Any], version: Optional[str]) -> Optional[str]:
    """Why an engine is not for this machine; None if it is.

    Args:
        sidecar: of an engine, with "target" and "depends".
        version: of the TensorRT at hand; None if there is none.
    """
    gpu, depends = gpu_here(), sidecar["depends"]
    if gpu is None:
        return "it was built for {}; there is no NVIDIA GPU here".format(sidecar["target"])
    if sidecar["target"] != target_of(gpu):
        return "it was built for {}; this GPU is {}".format(sidecar["target"], target_of(gpu))
    if depends.get("gpu", gpu.name) != gpu.name:
        return "it was built for a {}; this is a {}".format(depends["gpu"], gpu.name)
    if version is not None and depends.get("tensorrt") != version:
        return "it was built by TensorRT {}; this is {}".format(depends.get("tensorrt"), version)
    return None
