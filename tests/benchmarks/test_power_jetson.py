"""Power of each Jetson, from sysfs trees and lines of tegrastats as they have them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import nvml, power
from benchmarks.monitor import Monitor
from benchmarks.power import ina3221, tegrastats
from benchmarks.power.rails import PARTS, choose
from engines.boards import BOARDS

DRIVERS = "sys/bus/i2c/drivers/"
Tree = dict[str, str]


def iio(address: str, number: int, *rails: tuple[str, int]) -> Tree:
    """A chip as JetPack 4 shows it: names and milliwatts."""
    folder = f"{DRIVERS}ina3221x/{address}/iio:device{number}/"
    files = {folder + "name": "ina3221x"}
    for channel, (name, milliwatts) in enumerate(rails):
        files[f"{folder}rail_name_{channel}"] = name
        files[f"{folder}in_power{channel}_input"] = str(milliwatts)
        files[f"{folder}in_voltage{channel}_input"] = "4800"
        files[f"{folder}in_current{channel}_input"] = str(milliwatts * 1000 // 4800)
    return files


def hwmon(address: str, number: int, *rails: tuple[str, int, int]) -> Tree:
    """A chip as later ones show it: names, millivolts and milliamperes."""
    folder = f"{DRIVERS}ina3221/{address}/hwmon/hwmon{number}/"
    files = {folder + "name": "ina3221", folder + "in7_label": "sum of shunt voltages",
             folder + "in7_input": "12"}  # fmt: skip
    for channel, (name, millivolts, milliamperes) in enumerate(rails, 1):
        files[f"{folder}in{channel}_label"] = name
        files[f"{folder}in{channel}_input"] = str(millivolts)
        files[f"{folder}curr{channel}_input"] = str(milliamperes)
        files[f"{folder}in{channel + 3}_input"] = "4"
    return files


TX2 = {
    **iio("0-0040", 0, ("VDD_SYS_GPU", 182), ("VDD_SYS_SOC", 730), ("VDD_4V0_WIFI", 0)),
    **iio("0-0041", 1, ("VDD_IN", 5297), ("VDD_SYS_CPU", 1917), ("VDD_SYS_DDR", 1241)),
    **iio("0-0042", 2, ("VDD_MUX", 7600), ("VDD_5V0_IO_SYS", 1500), ("VDD_3V3_SYS", 200)),
    **iio("0-0043", 3, ("VDD_3V3_IO_SLP", 10), ("VDD_1V8_IO", 20), ("VDD_3V3_SYS_M2", 0)),
}
ORIN_NX = hwmon("1-0040", 1, ("VDD_IN", 5080, 1440), ("VDD_CPU_GPU_CV", 5080, 320),
                ("VDD_SOC", 5080, 400))  # fmt: skip
AGX_ORIN = {
    **hwmon("1-0040", 3, ("VDD_GPU_SOC", 20000, 160), ("VDD_CPU_CV", 20000, 720),
            ("VIN_SYS_5V0", 5000, 1000)),
    **hwmon("1-0041", 4, ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 220), ("NC", 0, 0)),
}  # fmt: skip
XAVIER_RAILS = [("GPU", 19000, 0), ("CPU", 19000, 30), ("SOC", 19000, 60)]
XAVIER_RAILS_2 = [("CV", 19000, 0), ("VDDRQ", 19000, 20), ("SYS5V", 19000, 100)]
THOR = {
    **hwmon("2-0040", 1, ("VDD_GPU", 12000, -30), ("VDD_CPU_SOC_MSS", 12000, 550),
            ("VIN_SYS_5V0", 5000, 1300)),
    f"{DRIVERS}ina238/2-0044/hwmon/hwmon5/name": "ina238",
    f"{DRIVERS}ina238/2-0044/hwmon/hwmon5/power1_input": "27513000",
}  # fmt: skip

# Board -> its tree, watts, what is included.
BY_BOARD: dict[str, tuple[Tree, float, set[str]]] = {
    "TX2": (TX2, 5.297, {"VDD_IN"}),
    "TX2 NX": (iio("7-0040", 0, ("VDD_IN", 4100), ("VDD_CPU_GPU", 900), ("VDD_SOC", 800)), 4.1,
               {"VDD_IN"}),
    "Nano": (iio("6-0040", 0, ("POM_5V_IN", 2345), ("POM_5V_GPU", 42), ("POM_5V_CPU", 500)), 2.345,
             {"POM_5V_IN"}),
    "Xavier NX, JetPack 4": (
        iio("7-0040", 2, ("VDD_IN", 4067), ("VDD_CPU_GPU_CV", 738), ("VDD_SOC", 1353)), 4.067,
        {"VDD_IN"}),
    "AGX Xavier": ({**hwmon("1-0040", 0, *XAVIER_RAILS), **hwmon("1-0041", 1, *XAVIER_RAILS_2)},
                   3.99, {"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}),
    "AGX Orin": (AGX_ORIN, 22.6, {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"}),
    "Orin NX": (ORIN_NX, 7.3152, {"VDD_IN"}),
    "AGX Thor": (THOR, 27.513, {"VIN"}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of the tests may have a GPU; these trees have none."""
    monkeypatch.setattr(nvml, "find", lambda: None)
    monkeypatch.setattr(power.nvml, "find_gpus", list)


