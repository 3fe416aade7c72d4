"""Power of PCs: processors by RAPL, the GPU by NVML, and both together."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import nvml, power
from benchmarks.power import rapl
from engines.targets import Gpu

POWERCAP = "sys/class/powercap/"
RANGE = 262_143_328_850  # microjoules, of Intel's processors
NOBODY = 65534


def zone(folder: str, name: str, microjoules: int, most: int = RANGE) -> dict[str, str]:
    values = {"name": name, "energy_uj": microjoules, "max_energy_range_uj": most}
    return {f"{POWERCAP}{folder}/{file}": f"{value}\n" for file, value in values.items()}


# Two processors, of which the second tells nothing of its memory, in a board with psys.
SERVER = {
    **zone("intel-rapl:0", "package-0", 5_000_000),
    **zone("intel-rapl:0:0", "core", 1_000_000),
    **zone("intel-rapl:0:1", "dram", 2_000_000),
    **zone("intel-rapl:1", "package-1", 7_000_000),
    **zone("intel-rapl:1:0", "uncore", 0),
    **zone("intel-rapl:2", "psys", 9_000_000),
    # The same processor by another way; counted, it would be there twice.
    **zone("intel-rapl-mmio:0", "package-0", 5_000_000),
}
AMD = {
    **zone("intel-rapl:0", "package-0", 100, 65_532_610_987),
    **zone("intel-rapl:0:0", "core", 50, 65_532_610_987),
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def count(root: Path, folder: str, microjoules: int) -> None:
    (root / POWERCAP / folder / "energy_uj").write_text(f"{microjoules}\n")


class Clock:
    """Stands still until it is told to go on; waiting lets the processor use a joule."""

    def __init__(self, root: Path) -> None:
        self.now, self._root = 1000.0, root

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        file = self._root / POWERCAP / "intel-rapl:0/energy_uj"
        if file.exists() and file.read_text().strip().isdigit():
            file.write_text(f"{int(file.read_text()) + 1_000_000}\n")


@pytest.fixture(autouse=True)
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """No GPU of the machine of the tests is seen, and the time is the tests'."""
    found = Clock(tmp_path)
    monkeypatch.setattr(rapl, "time", found)
    monkeypatch.setattr(nvml, "find", lambda: None)
    monkeypatch.setattr(power.nvml, "find_gpus", list)
    return found


def test_which_domains_count(tmp_path: Path) -> None:
    source, reason = power.find(write(tmp_path, SERVER))
    assert source is not None
    assert reason is None
    assert source.name == "RAPL"
    assert {rail.name: rail.included for rail in source.rails} == {
        "package-0": True, "package-0 core": False, "package-0 dram": True,
        "package-1": True, "package-1 uncore": False, "psys": False,
    }  # fmt: skip
    assert len(source.rails) == 6
    assert all(rail.why for rail in source.rails)


def test_joules_of_all_that_count_are_added(tmp_path: Path, clock: Clock) -> None:
    source, _ = power.find(write(tmp_path, SERVER))
    assert source is not None
    start = source.read()["energy_j"]
    clock.now += 0.5
    count(tmp_path, "intel-rapl:0", 16_000_000)  # 10 J: finding it used one of the 11
    count(tmp_path, "intel-rapl:0:1", 3_000_000)  # 1 J of memory
    count(tmp_path, "intel-rapl:1", 11_000_000)  # 4 J
    count(tmp_path, "intel-rapl:0:0", 9_000_000)  # in package already
    count(tmp_path, "intel-rapl:2", 99_000_000)  # has package in it
    assert source.read() == {
        "energy_j": pytest.approx(start + 15),
        "power_w": pytest.approx(30),
    }


def test_counters_that_go_back_to_0(tmp_path: Path, clock: Clock) -> None:
    source, _ = power.find(write(tmp_path, AMD))
    assert source is not None
    count(tmp_path, "intel-rapl:0", 65_532_610_987 - 2_000_000)
    start = source.read()["energy_j"]
    clock.now += 1
    count(tmp_path, "intel-rapl:0", 3_000_000)
    assert source.read() == {
        "energy_j": pytest.approx(start + 5),
        "power_w": pytest.approx(5),
    }


@settings(deadline=None, max_examples=50)
@given(rises=st.lists(st.integers(0, 999), max_size=30), first=st.integers(0, 999))
def test_whatever_it_rises_by_is_counted(rises: list[int], first: int) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        counter = folder / "energy_uj"
        counter.write_text(str(first))
        source = rapl.Rapl([rapl.Zone(power.Rail("package-0", True, ""), counter, 1000.0)], [])
        assert source.read() == {"energy_j": 0.0}
        total = first
        for rise in rises:
            total += rise
            counter.write_text(str(total % 1000))
            found = source.read()["energy_j"]
            assert found == pytest.approx((total - first) / 1e6)
    finally:
        shutil.rmtree(folder)


def test_a_counter_that_can_not_be_read_for_a_while(tmp_path: Path, clock: Clock) -> None:
    source, _ = power.find(write(tmp_path, AMD))
    assert source is not None
    count(tmp_path, "intel-rapl:0", 0)
    start = source.read()["energy_j"]
    clock.now += 1
    file = tmp_path / POWERCAP / "intel-rapl:0/energy_uj"
    for damaged in (b"", b"\xff\n", b"nan", b"9" * 5000):
        file.write_bytes(damaged)
        assert source.read() == {}
    file.unlink()
    assert source.read() == {}
    clock.now += 1
    file.write_text("6000000")
    assert source.read() == {"energy_j": pytest.approx(start + 6), "power_w": pytest.approx(3)}


