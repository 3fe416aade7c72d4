"""The device program as it is started: through a link, and by whom it is not watched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.device.cli import main

ROOT = Path(__file__).parents[2]


def test_a_server_started_through_a_link_begins_anew_by_its_real_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "releases").mkdir()
    program = tmp_path / "releases" / "program.pyz"
    program.touch()
    (tmp_path / "current").symlink_to("releases")
    started: list[list[str]] = []

    def start(_program: str, words: list[str]) -> None:
        started.append(words)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", start)
    arguments = ["serve", "--root", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "current" / "program.pyz"), *arguments])
    with pytest.raises(SystemExit):
        main(arguments)
    assert started == [[sys.executable, str(program.resolve()), *arguments]]
    monkeypatch.setattr(sys, "argv", [str(program.resolve()), *arguments])
    assert main(arguments) == 1  # nothing is deployed there, and it did not begin anew


@pytest.mark.parametrize("port", ["65536", "-1", "x", "\xb2"])
def test_a_port_that_is_none_is_refused_before_anything_is_done(
    port: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["install", str(tmp_path / "model.edgetrt"), "--port", port])
    assert caught.value.code == 2
    assert "--port" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--engine", "tensorrt"], "are for a --bundle"),
        (["--precision", "fp16"], "are for a --bundle"),
        (["--root", "x", "--bundle", "y"], "not allowed with"),
    ],
)
def test_flags_that_would_say_nothing_are_refused(
    flags: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["serve", *flags])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("program", ["pipeline.cli", "benchmarks.device.cli"])
def test_no_library_counts_what_is_done(program: str) -> None:
    code = f"""
import os, sys
from {program} import main
try:
    main(["--version"])
except SystemExit:
    print(os.environ["ORT_DISABLE_TELEMETRY"], sys.modules["openvino_telemetry"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "1 None", done.stderr