def write(root: Path, tree: Tree) -> Path:
    for name, text in tree.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


@pytest.mark.parametrize("board", BY_BOARD)
def test_each_board(tmp_path: Path, board: str) -> None:
    tree, watts, included = BY_BOARD[board]
    source, reason = power.find(write(tmp_path, tree))
    assert source is not None
    assert reason is None
    assert source.read() == {"power_w": pytest.approx(watts)}
    assert {rail.name for rail in source.rails if rail.included} == included
    # Every rail of the tree is named, with a reason.
    labels = {text for name, text in tree.items() if "rail_name" in name or "_label" in name}
    labels -= {"NC", "sum of shunt voltages"}
    assert {rail.name for rail in source.rails} == labels | included
    assert all(rail.why for rail in source.rails)


def test_rails_of_the_tx2(tmp_path: Path) -> None:
    source, _ = power.find(write(tmp_path, TX2))
    assert source is not None
    assert source.name == "INA3221 (iio)"
    whys = {rail.name: rail.why for rail in source.rails}
    assert whys["VDD_IN"] == "the whole module"
    assert whys["VDD_SYS_GPU"] == whys["VDD_4V0_WIFI"] == "part of VDD_IN"
    assert whys["VDD_MUX"] == whys["VDD_3V3_SYS_M2"] == "on the carrier board, not on the module"
    assert len(whys) == 12
    assert source.describe().startswith(
        "INA3221 (iio): VDD_IN (the whole module); not included: VDD_SYS_GPU (part of VDD_IN), "
    )


def test_names_of_the_sources(tmp_path: Path) -> None:
    for board, name in (("AGX Orin", "INA3221 (hwmon)"), ("AGX Thor", "INA238 (hwmon)")):
        source, _ = power.find(write(tmp_path / board, BY_BOARD[board][0]))
        assert source is not None
        assert source.name == name


def test_memory_of_agx_orin_is_not_counted_twice(tmp_path: Path) -> None:
    source, _ = power.find(write(tmp_path, AGX_ORIN))
    assert source is not None
    whys = {rail.name: (rail.included, rail.why) for rail in source.rails}
    assert whys["VDDQ_VDD2_1V8AO"] == (False, "fed from VIN_SYS_5V0")
    assert "NC" not in whys


def test_thor_without_its_kit_has_no_whole(tmp_path: Path) -> None:
    tree = {name: text for name, text in THOR.items() if "ina238" not in name}
    source, reason = power.find(write(tmp_path, tree))
    assert source is None
    assert reason is not None
    assert "VDD_GPU (not known what it is part of)" in reason


def test_sysfs_with_links_as_the_kernel_makes_them(tmp_path: Path) -> None:
    write(tmp_path / "made", TX2)
    for chip in (tmp_path / "made" / DRIVERS / "ina3221x").iterdir():
        device = tmp_path / "sys/devices/3160000.i2c/i2c-0" / chip.name
        device.parent.mkdir(parents=True, exist_ok=True)
        chip.rename(device)
        link = tmp_path / DRIVERS / "ina3221x" / chip.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(device, link.parent))
    source, _ = power.find(tmp_path)
    assert source is not None
    assert source.read() == {"power_w": 5.297}


def test_every_board_of_the_table_has_a_whole() -> None:
    for board in BOARDS:
        if board.rails is not None:
            assert any(rail.included for rail in choose(board.rails.names)), board.name
    assert len(PARTS) == 2  # AGX Xavier's and AGX Orin's


def test_part_of_a_sum_is_no_whole() -> None:
    for parts in PARTS:
        for left_out in parts:
            assert not any(rail.included for rail in choose(sorted(parts - {left_out})))


NAMES = [name for board in BOARDS if board.rails for name in board.rails.names]