@pytest.mark.parametrize("damaged", [b"", b"text", b"\xff\xfe\0", b"-1", b"0", b"9" * 5000, b"nan"])
def test_damaged_trees_never_raise(tmp_path: Path, damaged: bytes) -> None:
    source, _ = power.find(write(tmp_path, SERVER))
    assert source is not None
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.write_bytes(damaged)
    source.read()
    found, reason = power.find(tmp_path)
    assert found is None
    assert reason


def test_zone_without_a_range_is_named_but_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, SERVER)
    (tmp_path / POWERCAP / "intel-rapl:0:1/max_energy_range_uj").unlink()
    source, _ = power.find(tmp_path)
    assert source is not None
    assert ("package-0 dram", False, "can't be read") in source.rails


def test_counters_that_stand_still(tmp_path: Path) -> None:
    tree = {name.replace("rapl:0", "rapl:7"): text for name, text in AMD.items()}
    assert power.find(write(tmp_path, tree)) == (None, rapl.STILL)  # the clock moves rapl:0 only


def test_machine_without_any(tmp_path: Path) -> None:
    assert power.find(tmp_path) == (None, rapl.NONE)


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder for a user who is not root: that one may read everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_counters_for_root_only(nobodys: Path) -> None:
    write(nobodys, AMD)
    for file in nobodys.rglob("energy_uj"):
        file.chmod(0o400 if os.geteuid() == 0 else 0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        source, reason = power.find(nobodys)
    finally:
        os.seteuid(user)
    assert source is None
    assert reason is not None
    assert "root only (CVE-2020-8694)" in reason
    assert "chmod o+r /sys/class/powercap/" in reason


class NvmlError(Exception):
    """As pynvml has one."""


def gpu(milliwatts: Any, millijoules: Any, count: int = 1, name: Any = "NVIDIA H100") -> nvml.Nvml:
    """A GPU as pynvml shows it; None is what it does not tell."""

    def answer(value: Any) -> Any:
        def function(*handle: Any) -> Any:
            assert handle in (("the first",), ())
            if value is None:
                raise NvmlError("not supported")
            return value

        return function

    return nvml.Nvml(
        SimpleNamespace(
            NVMLError=NvmlError,
            nvmlDeviceGetName=answer(name),
            nvmlDeviceGetCount=answer(count),
            nvmlDeviceGetPowerUsage=answer(milliwatts),
            nvmlDeviceGetTotalEnergyConsumption=answer(millijoules),
        ),
        "the first",
    )


def test_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "find", lambda: gpu(71_250, 5_000_500))
    source, reason = power.find(tmp_path)
    assert source is not None
    assert reason is None
    assert source.name == "NVML"
    assert source.read() == {"power_w": 71.25, "energy_j": 5000.5}
    assert source.rails == [
        ("GPU (NVIDIA H100)", True, "the card with its memory"),
        ("CPU", False, rapl.NONE),  # and that the processor is not in it
    ]
    assert source.sees == {"gpu"}


def test_other_gpus_are_said_not_to_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvml, "find", lambda: gpu(1000, None, count=4, name=b"Tesla\x1b"))
    source, _ = power.find(tmp_path)
    assert source is not None
    assert [rail.name for rail in source.rails] == ["GPU (Tesla\\x1b)", "other GPUs", "CPU"]
    assert [rail.included for rail in source.rails] == [True, False, False]
    assert source.read() == {"power_w": 1.0}  # before Volta there is no counter


def test_gpu_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "find", lambda: gpu(None, None, count=None, name=None))  # type: ignore[arg-type]
    assert power.find(tmp_path) == (None, f"the GPU does not tell its power; {rapl.NONE}")


def test_gpu_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power.nvml, "find_gpus", lambda: [Gpu("NVIDIA H100", (9, 0))])
    monkeypatch.setattr(power.nvml.importlib.util, "find_spec", lambda _: None)
    source, reason = power.find(tmp_path)
    assert source is None
    assert reason is not None
    assert "pip install nvidia-ml-py" in reason
    # The processor alone is not taken for the whole.
    source, _ = power.find(write(tmp_path, AMD))
    assert source is not None
    assert source.name == "RAPL"
    assert source.rails[-1].name == "GPU"
    assert not source.rails[-1].included
    assert "; not included: " in source.describe()
    assert "GPU (reading a GPU's power needs nvidia-ml-py" in source.describe()


def test_gpu_and_processor_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(nvml, "find", lambda: gpu(70_000, 5_000_000))
    source, _ = power.find(write(tmp_path, AMD))
    assert source is not None
    assert source.name == "NVML + RAPL"
    assert source.sees == {"cpu", "gpu"}
    assert [rail.name for rail in source.rails if rail.included] == [
        "GPU (NVIDIA H100)", "package-0"
    ]  # fmt: skip
    count(tmp_path, "intel-rapl:0", 0)
    start = source.read()["energy_j"]
    clock.now += 2
    count(tmp_path, "intel-rapl:0", 60_000_000)
    assert source.read() == {
        "power_w": pytest.approx(100),
        "energy_j": pytest.approx(start + 60),
    }
    # One of them alone would be too little.
    count(tmp_path, "intel-rapl:0", 0)
    (tmp_path / POWERCAP / "intel-rapl:0/energy_uj").write_text("")
    assert source.read() == {}


def test_gpu_without_a_counter_beside_a_processor_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(nvml, "find", lambda: gpu(70_000, None))
    source, _ = power.find(write(tmp_path, AMD))
    assert source is not None
    count(tmp_path, "intel-rapl:0", 0)
    source.read()
    clock.now += 2
    count(tmp_path, "intel-rapl:0", 60_000_000)
    assert source.read() == {"power_w": pytest.approx(100)}


def test_this_machine() -> None:
    source, reason = power.find()
    assert (source is None) != (reason is None)
    if source is not None:
        source.read()
        source.close()
