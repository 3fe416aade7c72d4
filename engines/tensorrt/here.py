"""The GPU that engines run on here, and whether an engine is for it."""

from typing import Any, Dict, Optional

from engines.targets import Gpu, find_board, find_gpus


def gpu_here() -> Optional[Gpu]:
    """The first GPU, the one that engines are built for and run on."""
    gpus = find_gpus()
    return gpus[0] if gpus else None


def target_of(gpu: Gpu) -> str:
    """Its compute capability as the name of a target: "sm62"."""
    return "sm{}{}".format(*gpu.compute_capability)


def why_no_gpu() -> Optional[str]:
    """Why there is no GPU to run TensorRT's engines on; None if there is one."""
    if gpu_here() is not None:
        return None
    if find_board(gpus=()) is not None:
        return "CUDA finds no GPU on this Jetson; is this user in the group that may, video?"
    return "there is no NVIDIA GPU here"


def why_elsewhere(sidecar: Dict[str, Any], version: Optional[str]) -> Optional[str]:
    """Why an engine is not for this machine; None if it is.

    Args:
        sidecar: of an engine, with "target" and "depends".
        version: of the TensorRT at hand; None if there is none.
    """
    gpu, depends = gpu_here(), sidecar["depends"]
    if gpu is None:
        return "it was built for {}; {}".format(sidecar["target"], why_no_gpu())
    text = None
    if sidecar["target"] != target_of(gpu):
        text = "for {}; this GPU is {}".format(sidecar["target"], target_of(gpu))
    elif depends.get("gpu", gpu.name) != gpu.name:
        text = "for a {}; this is a {}".format(depends["gpu"], gpu.name)
    elif version is not None and depends.get("tensorrt") != version:
        text = "by TensorRT {}; this is {}".format(depends.get("tensorrt"), version)
    return text and "it was built {}: build it here".format(text)
