"""What a machine is and does, from system files as each kind of machine has them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import conditions, nvml
from benchmarks.conditions import ClocksProbe, cpu_name, differences, jetson, look
from engines.engine import processors
from engines.targets import Gpu
from pipeline.machine import machine

CPU = "sys/devices/system/cpu/cpu{}/cpufreq/"
THERMAL = "sys/class/thermal/"
PC_CPU = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD Ryzen 7 5800X\ncpu MHz\t\t: {}\n\n"
ARM_CORE = "processor\t: {}\nCPU implementer\t: 0x41\nCPU part\t: {}\n\n"


def cpu(number: int, governor: str, low: int, now: int, high: int) -> dict[str, str]:
    values = {"governor": governor, "min_freq": low, "cur_freq": now, "max_freq": high}
    return {f"{CPU.format(number)}scaling_{name}": str(value) for name, value in values.items()}


def sensors(zones: dict[str, str], coolers: dict[str, str]) -> dict[str, str]:
    files = {}
    for number, (kind, value) in enumerate(zones.items()):
        files[f"{THERMAL}thermal_zone{number}/type"] = kind
        files[f"{THERMAL}thermal_zone{number}/temp"] = value
    for number, (kind, value) in enumerate(coolers.items()):
        files[f"{THERMAL}cooling_device{number}/type"] = kind
        files[f"{THERMAL}cooling_device{number}/cur_state"] = value
    return files


def gpu(folder: str, low: int, now: int, high: int) -> dict[str, str]:
    values = {"min_freq": low, "cur_freq": now, "max_freq": high}
    return {f"sys/class/devfreq/{folder}/{name}": str(value) for name, value in values.items()}


PC = {
    "proc/cpuinfo": PC_CPU.format(3600) + PC_CPU.format(2200),
    "proc/loadavg": "0.42 0.30 0.20 2/611 4711",
    **cpu(0, "powersave", 800_000, 3_600_000, 4_700_000),
    **cpu(1, "powersave", 800_000, 2_200_000, 4_700_000),
    **sensors(
        {"acpitz": "27800", "x86_pkg_temp": "51000", "acpitz ": "16800"},
        {"Fan": "1", "TCC Offset": "3", "intel_powerclamp": "-1"},
    ),
}
HEAT = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_count"
INTEL = {
    "proc/cpuinfo": PC_CPU.format(3600).replace("AMD Ryzen 7 5800X", "Intel(R) Core(TM) i7-8700"),
    "proc/loadavg": PC["proc/loadavg"],
    **sensors({"x86_pkg_temp": "71000"}, {"Processor": "0", "intel_powerclamp": "-1"}),
    **{HEAT.format(n, of): "9" for n in (0, 1) for of in ("core", "package")},
}
# JetPack 4 in MAXP_CORE_ARM: the Denver cores, 1 and 2, are off and have no clocks.
TX2 = {
    "proc/device-tree/model": "quill\0",
    "proc/device-tree/compatible": "nvidia,p2597-0000+p3310-1000\0nvidia,quill\0nvidia,tegra186\0",
    "proc/cpuinfo": "".join(f"processor : {n}\nmodel name : ARMv8 Processor rev 3 (v8l)\n"
                            for n in (0, 3, 4, 5)),
    "proc/loadavg": "1.31 0.92 0.70 3/388 8120",
    **{key: value for n in (0, 3, 4, 5)
       for key, value in cpu(n, "schedutil", 345_600, 1_420_800, 2_035_200).items()},
    **gpu("17000000.gp10b", 114_750_000, 114_750_000, 1_122_000_000),
    **gpu("15340000.vic", 115_200_000, 115_200_000, 1_024_000_000),
    **sensors(
        {"BCPU-therm": "42500", "MCPU-therm": "42500", "GPU-therm": "39500", "PLL-therm": "42500",
         "Tboard_tegra": "38000", "Tdiode_tegra": "39250", "PMIC-Die": "100000",
         "thermal-fan-est": "41300"},
        {"pwm-fan": "2", "bcpu-throttle-alert": "0", "mcpu-throttle-alert": "0",
         "gpu-throttle-alert": "0", "emergency-balanced": "0"},
    ),
    "usr/sbin/nvpmodel": "echo 'NVPM WARN: fan mode is not set!'\n"
                         "echo 'NV Power Mode: MAXP_CORE_ARM'\necho 3",
}  # fmt: skip
# JetPack 6 after jetson_clocks, hot. Zones of engines that are switched off can't be read.
ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0",
    "proc/loadavg": "0.12 0.13 0.09 1/500 99",
    **{key: value for n in range(12)
       for key, value in cpu(n, "schedutil", 2_201_600, 2_201_600, 2_201_600).items()},
    **gpu("17000000.gpu", 1_300_500_000, 1_300_500_000, 1_300_500_000),
    **sensors(
        {"cpu-thermal": "92125", "gpu-thermal": "98000", "cv0-thermal": "", "tj-thermal": "98000"},
        {"pwm-fan": "4", "cpu-throttle-alert": "0", "gpu-throttle-alert": "1",
         "hot-surface-alert": "1", "devfreq-17000000.gpu": "18", "cpufreq-cpu0": "0"},
    ),
    "usr/sbin/nvpmodel": "echo 'NV Power Mode: MAXN SUPER'\necho 2",
    **{f"sys/class/hwmon/hwmon3/oc{n}_{name}": value for n in (1, 2, 3)
       for name, value in (("throt_en", str(int(n != 2))), ("event_cnt", "15"))},
}  # fmt: skip
TREES = {"PC": PC, "Intel": INTEL, "TX2": TX2, "Orin": ORIN, "container": {}}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        program = name.endswith("nvpmodel")
        file.write_text("#!/bin/sh\n" + text if program else text + "\n")
        file.chmod(0o755 if program else 0o644)
    return root


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever GPU the machine of the tests has, these trees know of none but their own."""
    monkeypatch.setattr(conditions, "find_gpus", list)
    monkeypatch.setattr(nvml, "find", lambda: None)


