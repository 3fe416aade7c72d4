"""The connection is cut after any number of bytes: the device serves on, and the rest follows."""

import contextlib

import pytest
from faults import ALL_FAULTS, some, wait_for
from fleet import Fleet
from host import Host
from proxy import Direction, Line
from sshd import Device, known_host
from watching import Client

AT_ONCE = 6
SLACK = 10_000  # bytes that one session has more than another, at most
STEP = 4096  # bytes from one place to the next


def behind(devices: list[Device], host: Host, stack: contextlib.ExitStack) -> list[Line]:
    """A line to each device, by which the host knows it too."""
    lines = [stack.enter_context(Line(device.port)) for device in devices]
    with host.known_hosts.open("a") as file:
        for device, line in zip(devices, lines, strict=True):
            file.write(known_host(device, line.port))
    return lines


@pytest.fixture(scope="module")
def whole(module_fleet: Fleet, host: Host) -> dict[Direction, int]:
    """Bytes that pass in each direction in a deployment of a release that is new to a device."""
    with contextlib.ExitStack() as stack:
        (device,) = module_fleet.idle()
        device.forget_program()
        (line,) = behind([device], host, stack)
        done = host.deploy(str(host.bundle().file), *host.to(device, line.port), "--no-serve")
        assert done.code == 0, done.said
        return dict(line.passed)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_cut_after_any_byte(
    fleet: Fleet, host: Host, whole: dict[Direction, int], direction: Direction
) -> None:
    # The end is left out: how long the last words are differs a little.
    step = STEP if direction == "up" else 97
    places = some(list(range(1, whole[direction] * 19 // 20, step)), AT_ONCE)
    arrived = []
    for begin in range(0, len(places), AT_ONCE):
        chosen = places[begin : begin + AT_ONCE]
        arrived += cut_and_go_on(fleet, host, chosen, direction, whole)
    assert direction == "down" or max(arrived) > 100_000


def cut_and_go_on(
    fleet: Fleet, host: Host, places: list[int], direction: Direction, whole: dict[Direction, int]
) -> list[int]:
    """Cut the lines to as many devices as there are places, mend them, and deploy again.

    Returns:
        How many bytes of the files each device had when its line was cut.
    """
    first, second = fleet.first, host.bundle()
    devices = fleet.serving(len(places))
    with contextlib.ExitStack() as stack:
        lines = behind(devices, host, stack)
        clients = [
            stack.enter_context(Client(device.serving, [first, second], pause=0.05))
            for device in devices
        ]
        for device, line, place in zip(devices, lines, places, strict=True):
            device.forget_program()
            line.cut_after(place, direction)
        ports = {device.name: line.port for device, line in zip(devices, lines, strict=True)}
        flags = [str(second.file), *host.to_all(devices, ports)]

        cut = host.deploy(*flags)
        assert cut.code == 1, cut.said
        assert all(line.was_cut.is_set() for line in lines)
        for device, client in zip(devices, clients, strict=True):
            wait_for(lambda device=device: not device.agents(), 30)  # type: ignore[misc]
            assert device.current() in (first.id, second.id)
            assert not (device.root / "pending.json").exists()
            client.all_right()
        arrived = [arrived_at(device) for device in devices]

        for line in lines:
            line.mend()
        rest = host.deploy(*flags)
        assert rest.code == 0, rest.said
        for device, line, client, there in zip(devices, lines, clients, arrived, strict=True):
            assert device.current() == second.id
            client.check(first.id, second.id)
            assert line.passed["up"] < whole["up"] - there + SLACK  # it was not sent again
        stack.close()
    for device in devices:
        device.kill_everything()
    return arrived


def arrived_at(device: Device) -> int:
    """Bytes of files that are not yet whole."""
    return sum(file.stat().st_size for file in (device.root / "files").glob(".tmp-[0-9a-f]*"))


@pytest.mark.skipif(not ALL_FAULTS, reason="takes minutes: EDGETRT_ALL_FAULTS=1")
def test_cable_pulled(fleet: Fleet, host: Host, whole: dict[Direction, int]) -> None:
    """Neither end is told; the device's agent leaves, so that another one may come."""
    first, second = fleet.first, host.bundle()
    (device,) = fleet.serving()
    with contextlib.ExitStack() as stack:
        (line,) = behind([device], host, stack)
        client = stack.enter_context(Client(device.serving, [first, second]))
        line.cut_after(whole["up"] // 2, silently=True)
        process = host.start(str(second.file), *host.to(device, line.port))
        wait_for(line.was_cut.is_set)
        wait_for(lambda: not device.agents(), 90)
        client.check(first.id)
        done = host.deploy(str(second.file), *host.to(device))
        assert done.code == 0, done.said
        client.check(first.id, second.id)
        process.kill()
        process.wait()
