"""The machine that engines are built for and measured on."""

import platform
from typing import Any

from engines.engine import processors
from engines.targets import find_gpus


def machine() -> dict[str, Any]:
    """What of this machine decides what can be built on it, and how fast that is."""
    return {
        "cpu": _cpu(),
        "processors": processors(),
        "gpus": [gpu.name for gpu in find_gpus()],
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            lines = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
    except OSError:
        lines = []
    return lines[0] if lines else platform.processor() or "unknown"