def test_pc(tmp_path: Path) -> None:
    assert look(write(tmp_path, PC)) == {
        "machine": "AMD Ryzen 7 5800X",
        "processors": processors(),
        "governor": "powersave",
        "cpu_mhz": 2900.0,
        "load": 0.42,
        "gpus": [],
        "gpu_mhz": None,
        "power_mode": None,
        "jetson_clocks": None,
        "temperatures_c": {"acpitz": 27.8, "x86_pkg_temp": 51.0, "acpitz thermal_zone2": 16.8},
        "throttled": [],
    }
    # Fans and Intel's offset have states above 0 and throttle nothing.
    assert ClocksProbe(tmp_path).read() == {"cpu_mhz": 2900.0, "temperature_c": 51.0}


def test_tx2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "find_gpus", lambda: [Gpu("NVIDIA Tegra X2", (6, 2))])
    found = look(write(tmp_path, TX2))
    zones = found.pop("temperatures_c")
    assert found == {
        "machine": "Jetson TX2",
        "processors": processors(),
        "governor": "schedutil",
        "cpu_mhz": 1420.8,
        "load": 1.31,
        "gpus": ["NVIDIA Tegra X2"],
        "gpu_mhz": 114.75,
        "power_mode": "MAXP_CORE_ARM (3)",
        "jetson_clocks": False,
        "throttled": [],
    }
    assert len(zones) == 8
    assert zones["PMIC-Die"] == 100.0
    assert ClocksProbe(tmp_path).read() == {
        "cpu_mhz": 1420.8, "gpu_mhz": 114.75, "temperature_c": 42.5, "throttled": 0.0
    }  # fmt: skip


def test_orin(tmp_path: Path) -> None:
    found = look(write(tmp_path, ORIN))
    assert found["machine"] == "Jetson AGX Orin"
    assert (found["power_mode"], found["jetson_clocks"]) == ("MAXN SUPER (2)", True)
    assert (found["cpu_mhz"], found["gpu_mhz"]) == (2201.6, 1300.5)
    assert found["temperatures_c"] == {"cpu-thermal": 92.125, "gpu-thermal": 98, "tj-thermal": 98}
    assert found["throttled"] == ["gpu-throttle-alert", "devfreq-17000000.gpu"]
    assert ClocksProbe(tmp_path).read() == {
        "cpu_mhz": 2201.6, "gpu_mhz": 1300.5, "temperature_c": 98.0, "throttled": 1.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tree", "counter"),
    [
        (INTEL, HEAT.format(0, "core")),
        (INTEL, HEAT.format(1, "package")),
        (sensors({}, {}) | {k: v for k, v in ORIN.items() if "hwmon" in k},
         "sys/class/hwmon/hwmon3/oc3_event_cnt"),
    ],
)  # fmt: skip
def test_a_counter_tells_that_throttling_began_since_the_last_reading(
    tmp_path: Path, tree: dict[str, str], counter: str
) -> None:
    write(tmp_path, tree)
    probe = ClocksProbe(tmp_path)
    assert [probe.read()["throttled"] for _ in range(2)] == [0.0, 0.0]  # what was before is not
    write(tmp_path, {counter: "16"})
    assert look(tmp_path)["throttled"] == []  # nor at one moment
    assert probe.throttled() == [counter]
    assert probe.read()["throttled"] == 0.0
    (tmp_path / counter).unlink()
    assert probe.read()["throttled"] == 0.0
    write(tmp_path, {counter: "17"})  # what was missed is told late
    assert probe.read()["throttled"] == 1.0
    write(tmp_path, {counter: "0"})
    assert probe.read()["throttled"] == 0.0


