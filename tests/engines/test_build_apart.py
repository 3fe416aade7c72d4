"""What becomes of the process that builds, however it ends."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from engines.engine import EngineError
from engines.settings import DEFAULT
from engines.tensorrt import apart

BEGIN = """
import json, os, sys
json.loads(sys.stdin.readline())
def tell(kind, what):
    sys.stdout.write(json.dumps({kind: what}) + "\\n")
    sys.stdout.flush()
"""
MADE = {"options": {"dialect": "of a test"}, "layers": None}


def build(monkeypatch: pytest.MonkeyPatch, script: str, folder: Path) -> dict[str, Any]:
    """Let a worker build that does what a script says."""
    monkeypatch.setattr(apart, "START", BEGIN + textwrap.dedent(script))
    arguments = (str(folder / "a.onnx"), str(folder / "plan"), "fp32", "sm86", DEFAULT)
    return apart.build_apart("tensorrt", *arguments, 1 << 28, None, None)


def test_an_engine_is_built_though_its_layers_could_not_be_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = f"tell('result', {MADE!r}); os.kill(os.getpid(), 9)"
    assert build(monkeypatch, script, tmp_path) == MADE


def test_the_last_word_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = f"tell('result', {MADE!r}); tell('result', dict({MADE!r}, layers=[1]))"
    assert build(monkeypatch, script, tmp_path) == {**MADE, "layers": [1]}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("os.kill(os.getpid(), 9)", "was killed, .* smaller --workspace than 256 MiB"),
        ("sys.stdout.write('{\"resu'); sys.stdout.flush(); os.kill(os.getpid(), 9)", "was killed"),
        ("os.abort()", r"TensorRT crashed on .*a.onnx \(signal 6\)"),
        ("sys.exit('no luck')", r"failed \(exit code 1\): no luck"),
        ("tell('error', 'no such thing')", "^no such thing$"),
    ],
)
def test_what_is_said_of_a_death(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        build(monkeypatch, script, tmp_path)
