"""What `edgetrt deploy` leaves and prints: for programs, for people, and as one page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import new_device
from handmade import Bundle
from host import Done, Host
from sshd import Device


@pytest.fixture(scope="module")
def devices(
    tmp_path_factory: pytest.TempPathFactory, python: Path, host: Host
) -> Iterator[list[Device]]:
    """Two that nothing was ever deployed to."""
    made = [new_device(tmp_path_factory.mktemp("two"), python, host, number) for number in (0, 1)]
    yield made
    for device in made:
        device.kill_everything()


@pytest.fixture(scope="module")
def bundle(host: Host) -> Bundle:
    return host.bundle()


def results(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.said
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def files(device: Device) -> set[str]:
    return {str(file.relative_to(device.root)) for file in device.root.rglob("*")}


def test_dry_run_brings_the_program_and_nothing_else(
    devices: list[Device], bundle: Bundle, host: Host
) -> None:
    found = results(host.deploy(str(bundle.file), "--dry-run", "--json", *host.to(devices[0])))
    (entry,) = found["devices"].values()
    assert entry["result"]["dry_run"]
    assert entry["result"]["missing_bytes"] == bundle.size
    assert entry["result"]["changed"]
    assert devices[0].current() is None
    assert not {name for name in files(devices[0]) if name.startswith("releases/")}
    shown = host.deploy(str(bundle.file), "--dry-run", *host.to(devices[0])).stdout
    assert f"would be deployed, {bundle.size / 1e6:.1f} MB to send" in shown


def test_two_devices_and_one_page(
    devices: list[Device], bundle: Bundle, host: Host, tmp_path: Path
) -> None:
    log, page = tmp_path / "log", tmp_path / "page"
    flags = [str(bundle.file), "--inventory", str(host.inventory(devices)), "--no-serve",
             "--log", str(log), "--report", str(page), "--json"]  # fmt: skip
    found = results(host.deploy(*flags))
    assert found["release"] == bundle.id
    assert found["report"] == str(page / "index.html")
    names = [device.name for device in devices]
    for device in devices:
        entry = found["devices"][device.name]
        assert (entry["state"], entry["result"]["engine"]) == ("done", "onnxruntime-fp32")
        assert device.current() == bundle.id
        said = (log / f"{device.name}.log").read_text()
        for step in ("check", "transfer", "build", "self-test", "switch", "health"):
            assert f"Z {step}: done" in said
    assert sorted(file.name for file in log.iterdir()) == sorted(
        ["lock", "state.json", *(f"{name}.{kind}" for name in names for kind in ("json", "log"))]
    )
    merged = json.loads((page / "report.json").read_text())
    assert len(merged["reports"]) == 2
    assert "<h1" in (page / "index.html").read_text()

    # All is done: each is asked, and has nothing to do.
    again = results(host.deploy(*flags))["devices"].values()
    assert {entry["result"]["changed"] for entry in again} == {False}
    assert {entry["text"] for entry in again} == {""}


def test_page_of_somebody_else_is_found_before_anything_is_done(
    devices: list[Device], host: Host, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("mine")
    other = host.bundle()
    done = host.deploy(str(other.file), *host.to(devices[0]), "--report", str(tmp_path))
    assert done.code == 2
    assert "is no page of edgetrt" in done.stderr
    assert devices[0].current() != other.id


def test_status_and_rollback(devices: list[Device], bundle: Bundle, host: Host) -> None:
    device = devices[0]
    second = host.bundle()
    assert host.deploy(str(second.file), *host.to(device), "--no-serve").code == 0
    (entry,) = results(host.deploy("--status", "--json", *host.to(device)))["devices"].values()
    assert entry["result"]["current"] == second.id
    shown = host.deploy("--status", *host.to(device)).stdout
    assert f"{second.id}  onnxruntime-fp32  off" in shown
    back = results(host.deploy("--rollback", "--json", *host.to(device)))
    assert device.current() == bundle.id
    (entry,) = back["devices"].values()
    assert entry["result"]["release"] == bundle.id
