"""A device trusts no host: what was tampered with on the way to its agent is refused there."""

import base64
import hashlib
import json
import subprocess
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import Fleet
from handmade import GRAPH, Bundle
from host import Host
from sshd import Device
from watching import Client


def members(bundle: Bundle) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle.file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tell_agent(device: Device, parts: dict[str, bytes], sent: dict[str, bytes]) -> dict[str, Any]:
    """Speak to a device's agent as a host without scruples would.

    Args:
        parts: of a bundle, by path; "manifest.sig" may be missing.
        sent: what to send in the place of some of them, by path.

    Returns:
        The last event.
    """
    signature = parts.get("manifest.sig")
    request = {
        "protocol": 1, "do": "deploy",
        "manifest": base64.b64encode(parts["manifest.json"]).decode(),
        "signature": signature and base64.b64encode(signature).decode(),
        "trust": None, "replace_trust": False, "allow_unsigned": True,
        "engines": ["onnxruntime"], "precisions": None, "keep": 3, "serve": None,
        "dry_run": False,
    }  # fmt: skip
    by_hash = {hashlib.sha256(data).hexdigest(): path for path, data in parts.items()}
    agent = subprocess.Popen(
        [str(device.folder / "bin" / "python3"), str(device.root / "current" / "program.pyz"),
         "agent", "--root", str(device.root)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=device.environment,
    )  # fmt: skip
    with agent:
        assert agent.stdin and agent.stdout and agent.stderr
        agent.stdin.write(json.dumps(request).encode() + b"\n")
        agent.stdin.flush()
        for line in agent.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] in ("result", "error"):
                agent.stdin.close()
                return event
            if event["event"] == "send":
                path, offset = by_hash[event["sha256"]], event["offset"]
                data = sent.get(path, parts[path])[offset:]
                header = {"sha256": event["sha256"], "offset": offset, "length": len(data)}
                agent.stdin.write(json.dumps(header).encode() + b"\n" + data)
                agent.stdin.flush()
        raise AssertionError(agent.stderr.read().decode())


def flipped(data: bytes) -> bytes:
    """The same with one bit turned over."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.fixture(scope="module")
def standing(module_fleet: Fleet) -> Iterator[tuple[Device, Client]]:
    (device,) = module_fleet.serving()
    with Client(device.serving, [module_fleet.first]) as client:
        yield device, client


@pytest.mark.parametrize("what", ["manifest", "signature", "no signature", "file"])
def test_tampered_on_the_way(
    standing: tuple[Device, Client], module_fleet: Fleet, host: Host, what: str
) -> None:
    device, client = standing
    first = module_fleet.first
    bundle = host.bundle()
    parts, sent = members(bundle), {}
    if what == "manifest":  # whole and sound, but not the one that was signed
        manifest = json.loads(parts["manifest.json"])
        manifest["golden"]["tolerance"]["fp32"] = 0.25
        parts["manifest.json"] = json.dumps(manifest, indent=1, sort_keys=True).encode()
    elif what == "signature":
        parts["manifest.sig"] = flipped(parts["manifest.sig"])
    elif what == "no signature":
        del parts["manifest.sig"]
    else:
        sent[GRAPH] = flipped(parts[GRAPH])
    told = tell_agent(device, parts, sent)
    assert told["event"] == "error"
    assert told["step"] == ("transfer" if what == "file" else "check")
    assert told["current"] == first.id
    assert device.current() == first.id
    client.check(first.id)


def test_and_the_whole_one_is_taken(
    standing: tuple[Device, Client], module_fleet: Fleet, host: Host
) -> None:
    device, client = standing
    bundle = host.bundle()
    client.knows(bundle)
    told = tell_agent(device, members(bundle), {})
    assert told["event"] == "result", told
    client.check(module_fleet.first.id, bundle.id)


def test_what_rots_on_the_device_is_sent_again(fleet: Fleet, host: Host) -> None:
    (device,) = fleet.serving()
    release = device.root / "releases" / fleet.first.id
    with Client(device.serving, [fleet.first]) as client:
        for name in (GRAPH, "golden/0.png"):
            file = release / name
            file.write_bytes(flipped(file.read_bytes()))  # in place: also what it is linked to
        done = host.deploy(str(fleet.first.file), *host.to(device))
        assert done.code == 0, done.said
        client.check(fleet.first.id)
        device.reboot()  # with nothing but what is on the disk
        assert device.current() == fleet.first.id
    with Client(device.serving, [fleet.first]) as client:
        client.check(fleet.first.id)