def test_events_that_throttle_nothing_are_none(tmp_path: Path) -> None:
    probe = ClocksProbe(write(tmp_path, {k: v for k, v in ORIN.items() if "hwmon" in k}))
    assert probe.throttled() == []
    write(tmp_path, {"sys/class/hwmon/hwmon3/oc2_event_cnt": "16"})
    assert probe.throttled() == []


def test_container_that_shows_nothing(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.pop("machine")
    assert found.pop("processors") == processors()
    assert not any(found.values())
    assert ClocksProbe(tmp_path).read() == {}


def test_this_machine_can_be_looked_at() -> None:
    found = look()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["load"] is not None
    assert found["machine"] == machine()["cpu"] or found["machine"].startswith("Jetson ")
    assert machine() == machine()


@pytest.mark.parametrize(
    ("folder", "is_gpu"),
    [("57000000.gpu", True), ("17000000.gv11b", True), ("17000000.ga10b", True),
     ("gpu-gpc-0", True), ("gpu-nvd-0", False), ("15340000.vic", False), ("bwmgr", False)],
)  # fmt: skip
def test_clock_of_each_boards_gpu(tmp_path: Path, folder: str, is_gpu: bool) -> None:
    write(tmp_path, gpu(folder, 1, 76_800_000, 2))
    assert ClocksProbe(tmp_path).gpu_mhz() == (76.8 if is_gpu else None)


def test_clocks_are_held_only_where_all_are(tmp_path: Path) -> None:
    write(tmp_path, ORIN)
    held = jetson.clocks_are_held
    assert held(tmp_path) is True
    last = tmp_path / CPU.format(11) / "scaling_min_freq"
    last.write_text("729600\n")
    assert held(tmp_path) is False
    last.unlink()
    assert held(tmp_path) is True  # a processor that was switched off
    write(tmp_path, gpu("17000000.gpu", 1, 1, 2))
    assert held(tmp_path) is False
    shutil.rmtree(tmp_path / "sys/class/devfreq")
    assert held(tmp_path) is None


def test_governors_that_differ(tmp_path: Path) -> None:
    write(tmp_path, {**PC, **cpu(1, "performance", 1, 1, 1)})
    assert look(tmp_path)["governor"] == "mixed"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hardware\t: BCM2711\nCPU part : 0xd08\n", "BCM2711"),
        (ARM_CORE.format(0, "0xd05") + ARM_CORE.format(1, "0xd0b") + ARM_CORE.format(2, "0xd05"),
         f"{os.uname().machine} (0x41 0xd05, 0x41 0xd0b)"),
        ("model name\t: \x1b[31mRed\x07 CPU\n", "[31mRed CPU"),
        ("model name\t:\nHardware : Qualcomm", "Qualcomm"),
    ],
)  # fmt: skip
def test_name_of_the_processor(tmp_path: Path, text: str, name: str) -> None:
    assert cpu_name(write(tmp_path, {"proc/cpuinfo": text})) == name


