"""Power of Intel's and AMD's processors, by their energy counters (RAPL)."""

import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from benchmarks.conditions import kernel
from benchmarks.power.source import PowerSource, Rail

ZONES = "sys/class/powercap/intel-rapl:*"  # AMD's have this name too
RISES_WITHIN = 0.1  # seconds; the counters move every millisecond

NONE = "no RAPL counters in /sys/class/powercap; virtual machines have none"
NOT_ALLOWED = (
    "RAPL's counters may be read by root only (CVE-2020-8694); until the next start, "
    "`sudo chmod o+r /sys/class/powercap/intel-rapl:*/energy_uj` allows everyone"
)
STILL = "RAPL's counters stand still, as in some virtual machines"

# By how a zone's name begins, whether it counts. Source: Linux, Documentation/power/powercap
# and drivers/powercap/intel_rapl_common.c.
DOMAINS = (
    ("package", True, "a processor with all its cores"),
    ("dram", True, "memory, which is not in package"),
    ("core", False, "part of package"),
    ("uncore", False, "part of package"),
    ("psys", False, "the whole platform: package is in it"),
)


class Zone(NamedTuple):
    """A counter, in microjoules; from `most` it goes back to 0."""

    rail: Rail
    file: Path
    most: float


class Rapl(PowerSource):
    """Adds up what the counters of processors and memory rose by."""

    sees = frozenset(["cpu"])

    def __init__(self, zones: List[Zone], rails: List[Rail]) -> None:
        """Counting begins with the first reading.

        Args:
            zones: those that count.
            rails: all of them.
        """
        super().__init__("RAPL", rails)
        self._zones = zones
        self._last: Optional[Tuple[float, List[float]]] = None
        self._joules = 0.0

    def read(self) -> Dict[str, float]:
        """Read "energy_j", from 0 on, and from the second reading on "power_w" since the last."""
        now = time.perf_counter()
        counts = []
        for zone in self._zones:
            count = kernel.number(kernel.read(zone.file))
            if count is None:
                return {}
            counts.append(count)
        last, self._last = self._last, (now, counts)
        if last is None:
            return {"energy_j": self._joules}
        then, before = last
        joules = sum(
            (count - old if count >= old else count - old + zone.most) * 1e-6
            for count, old, zone in zip(counts, before, self._zones)
        )
        self._joules += joules
        found = {"energy_j": self._joules}
        if now > then:
            found["power_w"] = joules / (now - then)
        return found


def find(root: Path) -> Tuple[Optional[PowerSource], Optional[str]]:
    """The counters of this machine's processors; without any, the reason."""
    zones, rails = [], []
    for folder in kernel.find(root, ZONES):
        zone = _zone(folder)
        if zone is not None:
            rails.append(zone.rail)
            zones += [zone] if zone.rail.included else []
    if not any(zone.rail.name.startswith("package") for zone in zones):
        return None, NOT_ALLOWED if _is_forbidden(root) else NONE
    source = Rapl(zones, rails)
    source.read()
    time.sleep(RISES_WITHIN)
    return (source, None) if source.read().get("energy_j") else (None, STILL)


def _zone(folder: Path) -> Optional[Zone]:
    name = _name(folder)
    if not name:
        return None
    file = folder / "energy_uj"
    most = kernel.number(kernel.read(folder / "max_energy_range_uj"))
    known = ((counts, why) for domain, counts, why in DOMAINS if name.startswith(domain))
    included, why = next(known, (False, "not known what it is part of"))
    if included and (kernel.number(kernel.read(file)) is None or most is None or most <= 0):
        included, why = False, "can't be read"
    return Zone(Rail(_full_name(folder, name), included, why), file, most or 0.0)


def _full_name(folder: Path, name: str) -> str:
    """A zone's name; that of one inside another begins with the outer one's.

    Folders are called intel-rapl:0 and, inside it, intel-rapl:0:1.
    """
    outer, _, inner = folder.name.rpartition(":")
    if ":" not in outer or not inner:
        return name
    return "{} {}".format(_name(folder.parent / outer) or "?", name)


def _name(folder: Path) -> str:
    return "".join(c for c in kernel.read(folder / "name") if c.isprintable())


def _is_forbidden(root: Path) -> bool:
    for folder in kernel.find(root, ZONES):
        try:
            (folder / "energy_uj").open("rb").close()
        except PermissionError:
            return True
        except OSError:
            continue
    return False
