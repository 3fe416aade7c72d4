"""A device without disk space, without memory, or with a clock that is years off."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from faults import some, wait_for, wait_until_stopped
from fleet import Fleet
from host import Host
from sshd import Device
from watching import Client

DISK = 48 << 20  # bytes
AT_ONCE = 5


@contextlib.contextmanager
def small_disk(device: Device) -> Iterator[Path]:
    """A disk of its own for a device that is not yet serving; gives a file to fill it with."""
    kept = device.home / "kept"
    device.root.rename(kept)
    device.root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(device.root)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user can't mount a small disk")
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(device.root)], check=True)
        yield device.root / "ballast"
    finally:
        device.kill_everything()
        subprocess.run(["umount", str(device.root)], check=True)


def fill(ballast: Path, leave: int = 0) -> None:
    """Fill a disk but for so many bytes."""
    free = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_bsize - leave))


def test_disk_is_full_before(fleet: Fleet, host: Host) -> None:
    (device,) = fleet.idle()
    first, second = fleet.first, host.bundle()
    with small_disk(device) as ballast:
        device.serve()
        with Client(device.serving, [first, second]) as client:
            fill(ballast, leave=second.size // 2)
            full = host.deploy(str(second.file), *host.to(device))
            assert full.code == 1
            assert "space" in full.said
            client.check(first.id)
            ballast.unlink()
            done = host.deploy(str(second.file), *host.to(device))
            assert done.code == 0, done.said
            client.check(first.id, second.id)


def test_disk_fills_at_any_change(fleet: Fleet, host: Host) -> None:
    (trial,) = fleet.serving()
    assert host.deploy(str(host.bundle().file), *host.to(trial)).code == 0
    changes = trial.changes()
    trial.kill_everything()
    numbers = list(range(1, len(changes) + 1))
    pending = next(n for n in numbers if changes[n - 1].endswith("/pending.json"))
    # Right after the switch the server can't write down that it has taken up the release.
    places = some(numbers, AT_ONCE, (pending, pending + 2, numbers[-1]))
    for begin in range(0, len(places), AT_ONCE):
        deploy_and_fill(fleet, host, places[begin : begin + AT_ONCE])


def deploy_and_fill(fleet: Fleet, host: Host, places: list[int]) -> None:
    """Deploy to as many devices as there are places; before that change the disk fills."""
    devices, first, second = fleet.idle(len(places)), fleet.first, host.bundle()
    with contextlib.ExitStack() as stack:
        ballasts = [stack.enter_context(small_disk(device)) for device in devices]
        clients = []
        for device, place in zip(devices, places, strict=True):
            device.serve()
            device.stop_at(place)
            client = Client(device.serving, [first, second], pause=0.05)
            clients.append(stack.enter_context(client))
        flags = [str(second.file), *host.to_all(devices)]
        process = host.start(*flags)
        wait_until_stopped(devices)
        for device, ballast in zip(devices, ballasts, strict=True):
            fill(ballast)
            device.go_on()
        out, err = process.communicate(timeout=900)
        assert process.returncode in (0, 1), out + err
        for device, ballast, client in zip(devices, ballasts, clients, strict=True):
            assert not device.agents()
            assert device.current() in (first.id, second.id)
            client.all_right()
            ballast.unlink()
        again = host.deploy(*flags)
        assert again.code == 0, again.said
        for device, client in zip(devices, clients, strict=True):
            assert device.current() == second.id
            client.all_right()
            assert client.releases()[-1] == second.id


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that sets the clock of a program wrong."""
    source = Path(__file__).with_name("clock.c")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.parametrize("years", [-20, 25])
def test_clock_is_years_off(fleet: Fleet, host: Host, clock: Path, years: int) -> None:
    (device,) = fleet.serving()
    first, second, third = fleet.first, host.bundle(), host.bundle()
    with Client(device.serving, [first, second, third]) as client:
        device.inject(f"export LD_PRELOAD={clock} CLOCK_OFFSET={years * 365 * 86400}")
        done = host.deploy(str(second.file), *host.to(device))
        assert done.code == 0, done.said
        client.check(first.id, second.id)
        assert abs(device.history()[-1]["when"] - time.time()) > 10 * 365 * 86400
        device.mend()  # the right time, which is long before or after
        done = host.deploy(str(third.file), *host.to(device))
        assert done.code == 0, done.said
        back = host.deploy("--rollback", *host.to(device))
        assert back.code == 0, back.said
        client.check(first.id, second.id, third.id, second.id)


def test_too_little_memory(fleet: Fleet, host: Host) -> None:
    (device,) = fleet.serving()
    first, second = fleet.first, host.bundle()
    with Client(device.serving, [first, second]) as client:
        device.inject("ulimit -v 150000")  # kilobytes: for Python, and not for ONNX Runtime
        done = host.deploy(str(second.file), *host.to(device))
        assert done.code == 1, done.said
        client.check(first.id)
        device.mend()
        done = host.deploy(str(second.file), *host.to(device))
        assert done.code == 0, done.said
        client.check(first.id, second.id)


def test_build_is_killed_for_memory(fleet: Fleet, host: Host) -> None:
    """As the kernel does it: kill -9 of the process that builds."""
    trial, device = fleet.serving(2)
    assert host.deploy(str(host.bundle().file), *host.to(trial)).code == 0
    building = next(n for n, change in enumerate(trial.changes(), 1) if "/engines/" in change)
    first, second = fleet.first, host.bundle()
    with Client(device.serving, [first, second]) as client:
        device.stop_at(building)
        process = host.start(str(second.file), *host.to(device))
        stopped = wait_for(device.stopped)
        processes.send(stopped.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "killed during build" in out + err
        client.check(first.id)
        device.mend()
        done = host.deploy(str(second.file), *host.to(device))
        assert done.code == 0, done.said
        client.check(first.id, second.id)
