"""What must not come to a device does not, and the device goes on as before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import handmade
import pytest
from fleet import Fleet
from handmade import Bundle
from host import Host
from sshd import Device, known_host, new_key
from watching import Client


class Standing(NamedTuple):
    """A device at work, and a client that watches it."""

    device: Device
    first: Bundle
    client: Client


@pytest.fixture(scope="module")
def standing(module_fleet: Fleet) -> Iterator[Standing]:
    (device,) = module_fleet.serving()
    with Client(device.serving, [module_fleet.first]) as client:
        yield Standing(device, module_fleet.first, client)


def unchanged(standing: Standing) -> None:
    """Assert that the device is as it was, and that nobody noticed anything."""
    device = standing.device
    assert device.current() == standing.first.id
    assert not (device.root / "pending.json").exists()
    assert [entry["release"] for entry in device.history()] == [standing.first.id]
    standing.client.check(standing.first.id)


def change_graph(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    graph = bytearray(members[handmade.GRAPH])
    graph[len(graph) // 2] ^= 1
    members[handmade.GRAPH] = bytes(graph)


def change_manifest(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    manifest["golden"]["tolerance"]["fp32"] = 0.25


def change_signature(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    signature = bytearray(members["manifest.sig"])
    signature[-1] ^= 1
    members["manifest.sig"] = bytes(signature)


def no_signature(members: dict[str, bytes], manifest: dict[str, Any]) -> None:
    del members["manifest.sig"]


def schema(number: int) -> handmade.Change:
    def change(files: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["schema"] = number

    return change


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (None, change_graph, handmade.GRAPH),
        (None, change_manifest, "signature"),
        (None, change_signature, "signature"),
        (None, no_signature, "signed"),
        (schema(0), None, "older"),
        (schema(9), None, "newer"),
        (handmade.wrong_answers, None, "golden"),
    ],
    ids=["file", "manifest", "signature", "unsigned", "older-schema", "newer-schema", "golden"],
)
def test_bundle(
    standing: Standing,
    host: Host,
    before: handmade.Change | None,
    after: handmade.Change | None,
    words: str,
) -> None:
    bundle = host.bundle(before, after)
    done = host.deploy(str(bundle.file), *host.to(standing.device))
    assert done.code in (1, 2)
    assert words in done.said
    unchanged(standing)


def test_signed_by_a_stranger(standing: Standing, host: Host, tmp_path: Path) -> None:
    stranger = handmade.new_key(tmp_path, "stranger")
    bundle = host.bundle(key=stranger)
    for trust in (host.key, stranger):
        flags = [*host.to(standing.device), "--trust", str(trust.public)]
        done = host.deploy(str(bundle.file), *flags)
        assert done.code in (1, 2)
        assert "sign" in done.said or "key" in done.said
        unchanged(standing)


def test_no_tensorrt(standing: Standing, host: Host) -> None:
    bundle = host.bundle()
    done = host.deploy(str(bundle.file), *host.to(standing.device), "--engine", "tensorrt")
    assert done.code in (1, 2)
    assert "tensorrt" in done.said.lower()
    unchanged(standing)


def test_another_host_key(standing: Standing, host: Host, tmp_path: Path) -> None:
    device = standing.device
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"[127.0.0.1]:{device.port} {new_key(tmp_path / 'other')}\n")
    before = hosts.read_bytes()
    for more in ([], ["--accept-new-host-key"]):
        done = host.deploy(
            str(host.bundle().file), *host.to(device), "--known-hosts", str(hosts), *more
        )
        assert done.code == 1
        assert "host key" in done.said
        assert hosts.read_bytes() == before
    unchanged(standing)


def test_unknown_host_key_is_accepted_only_if_told_to(
    standing: Standing, host: Host, tmp_path: Path
) -> None:
    device = standing.device
    hosts = tmp_path / "known_hosts"
    hosts.touch()
    flags = [str(standing.first.file), *host.to(device), "--known-hosts", str(hosts)]
    done = host.deploy(*flags)
    assert done.code == 1
    assert "--accept-new-host-key" in done.said
    assert hosts.read_bytes() == b""
    unchanged(standing)
    accepted = host.deploy(*flags, "--accept-new-host-key")
    assert accepted.code == 0, accepted.said
    assert hosts.read_text().split() == known_host(device, device.port).split()
    unchanged(standing)


def test_another_identity(standing: Standing, host: Host, tmp_path: Path) -> None:
    new_key(tmp_path / "identity")
    flags = host.to(standing.device)
    flags[-1] = str(tmp_path / "identity")
    done = host.deploy(str(host.bundle().file), *flags)
    assert done.code == 1
    unchanged(standing)


def test_and_the_next_deployment_succeeds(standing: Standing, host: Host) -> None:
    device, first, client = standing
    second = host.bundle()
    client.knows(second)
    done = host.deploy(str(second.file), *host.to(device))
    assert done.code == 0, done.said
    client.check(first.id, second.id)
