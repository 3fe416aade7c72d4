"""Clocks, heat and what they are throttled by, cheap enough to be read while engines run."""

import re
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Union

from benchmarks import nvml
from benchmarks.conditions import jetson, kernel
from benchmarks.conditions.processor import CPUS
from benchmarks.conditions.throttling import Throttling

# Processors whose clock is asked for: on a PC, each is interrupted for it.
MOST_PROCESSORS = 16

# Thermal zones that tell no temperature: the TX2's PMIC-Die says 50 or 100 degrees for ever.
UNBELIEVABLE = re.compile("PMIC", re.IGNORECASE)
HOTTEST = 150.0  # degrees; a silicon chip that says more has a broken sensor


class ClocksProbe:
    """Reads clocks, the hottest temperature and throttling, for a `Monitor`.

    The files are looked for once. No clock is taken from /proc/cpuinfo here: it is long, and in
    virtual machines never changes.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        """Find the files.

        Args:
            root: where the system's files are.
        """
        self._cpus = kernel.find(root, CPUS + "scaling_cur_freq")[:MOST_PROCESSORS]
        gpu = jetson.gpu_folder(root)
        self._gpu = None if gpu is None else gpu / "cur_freq"
        self._zones = kernel.thermal(root, "thermal_zone", "temp")
        self._nvml = nvml.find() if gpu is None else None
        self._throttling = Throttling(root, self._nvml)

    def read(self) -> Dict[str, float]:
        """What can be read of "cpu_mhz", "gpu_mhz", "temperature_c" and "throttled" (0 or 1)."""
        believable = [t for name, t in self.temperatures().items() if _is_believable(name, t)]
        throttled = self.throttled()
        values = {
            "cpu_mhz": self.cpu_mhz(),
            "gpu_mhz": self.gpu_mhz(),
            "temperature_c": max(believable) if believable else None,
            "throttled": None if throttled is None else float(bool(throttled)),
        }
        return {name: value for name, value in values.items() if value is not None}

    def cpu_mhz(self) -> Optional[float]:
        """Mean clock of the processors."""
        clocks = _numbers(self._cpus)
        return sum(clocks) / len(clocks) / 1000 if clocks else None

    def gpu_mhz(self) -> Optional[float]:
        """Clock of the GPU."""
        if self._nvml is not None:
            return self._nvml.mhz()
        clocks = _numbers([] if self._gpu is None else [self._gpu])
        return clocks[0] / 1e6 if clocks else None

    def temperatures(self) -> Dict[str, float]:
        """Degrees of each thermal zone that tells any, and of a PC's GPU."""
        found = {}
        for name, file in self._zones.items():
            millidegrees = kernel.number(kernel.read(file))
            if millidegrees is not None:
                found[name] = millidegrees / 1000
        degrees = None if self._nvml is None else self._nvml.temperature()
        if degrees is not None:
            found["GPU"] = degrees
        return found

    def throttled(self) -> Optional[List[str]]:
        """What holds clocks down because of heat or power (see `Throttling.told`)."""
        return self._throttling.told()


def _is_believable(zone: str, degrees: float) -> bool:
    return degrees <= HOTTEST and not UNBELIEVABLE.search(zone)


def _numbers(files: Iterable[Union[str, Path]]) -> List[float]:
    """What files say, without those that say nothing, or 0 as a clock does that stands still."""
    values = [kernel.number(kernel.read(file)) for file in files]
    return [value for value in values if value is not None and value > 0]
