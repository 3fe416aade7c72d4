"""Devices to deploy to: real OpenSSH servers on this machine, and the real command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Deployed, Fleet, new_device
from host import Host
from sshd import device_python, need_sshd


@pytest.fixture(scope="session")
def host(cells: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The machine that deploys; its golden pictures are real ones."""
    golden = [files[number].read_bytes() for files in cells.values() for number in (0, 300)]
    return Host(tmp_path_factory.mktemp("host"), golden)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of every device."""
    need_sshd()
    return device_python(tmp_path_factory.mktemp("python") / "python")


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, python: Path, host: Host) -> Deployed:
    """A first release, deployed by the real command line to a device that is switched off now."""
    device = new_device(tmp_path_factory.mktemp("first"), python, host, 0)
    try:
        bundle = host.bundle()
        done = host.deploy(str(bundle.file), *host.to(device), "--no-serve")
        assert done.code == 0, done.said
    finally:
        device.kill_everything()
    return Deployed(device.root, bundle)


@pytest.fixture
def fleet(
    tmp_path_factory: pytest.TempPathFactory, python: Path, host: Host, deployed: Deployed
) -> Iterator[Fleet]:
    """Devices for one test."""
    made = Fleet(tmp_path_factory.mktemp("fleet"), python, host, deployed)
    yield made
    made.close()


@pytest.fixture(scope="module")
def module_fleet(
    tmp_path_factory: pytest.TempPathFactory, python: Path, host: Host, deployed: Deployed
) -> Iterator[Fleet]:
    """Devices for the tests of one file."""
    made = Fleet(tmp_path_factory.mktemp("fleet"), python, host, deployed)
    yield made
    made.close()
