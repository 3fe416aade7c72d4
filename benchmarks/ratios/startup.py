"""How long a person waits: for the help, and for the whole demo on a fresh clone."""

import sys
from pathlib import Path
from typing import List

from benchmarks.ratios.command import progress, scratch, timed
from benchmarks.ratios.figure import Figure, amount

ROUNDS = 20


def measure(_pictures: Path) -> List[Figure]:
    """Time `edgetrt --help`, then `make demo` on a clone of this repository's last commit.

    The demo lays out its own pictures.
    """
    command = [sys.executable, "-m", "pipeline.cli", "--help"]
    help_seconds = [timed(command).seconds for _ in range(ROUNDS)]
    with scratch() as folder:
        clone = folder / "clone"
        repository = Path(__file__).parents[2]
        timed(["git", "clone", "--quiet", str(repository), str(clone)])
        progress("startup: make demo on a fresh clone, environment included")
        demo = timed(["make", "--silent", "-C", str(clone), "demo"])
    return [
        amount("edgetrt --help", "s", help_seconds, 0.3),
        amount("make demo on a fresh clone, install included", "min", [demo.seconds / 60], 6),
    ]
