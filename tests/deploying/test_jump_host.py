"""Devices behind a jump host of ~/.ssh/config."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fleet import new_device
from host import REPOSITORY, Host
from sshd import USER, Device

CONFIG = """\
Host jump
  HostName 127.0.0.1
  Port {jump}
  User {user}
  IdentityFile {identity}
Host off
  HostName 127.0.0.2
Host board* off
  HostName 127.0.0.1
  Port {board}
  User {user}
  ProxyJump jump
"""


class Behind(NamedTuple):
    """A board behind a jump host, and the home of whoever wants to get there."""

    jump: Device
    board: Device
    home: Path
    identity: Path

    def knows(self, *devices: Device) -> None:
        file = self.home / ".ssh" / "known_hosts"
        file.write_text("".join(device.known_host for device in devices))

    def run(self, *words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        paths = f"{REPOSITORY}:{REPOSITORY}/tests/pipeline"
        return subprocess.run(
            [sys.executable, *words], input=given, capture_output=True, text=True, timeout=120,
            cwd=REPOSITORY, env={**os.environ, "HOME": str(self.home), "PYTHONPATH": paths},
        )  # fmt: skip

    def status(self, device: str) -> "subprocess.CompletedProcess[str]":
        return self.run("-m", "pipeline.cli", "deploy", "--status", "--device", device,
                        "--identity", str(self.identity))  # fmt: skip


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, python: Path, host: Host) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("jump")
    jump, board = (new_device(folder, python, host, number) for number in (0, 1))
    (folder / ".ssh").mkdir()
    (folder / ".ssh" / "config").write_text(
        CONFIG.format(jump=jump.port, board=board.port, user=USER, identity=host.identity)
    )
    yield Behind(jump, board, folder, host.identity)
    for device in (jump, board):
        device.kill_everything()


def test_nobody_is_asked_about_an_unknown_jump_host(behind: Behind) -> None:
    behind.knows(behind.board)
    done = behind.status("board")
    assert done.returncode == 1
    assert "the host key of jump, its jump host by ~/.ssh/config, is not known" in done.stderr
    assert "[y/n]" not in done.stdout + done.stderr


def test_the_device_s_own_key_is_checked_too(behind: Behind) -> None:
    behind.knows(behind.jump)
    done = behind.status("board")
    assert done.returncode == 1
    assert "its host key is not known: ssh-ed25519 SHA256:" in done.stderr


def test_device_that_is_off(behind: Behind) -> None:
    behind.knows(behind.jump, behind.board)
    done = behind.status("off")
    assert done.returncode == 1
    assert (
        f"jump host by ~/.ssh/config, does not reach 127.0.0.2:{behind.board.port}" in done.stderr
    )


def test_connections_to_the_jump_host_are_closed(behind: Behind) -> None:
    behind.knows(behind.jump, behind.board)
    names = ["off", *(f"board{number}" for number in range(8))]
    asked: dict[str, Any] = {
        "devices": [
            {"name": name, "host": name, "identity": str(behind.identity),
             "root": str(behind.board.home / name)}
            for name in names
        ],
        "script": 'step("check"); time.sleep(0.2); step("check", "done"); '
        'say(event="result", release="0123")',
        "rollout": {"canary": 0, "batch": 9, "max_failures": 9, "parallel": 3},
        "known_hosts": str(behind.home / ".ssh" / "known_hosts"),
        "log": None,
    }  # fmt: skip
    done = behind.run(str(Path(__file__).with_name("roll_out.py")), given=json.dumps(asked))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["states"].values()) == ["failed", *["done"] * 8]
    assert found["most_connections"] <= 3 + 1  # the one by which "off" was not reached
    assert found["connections_left"] == 0
