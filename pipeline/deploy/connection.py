"""SSH to a device by pyinfra's connector, and what can go wrong with it, in words."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paramiko import (
    AuthenticationException,
    BadHostKeyException,
    Channel,
    ChannelException,
    HostKeys,
    SSHClient,
    SSHException,
    Transport,
)
from paramiko.hostkeys import InvalidHostKey
from paramiko.ssh_exception import NoValidConnectionsError
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.connectors.sshuserclient.client import get_ssh_config

from pipeline.deploy.errors import DeviceError
from pipeline.deploy.inventory import Device

CONNECT = "connect"  # the step
SECONDS = 15  # that a device may take to answer
# A busy board takes its time for the key exchange; without limits one that hangs is waited for
# forever (paramiko waits an hour for a channel).
LIMITS = {"banner_timeout": 60, "auth_timeout": 60, "channel_timeout": 60}
UNACKNOWLEDGED = 60_000  # milliseconds until a line is taken for cut on which nothing arrives
SSH_PORT = 22


@dataclass(frozen=True)
class Access:
    """How to get into the devices.

    Attributes:
        password: of the user there; of the identity file, where one is given.
        accept_new: store the key of a host that was never seen; a changed one is refused anyhow.
        known_hosts: None for what ~/.ssh/config says, else ~/.ssh/known_hosts.
    """

    password: str | None = field(default=None, repr=False)
    accept_new: bool = False
    known_hosts: Path | None = None


@dataclass(frozen=True)
class _Place:
    """Where a device is by ~/.ssh/config."""

    host: str
    port: int
    known_hosts: tuple[Path, ...]
    jump: str | None

    @property
    def entry(self) -> str:
        """What it is called in known_hosts."""
        return self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"


def silence() -> None:
    """Keep pyinfra and paramiko from saying what is said here: their way, and with secrets."""
    for name in ("pyinfra", "paramiko"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.CRITICAL + 1)


def host_data(device: Device, access: Access) -> dict[str, Any]:
    """What pyinfra's inventory holds of a device."""
    data: dict[str, Any] = {
        "ssh_hostname": device.host,
        "ssh_strict_host_key_checking": "accept-new" if access.accept_new else "yes",
        "ssh_paramiko_connect_kwargs": LIMITS,
    }
    if device.user:
        data["ssh_user"] = device.user
    if device.port:
        data["ssh_port"] = device.port
    if access.known_hosts:
        data["ssh_known_hosts_file"] = str(access.known_hosts)
    if device.identity:
        data["ssh_key"] = str(device.identity)
        if access.password:
            data["ssh_key_password"] = access.password
    elif access.password:
        # Else every key of the agent is offered first, and the device may lose patience.
        data.update(ssh_password=access.password, ssh_allow_agent=False, ssh_look_for_keys=False)
    return data


def prepare_known_hosts(devices: list[Device], access: Access) -> None:
    """See that the files of known hosts can be trusted, and written to where that is wanted.

    Raises:
        DeviceError: one has lines that would not be heeded, or can't be read; or ~/.ssh/config,
            which names them, is damaged.
    """
    try:
        files = {file for device in devices for file in _place(device, access).known_hosts}
    except (SSHException, ValueError) as error:
        raise DeviceError(f"~/.ssh/config can't be used: {error}", CONNECT) from error
    for file in sorted(files):
        try:
            _check_known_hosts(file)
            if access.accept_new:
                _make_writable(file)
        except OSError as error:
            raise DeviceError(f"cannot use {file}: {error.strerror}", CONNECT) from error


def _check_known_hosts(file: Path) -> None:
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return
    # paramiko knows no @revoked and @cert-authority, and reads no line after one.
    if any(line.lstrip().startswith("@") for line in lines):
        text = f"{file} has lines with @, which can't be heeded here; give another --known-hosts"
        raise DeviceError(text, CONNECT)
    try:
        HostKeys().load(str(file))
    except InvalidHostKey as error:
        raise DeviceError(f"{file} has a damaged line: {error.line[:60]}", CONNECT) from error


