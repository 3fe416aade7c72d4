"""Fifty devices of which ten fail: in stages, stopped in time, and gone on with."""

import contextlib
import json
from pathlib import Path
from typing import Any

from fleet import Fleet
from host import Host
from watching import Client

MANY, BROKEN = 50, 10


def states(log: Path) -> dict[str, str]:
    found: dict[str, Any] = json.loads((log / "state.json").read_text())
    return {name: entry["state"] for name, entry in found.items()}


def test_fifty_of_which_ten_fail(fleet: Fleet, host: Host) -> None:
    first, second = fleet.first, host.bundle()
    devices = fleet.idle(MANY)
    broken = devices[3 : 3 + 4 * BROKEN : 4]
    faults = ["exit 127", "ulimit -v 150000", "kill -9 $$", "export PATH=/nowhere",
              "ulimit -f 8"]  # fmt: skip
    for number, device in enumerate(broken):
        device.inject(faults[number % len(faults)])
    watched = [devices[0], devices[1], devices[49]]
    with contextlib.ExitStack() as stack:
        clients = []
        for device in watched:
            device.serve()
            clients.append(stack.enter_context(Client(device.serving, [first, second], pause=0.05)))
        log = host.log()
        flags = [str(second.file), "--inventory", str(host.inventory(devices)), "--no-serve",
                 "--log", str(log), "--canary", "1", "--batch", "10"]  # fmt: skip

        stopped = host.deploy(*flags, "--max-failures", "3")
        assert stopped.code == 1, stopped.said
        found = states(log)
        assert 3 < sum(state == "failed" for state in found.values()) < BROKEN
        assert sum(device.current() == second.id for device in devices) < MANY - BROKEN

        rest = host.deploy(*flags, "--max-failures", "50")
        assert rest.code == 1, rest.said
        for device in devices:
            assert device.current() == (first if device in broken else second).id
        for device in broken:
            device.mend()
        last = host.deploy(*flags)
        assert last.code == 0, last.said
        assert {device.current() for device in devices} == {second.id}
        assert set(states(log).values()) == {"done"}
        for client in clients:
            client.check(first.id, second.id)


def test_canary_fails_and_nobody_else_is_visited(fleet: Fleet, host: Host) -> None:
    devices = fleet.idle(3)
    devices[0].inject("exit 127")
    before = [sorted(device.root.rglob("*")) for device in devices]
    done = host.deploy(
        str(host.bundle().file), "--inventory", str(host.inventory(devices)), "--canary", "1"
    )
    assert done.code == 1, done.said
    assert [sorted(device.root.rglob("*")) for device in devices] == before
