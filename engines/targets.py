"""What each board and GPU can do."""

import ctypes
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

# Compute capabilities that TensorRT-RTX builds for without a GPU, by the name of the target.
# Source: the members of tensorrt_rtx.ComputeCapability, 1.7.1.
RTX_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


class Jetson(NamedTuple):
    """A family of Jetson boards.

    compute_capability: of its GPU. jetpack, tensorrt: the newest for it.
    """

    name: str
    chip: str
    compute_capability: Tuple[int, int]
    jetpack: str
    tensorrt: str


# Sources: jtop's table of chips and JetPack releases (rbonghi/jetson_stats), and NVIDIA's
# release notes for each JetPack.
JETSONS = (
    Jetson("TX1, Nano", "tegra210", (5, 3), "4.6.6", "8.2.1"),
    Jetson("TX2, TX2 NX, TX2i", "tegra186", (6, 2), "4.6.6", "8.2.1"),
    Jetson("Xavier NX, AGX Xavier", "tegra194", (7, 2), "5.1.6", "8.5.2"),
    Jetson("Orin Nano, Orin NX, AGX Orin", "tegra234", (8, 7), "7.2", "10.16.2"),
    Jetson("AGX Thor", "tegra264", (11, 0), "7.2", "10.16.2"),
)


class Gpu(NamedTuple):
    """A GPU that CUDA sees: its name and compute capability."""

    name: str
    compute_capability: Tuple[int, int]


def has_fast_fp16(compute_capability: Tuple[int, int]) -> bool:
    """Whether a GPU computes FP16 faster than FP32.

    Source: NVIDIA's support matrix; 6.1 (GeForce 10, P4) has it at 1/64 of the FP32 rate.
    """
    return compute_capability in ((5, 3), (6, 0), (6, 2)) or compute_capability >= (7, 0)


def has_int8(compute_capability: Tuple[int, int]) -> bool:
    """Whether a GPU has INT8 instructions (DP4A or tensor cores).

    Source: CUDA's table of compute capabilities: from 6.1 on, but not 6.2, the TX2.
    """
    return compute_capability >= (6, 1) and compute_capability != (6, 2)


def find_jetson(device_tree: str = "/proc/device-tree") -> Optional[Tuple[str, Jetson]]:
    """The Jetson this is: the model's own name and its family; None on anything else.

    Args:
        device_tree: folder with the files "model" and "compatible".
    """
    try:
        compatible = (Path(device_tree) / "compatible").read_bytes().decode("ascii", "replace")
        model = (Path(device_tree) / "model").read_bytes().decode("ascii", "replace")
    except OSError:
        return None
    for jetson in JETSONS:
        if jetson.chip in compatible:
            return model.strip("\0\n "), jetson
    return None


def find_gpus() -> List[Gpu]:
    """The GPUs that NVIDIA's driver shows; none where there is no driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    gpus = []
    for number in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
        if cuda.cuDeviceGet(ctypes.byref(device), number) != 0:
            continue
        cuda.cuDeviceGetName(name, len(name), device)
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        major, minor = (_attribute(cuda, attribute, device) for attribute in (75, 76))
        gpus.append(Gpu(name.value.decode("utf-8", "replace"), (major, minor)))
    return gpus


def precisions(compute_capability: Tuple[int, int]) -> Dict[str, bool]:
    """For each precision, whether a GPU is the faster for it."""
    return {
        "fp32": True,
        "fp16": has_fast_fp16(compute_capability),
        "int8": has_int8(compute_capability),
    }


def _attribute(cuda: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