def test_nominal_clock_where_there_is_no_other(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": PC["proc/cpuinfo"]})
    assert look(tmp_path)["cpu_mhz"] == 2900.0
    assert ClocksProbe(tmp_path).read() == {}


GARBAGE = (b"", b"\xff\xfe\0garbage", b"-", b"nan", b"inf", b"-1", b"9" * 5000, b"1e999", b"1e308")


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("name", TREES)
def test_damaged_files_never_raise(tmp_path: Path, name: str, garbage: bytes) -> None:
    write(tmp_path, TREES[name])
    probe = ClocksProbe(tmp_path)
    for file in list(tmp_path.rglob("*")):
        if file.is_file():
            file.write_bytes(garbage)
    for found in (look(tmp_path), probe.read(), ClocksProbe(tmp_path).read()):
        json.dumps(found, allow_nan=False)
    assert look(tmp_path)["cpu_mhz"] is look(tmp_path)["gpu_mhz"] is None


def test_files_that_vanish_or_are_folders(tmp_path: Path) -> None:
    write(tmp_path, TX2)
    probe = ClocksProbe(tmp_path)
    for file in list(tmp_path.rglob("*")):
        if file.is_file():
            file.unlink()
            file.mkdir()
    assert probe.read() == ClocksProbe(tmp_path).read() == {}
    assert look(tmp_path)["load"] is None
    shutil.rmtree(tmp_path)
    assert probe.read() == {}


def test_power_mode_that_takes_too_long_or_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetson, "SECONDS", 0.2)
    write(tmp_path, {"usr/sbin/nvpmodel": "exec sleep 60"})
    start = time.monotonic()
    assert jetson.power_mode(tmp_path) is None
    assert time.monotonic() - start < 10
    (tmp_path / "usr/sbin/nvpmodel").write_bytes(b"\x7fELF")
    assert jetson.power_mode(tmp_path) is None
    (tmp_path / "usr/sbin/nvpmodel").chmod(0o644)
    assert jetson.power_mode(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN (0)"),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\r\n2\r\n", "MODE_15W_6CORE (2)"),
        (
            "NVPM VERB: Current mode: NV Power Mode: MAXN SUPER\n 2 \nNVPM VERB: PARAM",
            "MAXN SUPER (2)",
        ),
        ("NV Power Mode: 25W\nNVPM ERROR: no number\n1\n", "25W"),
        ("NV Power Mode:\n0\n", None),
        ("NVPM ERROR: failed to open /etc/nvpmodel.conf\n", None),
    ],
)
def test_what_nvpmodel_prints(text: str, mode: str | None) -> None:
    assert jetson.parse_power_mode(text) == mode


@given(
    before=st.lists(st.text().filter(lambda t: "NV Power Mode" not in t), max_size=3),
    name=st.text("ABCXYZ0123456789_ -", min_size=1).filter(str.strip),
    number=st.integers(0, 9999),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_power_mode_is_found_between_other_lines(
    before: list[str], name: str, number: int, end: str
) -> None:
    text = end.join([*before, f"NV Power Mode: {name}", str(number), ""])
    assert jetson.parse_power_mode(text) == f"{name.strip()} ({number})"


@given(st.text() | st.text().map("NV Power Mode: {}".format))
def test_any_output_of_nvpmodel_can_be_taken(text: str) -> None:
    mode = jetson.parse_power_mode(text)
    assert mode is None or (mode.isprintable() and mode.strip())


class NvmlError(Exception):
    """As pynvml has one."""


def fake_nvml(
    reasons: int | None, init: Exception | None = None, named: str = "ThrottleReasons"
) -> Any:
    """The part of pynvml that is used, for a GPU that can't tell its temperature."""

    def answer(value: Any) -> Any:
        def function(*_: Any) -> Any:
            if value is None or isinstance(value, Exception):
                raise value or NvmlError("not supported")
            return value

        return function

    return SimpleNamespace(
        NVMLError=NvmlError, NVML_CLOCK_SM=1, NVML_TEMPERATURE_GPU=0,
        nvmlInit=answer(init or 0), nvmlDeviceGetHandleByPciBusId=answer("handle"),
        nvmlDeviceGetClockInfo=answer(1980), nvmlDeviceGetTemperature=answer(None),
        **{f"nvmlDeviceGetCurrentClocks{named}": answer(reasons)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reasons", "throttled", "words"),
    [
        (0x1 | 0x2, 0.0, []),  # idle, clocks set by somebody
        (0x4 | 0x40, 1.0, ["GPU: power limit", "GPU: heat (hardware)"]),
        (None, None, []),
    ],
)
def test_gpu_of_a_pc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasons: int | None, throttled: float | None,
    words: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(nvml, "find", lambda: nvml.Nvml(fake_nvml(reasons), "handle"))
    found = look(write(tmp_path, PC))
    assert (found["gpu_mhz"], found["throttled"]) == (1980.0, words)
    read = ClocksProbe(tmp_path).read()
    assert (read["gpu_mhz"], read.get("throttled")) == (1980.0, throttled)
    assert read["temperature_c"] == 51.0
    # A Jetson's GPU is asked by its own files.
    assert ClocksProbe(write(tmp_path, gpu("17000000.gpu", 1, 3_000_000, 4))).gpu_mhz() == 3.0


@pytest.mark.parametrize(
    ("named", "told"), [("ThrottleReasons", ["heat"]), ("EventReasons", ["heat"]), ("", None)]
)
def test_libraries_of_every_age_tell_of_throttling(named: str, told: list[str] | None) -> None:
    assert nvml.Nvml(fake_nvml(0x20, named=named), "handle").throttled() == told


def test_library_that_finds_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(nvml, "_bus", lambda: b"0000:01:00.0")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(0, NvmlError("no driver")))
    assert nvml.find() is None
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(0))
    found = nvml.find()
    assert found is not None
    assert found.mhz() == 1980.0
    monkeypatch.setattr(nvml, "_bus", lambda: None)  # a driver, and no GPU that CUDA may use
    assert nvml.find() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.find() is None


