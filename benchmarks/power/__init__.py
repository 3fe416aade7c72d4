"""Power of the machine, from whatever sensor it has, and the energy of one picture."""

from pathlib import Path
from typing import List, Optional, Tuple

from benchmarks.conditions import jetson
from benchmarks.power import ina3221, nvml, rapl, tegrastats
from benchmarks.power.picture import Idle, energy, idle
from benchmarks.power.source import PowerSource, Rail, Sum

__all__ = ["Idle", "PowerSource", "Rail", "energy", "find", "idle"]

NO_SENSOR = "this Jetson has no power sensor that can be seen here, in /sys or by tegrastats"


def find(root: Path = Path("/")) -> Tuple[Optional[PowerSource], Optional[str]]:
    """The best source of power readings here.

    A Jetson's sensors, else its tegrastats. On other machines the GPU (NVML) and the processors
    (RAPL) together, or which of them can be read; the other is among the source's rails, with
    the reason.

    Args:
        root: where the system's files are.

    Returns:
        The source and None, or None and the reason why there is none.
    """
    reasons: List[str] = []
    for source, reason in (look(root) for look in (ina3221.find, tegrastats.find)):
        if source is not None:
            return source, None
        reasons += [] if reason is None else [reason]
    if reasons or jetson.gpu_folder(root) is not None:
        return None, "; ".join(reasons or [NO_SENSOR])
    return _on_pc(root)


def _on_pc(root: Path) -> Tuple[Optional[PowerSource], Optional[str]]:
    sources: List[PowerSource] = []
    missing: List[Rail] = []
    for name, (source, reason) in (("GPU", nvml.find()), ("CPU", rapl.find(root))):
        if source is not None:
            sources.append(source)
        elif reason is not None:
            missing.append(Rail(name, False, reason))
    if not sources:
        return None, "; ".join(rail.why for rail in missing)
    found = sources[0] if len(sources) == 1 else Sum(sources)
    found.rails += missing
    return found, None