@given(st.lists(st.sampled_from([*NAMES, "VDD_MUX", "", "VDD_NEW"])))
def test_no_rail_counts_twice(names: list[str]) -> None:
    rails = choose(names)
    assert [rail.name for rail in rails] == names
    included = [rail.name for rail in rails if rail.included]
    assert len(included) == len(set(included))
    if len(included) > 1:
        assert set(included) in PARTS
        assert not {"VDD_IN", "POM_5V_IN", "VIN"} & set(names)


def test_one_rail_that_fails_spoils_the_sum_of_that_moment(tmp_path: Path) -> None:
    source, _ = power.find(write(tmp_path, AGX_ORIN))
    assert source is not None
    file = tmp_path / DRIVERS / "ina3221/1-0040/hwmon/hwmon3/curr2_input"
    text = file.read_text()
    for damaged in ("", "text\n", "nan\n", "1e99\n"):
        file.write_text(damaged)
        assert source.read() == {}
    file.unlink()
    assert source.read() == {}
    file.mkdir()
    assert source.read() == {}
    file.rmdir()
    file.write_text(text)
    assert source.read() == {"power_w": pytest.approx(22.6)}


@pytest.mark.parametrize("damaged", [b"", b"text", b"\xff\xfe\0", b"-", b"9" * 5000, b"nan"])
@pytest.mark.parametrize("board", BY_BOARD)
def test_damaged_trees_never_raise(tmp_path: Path, board: str, damaged: bytes) -> None:
    write(tmp_path, BY_BOARD[board][0])
    source, _ = power.find(tmp_path)
    assert source is not None
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.write_bytes(damaged)
    assert source.read() == {}
    found, reason = power.find(tmp_path)
    assert found is None
    assert reason
    shutil.rmtree(tmp_path / "sys")
    assert source.read() == {}


def test_channel_that_is_switched_off_is_named(tmp_path: Path) -> None:
    write(tmp_path, TX2)
    (tmp_path / DRIVERS / "ina3221x/0-0041/iio:device1/in_power1_input").write_text("")
    source, _ = power.find(tmp_path)
    assert source is not None
    assert ("VDD_SYS_CPU", False, "can't be read") in source.rails
    assert source.read() == {"power_w": 5.297}


def test_tree_that_vanishes_while_it_is_monitored(tmp_path: Path) -> None:
    source, _ = power.find(write(tmp_path, ORIN_NX))
    with Monitor([source], 200.0) as monitor:
        time.sleep(0.05)
        shutil.rmtree(tmp_path / "sys")
        time.sleep(0.05)
    watts = monitor.series()["power_w"]
    assert watts[0] == pytest.approx(7.3152)
    assert watts[-1] is None


