"""The devices: given one by one, or in a file such as devices.toml."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError

ROOT = "~/edgetrt"
MAX_BYTES = 4 << 20  # of an inventory; 10 000 devices take one
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # also the name of its log and report
TAKEN = "state"  # state.json is the record of all devices
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
ADDRESS = re.compile(r"(?:([^@]+)@)?(?:\[([^\]]*:[^\]]*)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")
# Absolute, or in the user's home.
PATH = re.compile(r"(~/|/)[^\x00-\x1f\x7f]{1,1000}")
PROGRAM = re.compile(r"[A-Za-z0-9._/~+-]{1,1000}")


@dataclass(frozen=True)
class Device:
    """Where a device is, and what is special about it.

    Attributes:
        name: what people and logs call it.
        host: name or address, or an alias of ~/.ssh/config.
        user, port, identity: None for what ~/.ssh/config says, else this user, 22, and the keys
            of the agent and of ~/.ssh.
        root: edgetrt's folder there; may begin with "~/".
        python: the Python to use there.
        engine, precision: names to build instead of those asked for on the command line.
        groups: names of the groups it is in.
    """

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    identity: Path | None = None
    root: str = ROOT
    python: str = "python3"
    engine: tuple[str, ...] | None = None
    precision: tuple[str, ...] | None = None
    groups: tuple[str, ...] = ()


def parse(text: str) -> Device:
    """The device that `text` stands for: [user@]host[:port], an IPv6 address in brackets.

    Raises:
        UsageError: it is none.
    """
    found = ADDRESS.fullmatch(text)
    wrong = f"{text!r} is no device; give user@host or user@host:port"
    if not found:
        raise UsageError(wrong)
    user, bracketed, plain, port = found.groups()
    device = Device(name=text, host=bracketed or plain, user=user, port=int(port) if port else None)
    try:
        return _checked(device, text)
    except UsageError as error:
        raise UsageError(f"{wrong} ({error})") from None


def read(file: Path, group: str | None = None) -> list[Device]:
    """The devices of an inventory, in its order.

    Args:
        group: those of this group alone.

    Raises:
        UsageError: the file can't be read or is no inventory (says where), or nothing is in it or
            in the group.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UsageError(f"{file} is larger than {MAX_BYTES >> 20} MiB")
        # Python 3.10 has none of its own.
        toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
        data = toml.loads(content.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are such
        raise UsageError(f"{file} is no inventory: {error}") from error
    _only(data, ("defaults", "devices"), f"{file}")
    defaults = _table(data.get("defaults", {}), f"{file}: [defaults]")
    _only(defaults, tuple(name for name in KINDS if name not in ("host", "groups")),
          f"{file}: [defaults]")  # fmt: skip
    devices = [
        _device(name, {**defaults, **_table(own, f"{file}: [devices.{name}]")}, file)
        for name, own in _table(data.get("devices", {}), f"{file}: [devices]").items()
    ]
    chosen = [device for device in devices if group is None or group in device.groups]
    if not devices:
        raise UsageError(f"{file} has no [devices.NAME]")
    if not chosen:
        groups = ", ".join(sorted({name for device in devices for name in device.groups})) or "none"
        raise UsageError(f"{file} has no device in group {group!r}; groups there: {groups}")
    return chosen


def with_overrides(
    devices: Sequence[Device], *, identity: Path | None, root: str | None, python: str | None
) -> list[Device]:
    """The devices with what the command line says about all of them; no two of one name or place.

    Raises:
        UsageError: two have the same name or are the same, or a value is no good.
    """
    given = {"identity": identity, "root": root, "python": python}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    names = Counter(device.name for device in devices)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise UsageError(f"device {twice} is given twice")
    ready = [_checked(replace(device, **changes), device.name) for device in devices]
    places: dict[tuple[Any, ...], str] = {}
    for device in ready:
        place = (device.user, device.host, device.port or 22, device.root)
        other = places.setdefault(place, device.name)
        if other != device.name:
            same = "user, host, port and root are"
            raise UsageError(f"devices {other} and {device.name} are the same: {same}")
    return ready


def _device(name: str, values: Mapping[str, Any], file: Path) -> Device:
    where = f"{file}: [devices.{name}]"
    if not NAME.fullmatch(name):
        raise UsageError(f"{where}: a name has letters, digits, '.', '_' and '-' only")
    _only(values, tuple(KINDS), where)
    for key, value in values.items():
        if not isinstance(value, KINDS[key]) or isinstance(value, bool):
            raise UsageError(f"{where}: {key} = {value!r}: {_WANTED[KINDS[key]]} is expected")
    if "host" not in values:
        raise UsageError(f"{where} has no host")
    ready = dict(values)
    for key in ("engine", "precision", "groups"):
        if key in ready:
            if not ready[key] and key != "groups":
                raise UsageError(f"{where}: {key} = {ready[key]!r}: names are expected")
            ready[key] = _names(ready[key], f"{where}: {key}")
    if "identity" in ready:
        try:
            ready["identity"] = file.parent / Path(ready["identity"]).expanduser()
        except RuntimeError as error:
            raise UsageError(f"{where}: identity = {ready['identity']!r}: {error}") from error
    return _checked(Device(name=name, **ready), where)


# What may stand in a device's table, and in [defaults] but for the last two.
KINDS: dict[str, type | tuple[type, ...]] = {
    "user": str, "port": int, "identity": str, "root": str, "python": str,
    "engine": (str, list), "precision": (str, list), "host": str, "groups": list,
}  # fmt: skip
_WANTED = {str: "text", int: "a number", list: "a list", (str, list): "text or a list"}


def _names(value: str | list[Any], where: str) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not all(isinstance(name, str) and NAME.fullmatch(name) for name in names):
        raise UsageError(f"{where} = {value!r}: names are expected")
    return tuple(names)


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is no table")
    return value


def _only(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := next((key for key in table if key not in known), None):
        raise UsageError(f"{where}: {unknown!r} is not known; there may be {', '.join(known)}")


def _checked(device: Device, where: str) -> Device:
    checks = (
        (device.name.lower() != TAKEN, f"name {device.name!r} (its report would be state.json)"),
        (HOST.fullmatch(device.host), f"host {device.host!r}"),
        (device.user is None or USER.fullmatch(device.user), f"user {device.user!r}"),
        (device.port is None or 0 < device.port < 65536, f"port {device.port}"),
        (PATH.fullmatch(device.root), f"root {device.root!r} (absolute, or beginning with ~/)"),
        (PROGRAM.fullmatch(device.python), f"python {device.python!r}"),
    )
    for good, what in checks:
        if not good:
            raise UsageError(f"{where}: no good {what}")
    return device
