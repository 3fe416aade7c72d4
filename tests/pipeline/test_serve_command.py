"""`edgetrt serve`: flags, exit codes, and an end by signal that answers everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from serving import REPOSITORY, add_release, point

from pipeline.cli import main


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "--token-file"),
        (["--port", "70000"], "--port takes 0 to 65535"),
        (["--token-file", "/nowhere"], "can't be read"),
        (["--root", "x", "--bundle", "y"], "not allowed with"),
        (["--engine", "tensorrt"], "are for a --bundle"),
        (["--precision", "fp16"], "are for a --bundle"),
    ],
)
def test_wrong_use_is_told(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["serve", *flags])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err


def test_a_token_is_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETRT_TOKEN", "hush hush")
    assert main(["serve"]) == 2
    assert "hush" not in capsys.readouterr().err


def test_nothing_deployed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--root", str(tmp_path)]) == 1
    assert f"no release is deployed in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_what_is_deployed_until_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    release = add_release(tmp_path)
    point(tmp_path, release)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "serve", "--root", str(tmp_path), "--port", "0"],
        cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stderr
        address = process.stderr.readline().split()[-1]
        assert release in process.stderr.readline()
        with urllib.request.urlopen(f"{address}/v2/models/demo", timeout=20) as response:
            assert json.load(response)["versions"] == [release]
        worker = json.loads((tmp_path / "serve.json").read_text())["worker"]
        process.send_signal(number)
        assert process.wait(30) == 0
    end = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not (tmp_path / "serve.json").exists()
    assert os.listdir(tmp_path / "releases") == [release]
