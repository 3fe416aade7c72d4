"""What the machine is and does while engines are measured: clocks, heat, power mode, load.

Numbers of two runs can be held against each other only where these agree.
"""

from pathlib import Path
from typing import Any, Dict

from benchmarks.conditions import jetson, kernel, processor
from benchmarks.conditions.clocks import ClocksProbe
from benchmarks.conditions.differences import differences
from benchmarks.conditions.processor import cpu_name
from engines.engine import processors
from engines.targets import find_board, find_gpus

__all__ = ["ClocksProbe", "cpu_name", "differences", "look"]


def look(root: Path = Path("/")) -> Dict[str, Any]:
    """The conditions now, for JSON; what this machine does not tell is None or empty.

    Args:
        root: where the system's files are.

    Returns:
        "machine": the Jetson or the processor.
        "processors": how many this process may use.
        "governor": who chooses the processors' clocks; "mixed" where they differ.
        "cpu_mhz": mean of the processors.
        "load": 1-minute load average.
        "gpus": names.
        "gpu_mhz": of the first.
        "power_mode": of a Jetson, such as "MAXN (0)".
        "jetson_clocks": of a Jetson, whether its clocks are held at their highest.
        "temperatures_c": by the name of the thermal zone.
        "throttled": what holds clocks down now because of heat or power.
    """
    gpus = find_gpus()
    board = find_board(root / "proc/device-tree", root / "etc/nv_tegra_release", gpus)
    clocks = ClocksProbe(root)
    cpu_mhz = clocks.cpu_mhz()
    return {
        "machine": cpu_name(root) if board is None else "Jetson " + board.board.name,
        "processors": processors(),
        "governor": processor.governor(root),
        "cpu_mhz": processor.nominal_mhz(root) if cpu_mhz is None else cpu_mhz,
        "load": _load(root),
        "gpus": [gpu.name for gpu in gpus],
        "gpu_mhz": clocks.gpu_mhz(),
        "power_mode": jetson.power_mode(root),
        "jetson_clocks": None if board is None else jetson.clocks_are_held(root),
        "temperatures_c": clocks.temperatures(),
        "throttled": clocks.throttled() or [],
    }


def _load(root: Path) -> Any:
    words = kernel.read(root / "proc/loadavg").split()
    return kernel.number(words[0]) if words else None
