"""The GPU of a PC, by NVIDIA's management library (package nvidia-ml-py)."""

import ctypes
import importlib
from typing import Any, List, Optional

# Reasons for which a GPU is held below its clocks that mean heat or power; the others are its
# own choice (idle, clocks that somebody set). Source: nvml.h, nvmlClocksEventReason*.
REASONS = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
# What tells them: the name since driver 535, and the one before, which goes with CUDA 14.
ASKED_BY = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")


class Nvml:
    """The GPU that engines run on.

    Attributes:
        nvml: the module pynvml, initialized.
        handle: the GPU's, for its functions.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle

    def mhz(self) -> Optional[float]:
        """Clock of its multiprocessors."""
        return self._ask("nvmlDeviceGetClockInfo", self.nvml.NVML_CLOCK_SM)

    def temperature(self) -> Optional[float]:
        """Degrees Celsius."""
        return self._ask("nvmlDeviceGetTemperature", self.nvml.NVML_TEMPERATURE_GPU)

    def throttled(self) -> Optional[List[str]]:
        """Which of `REASONS` hold now; None where it does not tell."""
        for name in ASKED_BY:
            reasons = self._ask(name)
            if reasons is not None:
                return [why for bit, why in REASONS.items() if int(reasons) & bit]
        return None

    def _ask(self, function: str, *what: Any) -> Optional[float]:
        try:
            return float(getattr(self.nvml, function)(self.handle, *what))
        except (self.nvml.NVMLError, AttributeError):  # not every GPU, or library, tells all
            return None


def find() -> Optional[Nvml]:
    """The GPU that CUDA calls its first; None where there is none, or no library."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()  # counts; nothing is lost where it is never shut down
        bus = _bus()
        return None if bus is None else Nvml(nvml, nvml.nvmlDeviceGetHandleByPciBusId(bus))
    except nvml.NVMLError:
        return None


def _bus() -> Optional[bytes]:
    """Where CUDA's first GPU is plugged in; NVML counts GPUs in another order."""
    device, bus = ctypes.c_int(0), ctypes.create_string_buffer(32)
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        if (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(device), 0)
            or cuda.cuDeviceGetPCIBusId(bus, len(bus), device)
        ):
            return None
    except (OSError, AttributeError):
        return None
    return bus.value