def _make_writable(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.open("ab+") as opened:
        if opened.tell():
            opened.seek(-1, os.SEEK_END)
            if opened.read(1) != b"\n":
                opened.write(b"\n")


@contextmanager
def connected(host: Host, device: Device, access: Access) -> Iterator[Transport]:
    """A connection to the device, closed in the end.

    Raises:
        DeviceError: there is none to be had; in words, with what to do.
    """
    try:
        try:
            host.connect(show_errors=False, raise_exceptions=True)
        except (ConnectError, PyinfraError) as error:
            reason = error.__context__ if isinstance(error, ConnectError) else error
            text = _in_words(reason or error, _client(host), device, access)
            raise DeviceError(text, CONNECT) from None
        client = _client(host)
        transport = client.get_transport() if client else None
        if client is None or transport is None:
            raise DeviceError("the connection was cut at once; run the same again", CONNECT)
        if access.accept_new:
            _remember(client, device, access)
        _notice_cuts(transport)
        yield transport
    finally:
        _close(_client(host))
        with suppress(Exception):
            host.disconnect()


def close_leftovers() -> None:
    """Close the connections to jump hosts whose device could not be reached behind them."""
    for thread in threading.enumerate():
        if isinstance(thread, Transport):  # a thread for each
            thread.close()


def _close(client: SSHClient | None) -> None:
    """Close a connection, and those to jump hosts that it goes through; pyinfra closes neither."""
    transport = client.get_transport() if client else None
    while transport is not None:
        line = transport.sock
        transport.close()
        transport = line.get_transport() if isinstance(line, Channel) else None
    if client is not None:
        client.close()


def _client(host: Host) -> SSHClient | None:
    client: SSHClient | None = getattr(host.connector, "client", None)
    return client


def _place(device: Device, access: Access) -> _Place:
    """Where a device is, as pyinfra's connector finds it."""
    config = get_ssh_config()
    found: dict[str, Any] = config.lookup(device.host) if config else {}
    files = found.get("userknownhostsfile", "~/.ssh/known_hosts").split()
    if access.known_hosts:
        files = [str(access.known_hosts)]
    return _Place(
        found.get("hostname", device.host),
        device.port or int(found.get("port", SSH_PORT)),
        tuple(Path(file).expanduser() for file in files),
        found.get("proxyjump"),
    )


def _remember(client: SSHClient, device: Device, access: Access) -> None:
    """Hold on to a key that was just accepted: pyinfra wrote it down, and reads no file twice."""
    entry, key = _place(device, access).entry, _server_key(client)
    if key is not None and client.get_host_keys().lookup(entry) is None:
        client.get_host_keys().add(entry, key.get_name(), key)


def _server_key(client: SSHClient | None) -> Any:
    transport = client.get_transport() if client else None
    with suppress(SSHException):
        return transport.get_remote_server_key() if transport else None
    return None


def _notice_cuts(transport: Transport) -> None:
    """A pulled cable tells nobody: without this the host would wait for a quarter of an hour."""
    line: Any = transport.sock
    # A jump host's channel is no socket, and only Linux has the option.
    if hasattr(line, "setsockopt") and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)


def _in_words(
    reason: BaseException, client: SSHClient | None, device: Device, access: Access
) -> str:
    place = _place(device, access)
    where = f"{place.host}:{place.port}"
    known_hosts = place.known_hosts[0]
    key = _server_key(client)
    if isinstance(reason, BadHostKeyException):
        return (
            f"its host key has CHANGED: somebody may be listening in. It shows "
            f"{reason.key.fingerprint}, and {known_hosts} has another\n"
            f"if you know why: ssh-keygen -f {known_hosts} -R '{place.entry}', then as with a "
            "new device"
        )
    if isinstance(reason, AuthenticationException):
        return _refused(device, access, where)
    if isinstance(reason, SSHException) and key is not None and "known_hosts" in str(reason):
        return (
            f"its host key is not known: {key.get_name()} {key.fingerprint}\n"
            f"if that is what 'cat /etc/ssh/ssh_host_*.pub | ssh-keygen -lf -' says there: "
            f"--accept-new-host-key stores it in {known_hosts}"
        )
    if isinstance(reason, socket.gaierror):
        return f"no host is called {place.host!r}; check its name"
    if isinstance(reason, NoValidConnectionsError):
        return f"{where} refuses connections; is it on, and does its SSH server run there?"
    if isinstance(reason, TimeoutError):
        return f"{where} does not answer within {SECONDS} s; is it on, and is that its address?"
    if isinstance(reason, PyinfraError) and "encrypted" in str(reason):
        return (
            f"{device.identity} is locked by a password; give it to --ask-password, or the key "
            "to ssh-agent, and no --identity"
        )
    if isinstance(reason, PyinfraError):
        return f"{device.identity} is no private key that can be used"
    if place.jump and key is None:
        return _no_way(reason, place)
    if isinstance(reason, EOFError) or "banner" in str(reason):
        return f"what answers at {where} is no SSH server, or hangs up; is it too busy?"
    text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return f"no connection to {where}: {text}"


def _no_way(reason: BaseException, place: _Place) -> str:
    jump = f"{place.jump}, its jump host by ~/.ssh/config"
    if isinstance(reason, ChannelException):
        return f"{jump}, does not reach {place.host}:{place.port}: {reason.text}"
    if isinstance(reason, EOFError):  # pyinfra asked whether it may go on, and nobody answered
        return f"the host key of {jump}, is not known\n'ssh {place.jump}' stores it"
    return f"no connection to {jump}: {reason}\n'ssh {place.jump} true' shows more"


def _refused(device: Device, access: Access, where: str) -> str:
    user = f"user {device.user}" if device.user else "the user"
    if device.identity:
        return f"{where} lets {user} not in with {device.identity}; is its .pub in authorized_keys?"
    if access.password:
        return f"{where} lets {user} not in with that password"
    return (
        f"{where} lets {user} not in with the keys of ssh-agent and ~/.ssh; name one by "
        "--identity, or give --ask-password"
    )
