"""The machine that engines are built for and measured on."""

from typing import Any

from benchmarks.conditions import cpu_name
from engines.engine import processors
from engines.targets import find_gpus


def machine() -> dict[str, Any]:
    """What of this machine decides what can be built on it, and how fast that is."""
    return {
        "cpu": cpu_name(),
        "processors": processors(),
        "gpus": [gpu.name for gpu in find_gpus()],
    }
