"""The machine that deploys, and its command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import handmade
from handmade import Bundle, Key
from sshd import USER, Device, new_key

REPOSITORY = Path(__file__).parents[2]


class Done(NamedTuple):
    """A command that ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        return self.stdout + self.stderr


class Host:
    """The machine that deploys: its keys, the host keys it knows, and its command line.

    Attributes:
        identity: private key for SSH.
        authorized: the line that lets it into a device.
        key: signs its bundles.
    """

    def __init__(self, folder: Path, golden: list[bytes]) -> None:
        self.folder, self._golden = folder, golden
        self.identity = folder / "identity"
        self.authorized = new_key(self.identity)
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.touch()
        self.key = handmade.new_key(folder, "signing")
        self._seeds = iter(range(1, 10**6))
        self._logs = iter(range(1, 10**6))

    def bundle(
        self,
        before: handmade.Change | None = None,
        after: handmade.Change | None = None,
        key: Key | None = None,
    ) -> Bundle:
        """A bundle that no device has seen; see `handmade.make`."""
        return handmade.make(
            self.folder, next(self._seeds), key or self.key, self._golden, before, after
        )

    def inventory(self, devices: list[Device], ports: dict[str, int] | None = None) -> Path:
        """An inventory of devices.

        Args:
            ports: other ports than their own to reach some of them by, by name.
        """
        lines = ["[defaults]", f'user = "{USER}"', f'identity = "{self.identity}"']
        for device in devices:
            port = (ports or {}).get(device.name, device.port)
            lines += [f"[devices.{device.name}]", 'host = "127.0.0.1"', f"port = {port}"]
        file = self.folder / f"inventory{next(self._logs)}.toml"
        file.write_text("\n".join(lines) + "\n")
        return file

    def log(self) -> Path:
        """A folder for the log of one deployment."""
        return self.folder / f"log{next(self._logs)}"

    def to_all(self, devices: list[Device], ports: dict[str, int] | None = None) -> list[str]:
        """The flags that deploy to many at once, however many of them fail; see `inventory`."""
        return ["--inventory", str(self.inventory(devices, ports)), "--log", str(self.log()),
                "--canary", "0", "--max-failures", str(len(devices))]  # fmt: skip

    def to(self, device: Device, port: int | None = None) -> list[str]:
        """The flags that deploy to one device.

        Args:
            port: another one to reach it by.
        """
        return ["--device", f"{USER}@127.0.0.1:{port or device.port}",
                "--identity", str(self.identity)]  # fmt: skip

    def start(self, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
        """Start `edgetrt deploy`; the engine is ONNX Runtime unless said otherwise."""
        words = [sys.executable, "-m", "pipeline.cli", "deploy", *arguments]
        if "--known-hosts" not in arguments:
            words += ["--known-hosts", str(self.known_hosts)]
        if "--log" not in arguments:
            words += ["--log", str(self.log())]
        acts = not {"--status", "--rollback"} & set(arguments)
        if acts and "--engine" not in arguments:
            words += ["--engine", "onnxruntime"]
        if acts and "--trust" not in arguments:
            words += ["--trust", str(self.key.public)]
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=REPOSITORY, start_new_session=True,
            env={**os.environ, "HOME": str(self.folder), **more},
        )  # fmt: skip

    def deploy(self, *arguments: str, **more: Any) -> Done:
        """`edgetrt deploy`, to its end."""
        process = self.start(*arguments, **more)
        try:
            out, err = process.communicate(timeout=150)
        finally:
            process.kill()
        return Done(process.returncode, out, err)
