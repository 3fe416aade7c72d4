"""Any number of devices for one test."""

import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from handmade import Bundle
from host import Host
from sshd import Device


class Deployed(NamedTuple):
    """What is on a device that something was deployed to once: to be copied, not to be used."""

    root: Path
    bundle: Bundle


class Fleet:
    """Makes devices, and switches them off in the end.

    Args:
        folder: for their folders; a short path.
        python: their interpreter.
        host: may log in to them, and knows their host keys.
        deployed: what those have that are not bare.
    """

    def __init__(self, folder: Path, python: Path, host: Host, deployed: Deployed) -> None:
        self._folder, self._python, self._host = folder, python, host
        self._deployed = deployed
        self._made: list[Device] = []

    @property
    def first(self) -> Bundle:
        """The release that all have which are not bare."""
        return self._deployed.bundle

    def bare(self, count: int = 1, password: str = "no") -> list[Device]:
        """Devices that nothing was ever deployed to.

        Args:
            password: "yes": they also take the password of an account.
        """
        found = []
        for _ in range(count):
            number = len(self._made)
            made = new_device(self._folder, self._python, self._host, number, password)
            self._made.append(made)
            found.append(made)
        return found

    def idle(self, count: int = 1) -> list[Device]:
        """Devices that have the first release, and no server."""
        found = self.bare(count)
        for device in found:
            # With its hard links and its relative link.
            subprocess.run(["cp", "-a", str(self._deployed.root), str(device.root)], check=True)
        return found

    def serving(self, count: int = 1) -> list[Device]:
        """Devices that serve the first release."""
        found = self.idle(count)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Device.serve, found))
        return found

    def close(self) -> None:
        """Switch all of them off."""
        for device in self._made:
            device.kill_everything()


def new_device(folder: Path, python: Path, host: Host, number: int, password: str = "no") -> Device:
    """A device that is on, and whose host key the host knows."""
    place = Path(tempfile.mkdtemp(prefix="device", dir=folder))
    device = Device(place, f"device{number}", python, host.authorized, password)
    device.start()
    with host.known_hosts.open("a") as file:
        file.write(device.known_host)
    return device
