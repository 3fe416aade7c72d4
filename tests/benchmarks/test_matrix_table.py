"""The table of engines; the builds themselves are measured, not tested here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import rtx_matrix
from engines.catalogue import PRECISIONS
from engines.targets import RTX_TARGETS
from pipeline import backbones


def engine(precision: str, target: str, **other: object) -> dict:
    built = {
        "status": "built", "build_seconds": 0.254, "size_bytes": 13_960_000,
        "options": {"warnings": {" scales to fp32": 245}},
    }  # fmt: skip
    return {"precision": precision, "target": target, **built, **other}


def test_table() -> None:
    engines = [engine(precision, target) for precision in PRECISIONS for target in RTX_TARGETS]
    engines[0] = {"precision": "fp32", "target": "sm75", "status": "unavailable", "reason": "no"}
    lines = rtx_matrix.table({"mobilenet_v2": engines}).splitlines()
    assert re.split(r"\s{2,}", lines[0])[1:] == list(RTX_TARGETS)
    assert re.split(r"\s{2,}", lines[1])[:3] == ["mobilenet_v2 fp32", "-", "0.25"]
    assert lines[1].split()[3:5] == ["0.25", "14.0"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert sorted(lines[4:]) == ["1 engines unavailable: no", "17 engines warned: scales to fp32"]


@pytest.mark.parametrize("name", rtx_matrix.BACKBONES)
def test_backbones_exist(name: str) -> None:
    weights = rtx_matrix.BACKBONES[name]
    assert backbones.describe(name, weights, 0)["architecture"] == name


def test_wrong_use() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rtx_matrix", "resnet"],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 2
    assert "resnet is none of efficientnet_lite0" in done.stderr
