"""What the tests here share: the known network's files, and the types of the fixtures."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

KNOWN = Path(__file__).parents[2] / "benchmarks" / "device" / "known"
CLASSES = ("bright", "dark", "neither")
ON_DOUBLE = "EDGETRT_DOUBLE" in os.environ

Build = Callable[..., dict[str, Any]]
Built = tuple[Path, dict[str, dict[str, Any]]]  # a folder, and the .json of each precision
