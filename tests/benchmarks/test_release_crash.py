"""Whenever a deployment dies, the device has a whole working model, and the next one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from releases import quick_disk

REPOSITORY = Path(__file__).parents[2]
SUPPORT = REPOSITORY / "tests" / "pipeline"
__all__ = ["quick_disk"]  # a fixture
FEWEST = 30  # moments to die at; far fewer mean that they were not found


@pytest.mark.parametrize(
    "scenario", ["first", "next", "back", "ill", "other-engines", "other-program"]
)
def test_dying_at_any_change_of_the_disk(scenario: str, quick_disk: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "crashes.py"), scenario, str(quick_disk)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{SUPPORT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > FEWEST