# What tegrastats prints, by generation: TX2 (henrygd/beszel#1631) and L4T 36 are lines of users,
# with fewer CPUs here. Of the others users give the rails of TX2's older names and one rail
# of L4T 39 only, and the names of Thor's: what is around them is filled in.
TEGRASTATS = {
    "TX2": (
        "RAM 3276/7859MB (lfb 5x4MB) SWAP 1626/12122MB (cached 181MB) CPU [44%@1421,49%@2031,"
        "67%@2034,17%@1420,25%@1419,8%@1420] EMC_FREQ 1%@1866 GR3D_FREQ 0%@114 APE 150 MTS fg 1% "
        "bg 1% PLL@42.5C MCPU@42.5C PMIC@50C Tboard@38C GPU@39.5C BCPU@42.5C thermal@41.3C "
        "Tdiode@39.25C VDD_SYS_GPU 182/182 VDD_SYS_SOC 730/730 VDD_4V0_WIFI 0/0 VDD_IN 5297/5297 "
        "VDD_SYS_CPU 1917/1917 VDD_SYS_DDR 1241/1241",
        {"VDD_SYS_GPU": 0.182, "VDD_SYS_SOC": 0.73, "VDD_4V0_WIFI": 0.0, "VDD_IN": 5.297,
         "VDD_SYS_CPU": 1.917, "VDD_SYS_DDR": 1.241},
        5.297,
    ),
    "TX2, older names": (
        "RAM 2020/7852MB (lfb 1164x4MB) CPU [9%@345,off,off,3%@345,1%@345,1%@345] EMC_FREQ 0% "
        "GR3D_FREQ 0%@1300 APE 150 MTS fg 0% bg 1% BCPU@38.5C MCPU@38.5C GPU@35.5C "
        "VDD_IN 7358/7453 VDD_CPU 3353/3429 VDD_GPU 228/228 VDD_SOC 990/990 VDD_WIFI 0/0 "
        "VDD_DDR 1318/1308",
        {"VDD_IN": 7.358, "VDD_CPU": 3.353, "VDD_GPU": 0.228, "VDD_SOC": 0.99, "VDD_WIFI": 0.0,
         "VDD_DDR": 1.318},
        7.358,
    ),
    "AGX Orin, L4T 36": (
        "11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) SWAP 126/31390MB (cached 0MB) "
        "CPU [90%@2201,84%@2201] EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,407] VIC_FREQ 115 "
        "NVDLA0_FREQ @1600 APE 174 CV0@73.625C CPU@77.281C GPU@69.125C tj@77.281C "
        "VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW "
        "VDDQ_VDD2_1V8AO 1091mW/1091mW",
        {"VDD_GPU_SOC": 3.15, "VDD_CPU_CV": 14.312, "VIN_SYS_5V0": 4.968,
         "VDDQ_VDD2_1V8AO": 1.091},
        22.43,
    ),
    "AGX Orin, L4T 39": (
        "11-21-2026 08:49:48 RAM 13983/62780MB (lfb 424x4MB) CPU [1%@729] GR3D_FREQ 12%@[1300,1300]"
        " cpu@52.968C/52.968C VDD_GPU_SOC 5139mW/5139mW/5140mW VDD_CPU_CV 1977mW/1976mW/1977mW "
        "VIN_SYS_5V0 4547mW/4546mW/4547mW NC 0mW/0mW/0mW VDDQ_VDD2_1V8AO 789mW/788mW/789mW",
        {"VDD_GPU_SOC": 5.139, "VDD_CPU_CV": 1.977, "VIN_SYS_5V0": 4.547,
         "VDDQ_VDD2_1V8AO": 0.789},
        11.663,
    ),
    "AGX Thor": (
        "RAM 3276/125772MB (lfb 5x4MB) CPU [1%@972] GR3D_FREQ @[1000,1000,1000] "
        "cpu@52.968C/53.1C VDD_GPU -392mW/-390mW/0mW VDD_CPU_SOC_MSS 3924mW/3920mW/3930mW "
        "VIN_SYS_5V0 6520mW/6500mW/6530mW VIN 23010mW/23000mW/23400mW",
        {"VDD_GPU": -0.392, "VDD_CPU_SOC_MSS": 3.924, "VIN_SYS_5V0": 6.52, "VIN": 23.01},
        23.01,
    ),
}  # fmt: skip


def program(root: Path, lines: str, between: float = 0.02) -> Path:
    """Install a tegrastats that prints `lines` again and again, and its process's number."""
    file = root / "usr/bin/tegrastats"
    file.parent.mkdir(parents=True, exist_ok=True)
    (root / "lines").write_text(lines + "\n")
    file.write_text(
        f'#!/bin/sh\n[ "$*" = "--interval 100" ] || exit 2\necho $$ >> {root}/pids\n'
        "end=$(($(date +%s) + 60))\n"  # a test that fails may leave it running
        f"while [ $(date +%s) -lt $end ]; do cat {root}/lines; sleep {between}; done\n"
    )
    file.chmod(0o755)
    return root


def processes(root: Path) -> list[int]:
    return [int(word) for word in (root / "pids").read_text().split()]


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("board", TEGRASTATS)
def test_lines_of_tegrastats(board: str) -> None:
    line, watts, _ = TEGRASTATS[board]
    assert tegrastats.parse(line) == watts
    assert tegrastats.parse(line + "\r\n") == watts


@pytest.mark.parametrize("board", TEGRASTATS)
def test_tegrastats_is_read_and_ended(tmp_path: Path, board: str) -> None:
    line, watts, total = TEGRASTATS[board]
    source, reason = power.find(program(tmp_path, line))
    assert source is not None
    assert reason is None
    assert source.name == "tegrastats"
    assert {rail.name for rail in source.rails} == set(watts)
    assert not any(map(is_running, processes(tmp_path)))  # the one that was asked for its rails
    with Monitor([source], 20.0) as monitor:
        end = time.monotonic() + 20
        while len([w for w in monitor.series().get("power_w", []) if w is not None]) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert is_running(processes(tmp_path)[-1])
    read = [w for w in monitor.series()["power_w"] if w is not None]
    assert read == [pytest.approx(total)] * len(read)
    assert len(processes(tmp_path)) == 2
    assert not any(map(is_running, processes(tmp_path)))
    assert source.read() == {}  # and it is not started again
    assert len(processes(tmp_path)) == 2


