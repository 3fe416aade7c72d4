"""The flags of `edgetrt deploy`."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

PASSWORD = "EDGETRT_SSH_PASSWORD"  # noqa: S105 - its name


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add them all."""
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE",
        help="what 'edgetrt bundle' wrote")  # fmt: skip
    _add_devices(parser.add_argument_group("to which devices").add_argument)
    _add_what(parser.add_argument_group("what to do there").add_argument)
    _add_rollout(parser.add_argument_group("many devices").add_argument)


def _add_devices(add: Callable[..., object]) -> None:
    add("--device", metavar="USER@HOST[:PORT]", action="append", default=[],
        help="a device, by SSH; several times for several")  # fmt: skip
    add("--inventory", metavar="FILE", type=Path, help="the devices of a file: devices.toml")
    add("--group", metavar="NAME", help="of those, the ones of a group")
    add("--identity", metavar="FILE", type=Path,
        help="private key for SSH (those of ssh-agent and ~/.ssh)")  # fmt: skip
    add("--ask-password", action="store_true",
        help=f"ask for the devices' SSH password, or that of --identity; {PASSWORD} is taken "
        "without asking")  # fmt: skip
    add("--accept-new-host-key", action="store_true",
        help="take the host key of a device that was never seen as it comes, and store it in "
        "known_hosts: from then on another one is refused")  # fmt: skip
    add("--known-hosts", metavar="FILE", type=Path,
        help="host keys (UserKnownHostsFile of ~/.ssh/config, ~/.ssh/known_hosts)")  # fmt: skip
    add("--root", metavar="DIR", help="edgetrt's folder on a device (~/edgetrt)")
    add("--python", metavar="PROGRAM", help="the Python there, 3.6 or later (python3)")


def _add_what(add: Callable[..., object]) -> None:
    add("--dry-run", action="store_true",
        help="ask each device what would be done; it only gets the device program")  # fmt: skip
    add("--rollback", action="store_true", help="go back to the release before; no BUNDLE")
    add("--status", action="store_true", help="show what each device has and serves; no BUNDLE")
    add("--trust", metavar="PUB.pem", type=Path,
        help="public key whose bundles a device accepts from its first deployment on (the one of "
        "'edgetrt keygen')")  # fmt: skip
    add("--replace-trust", action="store_true",
        help="have devices that accept another key's bundles accept this one's")  # fmt: skip
    add("--allow-unsigned", action="store_true",
        help="deploy a bundle without signature; refused where a key is accepted")  # fmt: skip
    add("--engine", metavar="NAMES", help="tensorrt, onnxruntime ... (with commas; tensorrt)")
    add("--precision", metavar="NAMES", help="fp32, fp16, int8 (with commas; all that are good "
        "on the device)")  # fmt: skip
    add("--keep", metavar="N", type=_at_least(1), default=3,
        help="releases to keep on a device (%(default)s)")  # fmt: skip
    add("--port", metavar="N", type=_port, default=8000,
        help="of the server, where none runs yet (%(default)s)")  # fmt: skip
    add("--no-serve", action="store_true", help="start no server where none runs")


def _add_rollout(add: Callable[..., object]) -> None:
    add("--canary", metavar="N", type=_at_least(0), default=1,
        help="devices that go first; if one fails, no other is started (%(default)s)")  # fmt: skip
    add("--batch", metavar="N|P%", type=_batch, default="100%",
        help="devices of the next step, which begins when the one before is through "
        "(100%%)")  # fmt: skip
    add("--max-failures", metavar="N", type=_at_least(0), default=0,
        help="once more have failed, no other is started (%(default)s)")  # fmt: skip
    add("--parallel", metavar="N", type=_at_least(1), default=10,
        help="devices at a time (%(default)s)")  # fmt: skip
    add("--again", action="store_true",
        help="when going on with a deployment, also visit the devices that are done")  # fmt: skip
    add("--log", metavar="DIR", type=Path,
        help="folder for state.json and each device's log and report (deployments/ID)")  # fmt: skip
    add("--report", metavar="DIR", type=Path,
        help="folder for one page of all devices' benchmarks")  # fmt: skip


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"a number from {least} on is expected; got {text!r}")
        return int(text)

    return number


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"a port is expected; got {text!r}")
    return int(text)


def _batch(text: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,5}|([1-9][0-9]?|100)%", text):
        raise argparse.ArgumentTypeError(f"a number or 1% to 100% is expected; got {text!r}")
    return text


def batch_size(text: str, devices: int) -> int:
    """How many devices `--batch` stands for, at least one; a share is rounded up."""
    if not text.endswith("%"):
        return int(text)
    return max(1, -(-devices * int(text[:-1]) // 100))
