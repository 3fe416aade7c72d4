"""Power of a PC's GPU, by NVIDIA's management library."""

import importlib.util
from typing import Any, Dict, Optional, Tuple

from benchmarks import nvml
from benchmarks.power.source import PowerSource, Rail
from engines.targets import find_gpus
from engines.text import printable


class NvmlPower(PowerSource):
    """Reads the GPU that engines run on, CUDA's first.

    "power_w" is an average over the last second on GPUs since Ampere; "energy_j", by a counter
    that GPUs since Volta have, is not. Source: nvml.h.
    """

    sees = frozenset(["gpu"])

    def __init__(self, gpu: nvml.Nvml) -> None:
        self._nvml, self._handle = gpu.nvml, gpu.handle
        name, count = self._ask("nvmlDeviceGetName"), self._count()
        if isinstance(name, bytes):  # nvidia-ml-py before 12
            name = name.decode("utf-8", "replace")
        rails = [Rail("GPU ({})".format(printable(name or "?")), True, "the card with its memory")]
        if count > 1:
            rails.append(Rail("other GPUs", False, "engines run on the first"))
        super().__init__("NVML", rails)

    def read(self) -> Dict[str, float]:
        """Read "power_w" and "energy_j", as far as the GPU tells them."""
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        values = {"power_w": milliwatts, "energy_j": millijoules}
        return {key: value / 1000 for key, value in values.items() if value is not None}

    def _ask(self, function: str) -> Any:
        try:
            return getattr(self._nvml, function)(self._handle)
        except (self._nvml.NVMLError, AttributeError):  # not every GPU, or library, tells all
            return None

    def _count(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetCount())
        except self._nvml.NVMLError:
            return 1


def find() -> Tuple[Optional[PowerSource], Optional[str]]:
    """The GPU's power; without it the reason, or None where there is no GPU."""
    gpu = nvml.find()
    if gpu is not None:
        source = NvmlPower(gpu)
        if "power_w" in source.read():
            return source, None
        return None, "the GPU does not tell its power"
    if not find_gpus():
        return None, None
    if importlib.util.find_spec("pynvml") is None:
        return None, "reading a GPU's power needs nvidia-ml-py: pip install nvidia-ml-py"
    return None, "NVIDIA's management library (NVML) finds no GPU"