def test_a_line_is_given_once(tmp_path: Path) -> None:
    source, _ = power.find(program(tmp_path, TEGRASTATS["TX2"][0], between=5))
    assert source is not None
    end, read = time.monotonic() + 10, source.read()
    while not read and time.monotonic() < end:
        time.sleep(0.02)
        read = source.read()
    assert read == {"power_w": 5.297}
    assert source.read() == {}
    source.close()


def test_sysfs_comes_before_tegrastats(tmp_path: Path) -> None:
    program(tmp_path, TEGRASTATS["TX2"][0])
    source, _ = power.find(write(tmp_path, TX2))
    assert source is not None
    assert source.name == "INA3221 (iio)"
    shutil.rmtree(tmp_path / DRIVERS / "ina3221x/0-0041")  # without VDD_IN
    source, _ = power.find(tmp_path)
    assert source is not None
    assert source.name == "tegrastats"


def test_tegrastats_that_ends_or_can_not_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tegrastats, "FIRST_LINE", 0.3)
    source, _ = tegrastats.find(program(tmp_path, TEGRASTATS["TX2"][0]))
    assert source is not None
    for text in ("#!/bin/sh\nexit 1\n", "no program", "#!/bin/sh\necho RAM 1/2MB; sleep 60\n"):
        (tmp_path / "usr/bin/tegrastats").write_text(text)
        assert tegrastats.find(tmp_path) == (None, "tegrastats prints no power rails")
    (tmp_path / "usr/bin/tegrastats").write_text("#!/bin/sh\nexit 1\n")
    for _ in range(3):
        assert source.read() == {}
        time.sleep(0.02)
    source.close()
    (tmp_path / "usr/bin/tegrastats").chmod(0o644)
    source, reason = power.find(tmp_path)
    assert source is None
    assert reason is not None
    assert "tegrastats prints no power rails" in reason
    (tmp_path / "usr/bin/tegrastats").unlink()
    assert tegrastats.find(tmp_path) == (None, None)


def test_rails_of_tegrastats_that_make_no_whole(tmp_path: Path) -> None:
    program(tmp_path, "VDD_GPU 1mW/1mW VDD_CPU 2mW/2mW")
    assert tegrastats.find(tmp_path) == (
        None,
        "the rails that tegrastats prints do not make a whole: VDD_GPU, VDD_CPU",
    )


RAILS = st.dictionaries(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,19}", fullmatch=True).filter(lambda name: name != "NC"),
    st.integers(-10_000, 1_000_000),
    max_size=8,
)
OTHERS = st.lists(
    st.sampled_from(
        ["RAM 13983/62780MB", "(lfb 424x4MB)", "SWAP 126/31390MB", "IRAM 0/252kB(lfb", "APE 174",
         "CPU [90%@2201,off]", "EMC_FREQ 1%@2133", "GR3D_FREQ @[1000,1000,1000]", "tj@77.281C",
         "cpu@52.968C/52.968C", "MTS fg 1% bg 1%", "11-21-2025 08:49:48", "NC 0/0", "A 5", "B 5/"]
    )
)  # fmt: skip


@given(RAILS, OTHERS, st.sampled_from(["{0}/1", "{0}mW/1mW", "{0}mW/1mW/-1mW", "{0}/1/1"]))
def test_rails_are_found_between_everything_else(
    rails: dict[str, int], others: list[str], form: str
) -> None:
    words = [f"{name} {form.format(value)}" for name, value in rails.items()]
    line = " ".join([*others, *words, *others])
    assert tegrastats.parse(line) == {name: value / 1000 for name, value in rails.items()}


@given(st.text() | st.text("VDIN_0189 /mW-"))
def test_any_line_can_be_parsed(line: str) -> None:
    for name, watts in tegrastats.parse(line).items():
        assert name.isprintable()
        assert abs(watts) < 1e6


def test_long_lines_take_no_long_time() -> None:
    start = time.monotonic()
    tegrastats.parse("VDD_IN 1/" * 2000 + "A" * tegrastats.LONGEST + " 1" * 5000)
    assert time.monotonic() - start < 1


def test_a_jetson_that_shows_no_sensor(tmp_path: Path) -> None:
    """Such as the Nano with 2 GB: what a PC would need is not said."""
    write(tmp_path, {"sys/class/devfreq/57000000.gpu/cur_freq": "76800000"})
    assert power.find(tmp_path) == (None, power.NO_SENSOR)


def test_nothing_of_a_jetson(tmp_path: Path) -> None:
    assert ina3221.find(tmp_path) == tegrastats.find(tmp_path) == (None, None)
    source, reason = power.find(tmp_path)
    assert source is None
    assert reason == "no RAPL counters in /sys/class/powercap; virtual machines have none"
