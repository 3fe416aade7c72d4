"""Logging in by password: of a real account, which the test makes and removes."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from host import Host
from sshd import cannot

PASSWORD = "a horse that no battery staples"


@pytest.fixture
def account() -> Iterator[str]:
    """An account with `PASSWORD`, which may do what root may."""
    if os.getuid() != 0:
        cannot("only root can make an account")
    name = f"edgetrt{os.getpid()}"
    crypted = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True
    ).stdout.strip()
    subprocess.run(
        ["useradd", "--no-create-home", "--non-unique", "--uid", "0", "--gid", "0",
         "--shell", "/bin/sh", "--password", crypted, name], check=True
    )  # fmt: skip
    yield name
    # --force: root's processes are taken for this account's. Nothing of it lies anywhere.
    subprocess.run(["userdel", "--force", name], check=True, capture_output=True)


def test_wrong_and_right_password(fleet: Fleet, host: Host, account: str) -> None:
    (device,) = fleet.bare(password="yes")
    bundle, log = host.bundle(), host.log()
    flags = [str(bundle.file), "--device", f"{account}@127.0.0.1:{device.port}", "--no-serve",
             "--log", str(log)]  # fmt: skip
    said = []
    for password, code in (("wrong " + PASSWORD, 1), (PASSWORD, 0)):
        process = host.start(*flags, EDGETRT_SSH_PASSWORD=password)
        shown = False
        while process.poll() is None:
            shown = shown or PASSWORD in command_lines()
        out, err = process.communicate()
        said += [out, err]
        assert process.returncode == code, out + err
        assert not shown
    assert device.current() == bundle.id
    assert PASSWORD not in "".join(said)
    files = [file for folder in (log, device.home) for file in folder.rglob("*") if file.is_file()]
    assert files
    assert not [file for file in files if PASSWORD.encode() in file.read_bytes()]


def command_lines() -> str:
    """Of every process of this machine, as anyone can read them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1"))
        except OSError:
            continue
    return "\n".join(found)