BASE: dict[str, Any] = {
    "machine": "Jetson TX2", "processors": 4, "governor": "schedutil", "cpu_mhz": 2035.2,
    "load": 0.5, "gpus": ["NVIDIA Tegra X2"], "gpu_mhz": 1300.5, "power_mode": "MAXN (0)",
    "jetson_clocks": True, "temperatures_c": {"GPU-therm": 40.0}, "throttled": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"processors": 6}, "the numbers of processors differ: 4 and 6"),
        ({"governor": "performance"},
         "the governors of the processors' clocks differ: schedutil and performance"),
        ({"power_mode": "MAXQ (1)"}, "the power modes differ: MAXN (0) and MAXQ (1)"),
        ({"power_mode": None}, "the power modes differ: MAXN (0) and not known"),
        ({"jetson_clocks": False}, "the settings of jetson_clocks differ: on and off"),
        ({"gpus": []}, "the GPUs differ: NVIDIA Tegra X2 and none"),
        ({"gpu_mhz": 1122.0}, "the clocks of the GPU differ: 1300 and 1122 MHz"),
        ({"cpu_mhz": 1420.8}, "the clocks of the processors differ: 2035 and 1421 MHz"),
        ({"throttled": ["gpu-throttle-alert"]}, "the machine was throttled: gpu-throttle-alert"),
        ({"machine": "Jetson\nTX1", "governor": "x", "gpus": []},
         r"the machines differ: Jetson TX2 and Jetson\nTX1"),
    ],
)  # fmt: skip
def test_what_differs_is_named(change: dict[str, Any], sentence: str) -> None:
    assert differences(BASE, {**BASE, **change}) == [sentence]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"gpu_mhz": 1200.0, "cpu_mhz": 1900.0},  # less than 10 %
        {"gpu_mhz": None},
        {"load": 40.0},  # after a run, that is its own work
        {"temperatures_c": {"GPU-therm": 70.0}},
    ],
)
def test_what_may_differ(change: dict[str, Any]) -> None:
    assert differences(BASE, {**BASE, **change}) == []


def test_clocks_that_a_governor_moves_are_not_compared() -> None:
    free = {**BASE, "jetson_clocks": False}
    assert differences(free, {**free, "gpu_mhz": 114.75, "cpu_mhz": 345.6}) == []
    virtual = {**BASE, "jetson_clocks": None, "governor": None, "gpu_mhz": None}
    assert differences(virtual, {**virtual, "cpu_mhz": 2600.0}) == [
        "the clocks of the processors differ: 2035 and 2600 MHz"
    ]


def test_load_that_is_not_our_own() -> None:
    assert differences({**BASE, "load": 5.9}, BASE) == []
    assert differences({**BASE, "load": 6.1}, BASE) == [
        "other programs were at work: the load was 6.1 on 4 processors"
    ]


@given(*[st.dictionaries(st.sampled_from(list(BASE)), st.none() | st.booleans() | st.floats() |
         st.text() | st.lists(st.text() | st.none())) for _ in range(2)])  # fmt: skip
def test_conditions_of_a_damaged_report_can_be_compared(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    for sentence in differences(a, b):
        assert sentence.isprintable()
