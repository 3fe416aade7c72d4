"""Which devices are visited, in what order and how many at a time, and when it stops."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import new_device
from host import REPOSITORY, Host
from sshd import USER, Device

# What a device does: it notes when it was visited, and fails or not.
VISITED = """
name = os.path.basename(root)
os.makedirs(root, exist_ok=True)
step("check")
with open(root + ".visits", "a") as file:
    file.write("%r " % time.monotonic())
    file.flush()
    time.sleep(0.3)
    step("switch")
    file.write("%r\\n" % time.monotonic())
if os.path.exists(root + ".fails"):
    say(event="error", step="check", kind="failed", text="it was told to fail", rolled_back=False)
    sys.exit(1)
say(event="result", release="0123", engine="e")
"""


class Fleet:
    """Any number of devices behind one SSH server, each with a folder of its own."""

    def __init__(self, device: Device, host: Host, folder: Path) -> None:
        self._device, self._host, self._folder = device, host, folder
        self._root = device.home / folder.name
        self._root.mkdir()

    def __call__(self, count: int, log: bool = False, **rollout: Any) -> dict[str, Any]:
        defaults = {"canary": 0, "batch": count, "max_failures": 0, "parallel": 4}
        devices = [
            {"name": f"d{number}", "host": "127.0.0.1", "user": USER, "port": self._device.port,
             "identity": str(self._host.identity), "root": str(self._root / f"d{number}")}
            for number in range(count)
        ]  # fmt: skip
        asked = {
            "devices": devices, "script": VISITED, "rollout": {**defaults, **rollout},
            "known_hosts": str(self._host.known_hosts),
            "log": str(self._folder / "log") if log else None,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("roll_out.py"))],
            input=json.dumps(asked), capture_output=True, text=True, timeout=300,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self._folder),
                 "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests/pipeline"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["connections_left"] == 0
        return found

    def visits(self, name: str) -> list[tuple[float, float]]:
        """From when to when a device was visited."""
        try:
            lines = (self._root / f"{name}.visits").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [(float(line.split()[0]), float(line.split()[1])) for line in lines]

    def breaks(self, *names: str) -> None:
        for name in names:
            (self._root / f"{name}.fails").touch()

    def mend(self) -> None:
        for file in self._root.glob("*.fails"):
            file.unlink()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, python: Path, host: Host) -> Iterator[Device]:
    device = new_device(tmp_path_factory.mktemp("server"), python, host, 0)
    yield device
    device.kill_everything()


@pytest.fixture
def fleet(server: Device, host: Host, tmp_path: Path) -> Fleet:
    return Fleet(server, host, tmp_path)


def at_once(fleet: Fleet, count: int) -> int:
    """The most devices that were visited at the same time."""
    visits = [visit for number in range(count) for visit in fleet.visits(f"d{number}")]
    return max(sum(begin <= moment < end for begin, end in visits) for moment, _ in visits)


def states(found: dict[str, Any], state: str) -> list[str]:
    return [name for name, value in found["states"].items() if value == state]


def test_so_many_at_a_time(fleet: Fleet) -> None:
    found = fleet(12, parallel=4)
    assert list(found["states"].items()) == [(f"d{number}", "done") for number in range(12)]
    assert 1 < at_once(fleet, 12) <= 4
    assert found["most_connections"] <= 4
    assert all(len(fleet.visits(f"d{number}")) == 1 for number in range(12))


def test_canaries_and_batches_wait_for_each_other(fleet: Fleet) -> None:
    fleet(8, canary=2, batch=3)
    stages = [("d0", "d1"), ("d2", "d3", "d4"), ("d5", "d6", "d7")]
    times = [[visit for name in stage for visit in fleet.visits(name)] for stage in stages]
    for before, after in zip(times, times[1:], strict=False):
        assert max(end for _, end in before) < min(begin for begin, _ in after)


def test_failed_canary_stops_it_all(fleet: Fleet) -> None:
    fleet.breaks("d1")
    found = fleet(6, canary=2, max_failures=5)
    assert states(found, "failed") == ["d1"]
    assert states(found, "not started") == ["d2", "d3", "d4", "d5"]
    assert not fleet.visits("d2")
    assert found["texts"]["d1"] == "it was told to fail"


def test_stops_once_more_than_so_many_failed(fleet: Fleet) -> None:
    fleet.breaks("d1", "d2", "d4", "d5")
    found = fleet(8, parallel=1, max_failures=2)
    assert states(found, "failed") == ["d1", "d2", "d4"]
    assert states(found, "done") == ["d0", "d3"]
    assert states(found, "not started") == ["d5", "d6", "d7"]


def test_goes_on_where_it_stopped(fleet: Fleet) -> None:
    fleet.breaks("d0", "d2")
    first = fleet(5, log=True, parallel=1, max_failures=1)
    assert states(first, "done") == ["d1"]
    assert states(first, "not started") == ["d3", "d4"]
    fleet.mend()
    second = fleet(5, log=True, canary=1, max_failures=0)
    assert set(second["states"].values()) == {"done"}
    assert second["texts"]["d1"] == "done before"
    assert [len(fleet.visits(f"d{number}")) for number in range(5)] == [2, 1, 2, 1, 1]


def test_memory_and_connections_do_not_grow_with_the_fleet(fleet: Fleet) -> None:
    """From the eighth device to the last: paramiko's own first connections have their price."""
    found = fleet(40, parallel=4)
    assert found["most_connections"] <= 4
    assert set(found["states"].values()) == {"done"}
    assert found["kilobytes"][-1] - found["kilobytes"][8] < 32 * 100  # for each device


def test_accepted_host_key_holds_from_then_on(server: Device, host: Host, tmp_path: Path) -> None:
    """Also for whom is next in the same run, though pyinfra reads known_hosts only once."""
    hosts = tmp_path / "known_hosts"
    names = [server.target, f"127.0.0.1:{server.port}"]
    devices = [word for name in names for word in ("--device", name)]
    done = host.deploy(
        "--status", *devices, "--identity", str(host.identity), "--known-hosts", str(hosts),
        "--accept-new-host-key", "--parallel", "1",
    )  # fmt: skip
    assert done.code == 0, done.said
    assert hosts.read_text().split() == server.known_host.split()
