"""The processors: what they are called and who chooses their clocks."""

import platform
import re
from pathlib import Path
from typing import List, Optional

from benchmarks.conditions import kernel

CPUS = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/"


def cpu_name(root: Path = Path("/")) -> str:
    """The processor's name, the same from call to call.

    Kernels for ARM often give numbers only: who made a core, and which part it is.
    """
    names = _said(root, "model name") or _said(root, "Hardware")
    if names:
        return names[0]
    makers, parts = _said(root, "CPU implementer"), _said(root, "CPU part")
    cores = sorted({"{} {}".format(maker, part) for maker, part in zip(makers, parts)})
    if cores:
        return "{} ({})".format(platform.machine(), ", ".join(cores))
    return platform.processor() or platform.machine() or "unknown"


def governor(root: Path) -> Optional[str]:
    """Who chooses the processors' clocks, such as "schedutil"; "mixed" where they differ."""
    files = kernel.find(root, CPUS + "scaling_governor")
    found = {kernel.read(file) for file in files} - {""}
    return found.pop() if len(found) == 1 else "mixed" if found else None


def nominal_mhz(root: Path) -> Optional[float]:
    """Mean clock by /proc/cpuinfo: of a virtual machine, the one it is said to have."""
    clocks = [kernel.number(said) for said in _said(root, "cpu MHz")]
    known = [clock for clock in clocks if clock]
    return sum(known) / len(known) if known else None


def _said(root: Path, key: str) -> List[str]:
    """What /proc/cpuinfo says after `key`, of each processor that it is said of."""
    text = "".join(c for c in _cpuinfo(root) if c.isprintable() or c in "\t\n")
    lines = re.findall(r"^{}[ \t]*:(.*)$".format(key), text, re.MULTILINE)
    return [line.strip() for line in lines if line.strip()]


def _cpuinfo(root: Path) -> str:
    # Longer than what `kernel.read` takes: the kernel gives it page by page.
    try:
        return (root / "proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
