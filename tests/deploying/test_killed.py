"""kill -9 of either side, or of the whole device, before any change of the device's disk."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

import processes
import pytest
from faults import some, wait_for, wait_until_stopped
from fleet import Fleet
from host import Host
from sshd import Device
from watching import Client

AT_ONCE = 6

Process = subprocess.Popen[str]
# Kills; the devices' agents stand still.
Kill = Callable[[list[Device], list[Client], Process], None]


@pytest.fixture(scope="module")
def changes(module_fleet: Fleet, host: Host) -> list[str]:
    """The changes of its disk that an agent makes in an undisturbed deployment."""
    (device,) = module_fleet.serving()
    done = host.deploy(str(host.bundle().file), *host.to(device))
    assert done.code == 0, done.said
    return device.changes()


def kill_agents(devices: list[Device], clients: list[Client], process: Process) -> None:
    for device in devices:
        if stopped := device.stopped():
            processes.send(stopped.pid, signal.SIGKILL)


def kill_host(devices: list[Device], clients: list[Client], process: Process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    for device in devices:
        device.go_on()


def power_off_and_on(devices: list[Device], clients: list[Client], process: Process) -> None:
    for device, client in zip(devices, clients, strict=True):
        begin = time.monotonic()
        device.reboot()
        client.was_down(begin, time.monotonic())


@pytest.mark.parametrize("kill", [kill_agents, kill_host, power_off_and_on])
def test_before_any_change(fleet: Fleet, host: Host, changes: list[str], kill: Kill) -> None:
    numbers = range(1, len(changes) + 1)
    # The switch is the renaming of a link to `current`.
    switch = next(n for n in numbers if changes[n - 1].endswith("/current"))
    chosen = some(list(numbers), AT_ONCE, always=(switch, switch + 1, len(changes)))
    for begin in range(0, len(chosen), AT_ONCE):
        deploy_and_kill(fleet, host, chosen[begin : begin + AT_ONCE], kill)


def deploy_and_kill(fleet: Fleet, host: Host, places: list[int], kill: Kill) -> None:
    """Deploy to as many devices as there are places; each agent stops before that change."""
    first, second = fleet.first, host.bundle()
    devices = fleet.serving(len(places))
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(device.serving, [first, second], pause=0.05))
            for device in devices
        ]
        for device, place in zip(devices, places, strict=True):
            device.stop_at(place)
        flags = [str(second.file), *host.to_all(devices)]
        process = host.start(*flags)
        wait_until_stopped(devices)
        kill(devices, clients, process)
        out, err = process.communicate(timeout=120)
        assert process.returncode in (1, -signal.SIGKILL), out + err

        for device, client in zip(devices, clients, strict=True):
            device.mend()
            wait_for(lambda device=device: not device.agents(), 30)  # type: ignore[misc]
            assert device.current() in (first.id, second.id)
            client.all_right()
        again = host.deploy(*flags)
        assert again.code == 0, again.said
        for device, client in zip(devices, clients, strict=True):
            assert device.current() == second.id
            assert not (device.root / "pending.json").exists()
            client.all_right()
            assert client.releases()[-1] == second.id
    for device in devices:
        device.kill_everything()
