"""What holds clocks down because of heat or power, as far as a machine tells."""

import re
from pathlib import Path
from typing import Dict, List, Optional

from benchmarks import nvml
from benchmarks.conditions import kernel

# Cooling devices that slow something down when their state is above 0; the others are fans,
# warnings, or states that mean something else (Intel's "TCC Offset"). By Linux: cpufreq-cpu0,
# devfreq-17000000.gpu, with "thermal-" before it in some releases. By L4T: cpu-throttle-alert,
# gpu-throttle-alert, bcpu-throttle-alert; emergency-balanced.
THROTTLES = re.compile("(thermal-)?(cpufreq|devfreq)-|.*-(throttle-alert|balanced)")

# Counters of how often it began: for heat, by cores and package of Intel's processors (Linux,
# drivers/thermal/intel/therm_throt.c); for too much current or too little voltage, by an Orin
# (NVIDIA's driver tegra23x-oc-event), if its neighbour "throt_en" is not 0.
HEAT = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"
CURRENT = "sys/class/hwmon/hwmon[0-9]*/oc[0-9]*_event_cnt"
MOST_COUNTERS = 32  # that are read at a time


class Throttling:
    """Reads whatever tells of throttling. The files are looked for once."""

    def __init__(self, root: Path, gpu: Optional[nvml.Nvml]) -> None:
        """Find the files.

        Args:
            root: where the system's files are.
            gpu: of a PC.
        """
        self._gpu = gpu
        coolers = kernel.thermal(root, "cooling_device", "cur_state")
        self._coolers = {name: file for name, file in coolers.items() if THROTTLES.match(name)}
        current = [file for file in kernel.find(root, CURRENT) if _throttles(file)]
        counters = (kernel.find(root, HEAT) + current)[:MOST_COUNTERS]
        self._counters = {str(file.relative_to(root)): file for file in counters}
        self._counts: Dict[str, float] = {}

    def told(self) -> Optional[List[str]]:
        """What holds clocks down now, or began to since the last call; None where nothing tells.

        Counters tell from the second call on, and of what goes on for long only the beginning.
        """
        by_gpu = None if self._gpu is None else self._gpu.throttled()
        states, counts = _numbers(self._coolers), _numbers(self._counters)
        if by_gpu is None and not states and not counts:
            return None
        active = [name for name, state in states.items() if state > 0]
        rose = [name for name, count in counts.items() if count > self._counts.get(name, count)]
        self._counts.update(counts)
        return active + rose + ["GPU: " + reason for reason in by_gpu or []]


def _throttles(counter: Path) -> bool:
    return kernel.read(counter.with_name(counter.name.replace("event_cnt", "throt_en"))) != "0"


def _numbers(files: Dict[str, Path]) -> Dict[str, float]:
    """What files say, without those that can't be read now."""
    values = {name: kernel.number(kernel.read(file)) for name, file in files.items()}
    return {name: value for name, value in values.items() if value is not None}
