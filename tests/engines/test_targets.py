"""The truth about each board, and which one this is."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import targets
from engines.boards import BOARDS, GPU_FAMILIES, RELEASES
from engines.targets import (
    RTX_TARGETS,
    Gpu,
    default_workspace,
    find_board,
    find_cuda,
    find_gpus,
    jetpack_of,
    parse_release,
    precisions,
    refusal,
)

RELEASE = (
    "# R{} (release), REVISION: {}, GCID: 29818004, BOARD: {}, EABI: aarch64, "
    "DATE: Sat Feb 19 17:07:00 UTC 2022\n"
)

# What a board has in /proc/device-tree (model, compatible) and /etc/nv_tegra_release, and what
# that makes it. Strings in a device tree end in a zero byte each.
TREES = {
    "TX2": (
        b"quill\0", b"nvidia,p2597-0000+p3310-1000\0nvidia,quill\0nvidia,tegra186\0",
        RELEASE.format("32", "7.1", "t186ref"), "quill", "tegra186", "32.7.1", "4.6.1",
    ),
    "TX2 NX": (
        b"lanai-3636\0", b"nvidia,p3509-0000+p3636-0001\0nvidia,tegra186\0",
        RELEASE.format("32", "7.4", "t186ref"), "lanai-3636", "tegra186", "32.7.4", "4.6.4",
    ),
    "TX2i": (
        b"storm\0", b"nvidia,p3489-0000\0nvidia,storm\0nvidia,quill\0nvidia,tegra186\0",
        RELEASE.format("32", "6.1", "t186ref"), "storm", "tegra186", "32.6.1", "4.6",
    ),
    "Nano": (
        b"NVIDIA Jetson Nano Developer Kit\0",
        b"nvidia,p3450-0000\0nvidia,jetson-nano\0nvidia,tegra210\0",
        RELEASE.format("32", "7.6", "t210ref"), "NVIDIA Jetson Nano Developer Kit", "tegra210",
        "32.7.6", "4.6.6",
    ),
    "TX1": (
        b"jetson_tx1\0", b"nvidia,p2597-2180-a01\0nvidia,jetson-cv\0nvidia,tegra210\0", None,
        "jetson_tx1", "tegra210", None, None,
    ),
    "Xavier NX": (
        b"NVIDIA Jetson Xavier NX Developer Kit\0",
        b"nvidia,p3509-0000+p3668-0000\0nvidia,tegra194\0",
        RELEASE.format("35", "4.1", "t186ref"), "NVIDIA Jetson Xavier NX Developer Kit",
        "tegra194", "35.4.1", "5.1.2",
    ),
    "AGX Xavier": (
        b"Jetson-AGX\0", b"nvidia,p2972-0000\0nvidia,tegra194\0",
        RELEASE.format("35", "9.9", "t186ref"), "Jetson-AGX", "tegra194", "35.9.9", "5.x",
    ),
    "Orin NX": (
        b"NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0",
        b"nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0",
        RELEASE.format("36", "4.0", "generic"),
        "NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "tegra234", "36.4.0", "6.1",
    ),
    "Orin Nano": (
        b"NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        b"nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
        RELEASE.format("36", "4.3", "generic"),
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "tegra234", "36.4.3",
        "6.2",
    ),
    "AGX Orin": (
        b"NVIDIA Jetson AGX Orin Developer Kit\0",
        b"nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0",
        RELEASE.format("39", "2.0", "generic"), "NVIDIA Jetson AGX Orin Developer Kit", "tegra234",
        "39.2.0", "7.2",
    ),
    "AGX Thor": (
        b"NVIDIA Jetson AGX Thor Developer Kit\0",
        b"nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
        RELEASE.format("38", "4.0", "generic"), "NVIDIA Jetson AGX Thor Developer Kit", "tegra264",
        "38.4.0", "7.1",
    ),
}  # fmt: skip


def write_tree(folder: Path, model: bytes, compatible: bytes) -> Path:
    (folder / "model").write_bytes(model)
    (folder / "compatible").write_bytes(compatible)
    return folder


@pytest.mark.parametrize("name", TREES)
def test_board_is_found(tmp_path: Path, name: str) -> None:
    model, compatible, release, says, chip, l4t, jetpack = TREES[name]
    tree = write_tree(tmp_path, model, compatible)
    if release:
        (tmp_path / "nv_tegra_release").write_text(release)
    found = find_board(tree, tmp_path / "nv_tegra_release", gpus=[])
    assert found is not None
    assert (found.model, found.board.name, found.board.chip) == (says, name, chip)
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


def test_unknown_module_is_what_its_family_has_in_common(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, b"My carrier\0", b"acme,carrier\0nvidia,tegra234\0")
    found = find_board(tree, tmp_path / "none", gpus=[])
    assert found is not None
    assert found.board.name == "Orin Nano or Orin NX or AGX Orin"
    assert found.board.compute_capability == (8, 7)
    assert [jetpack.tensorrt for jetpack in found.board.jetpacks] == ["10.3", "10.16.2"]
    assert (found.board.dla_cores, found.board.rails, found.board.note) == ((), None, "")


def test_container_without_files_is_known_by_its_gpu(tmp_path: Path) -> None:
    found = find_board(tmp_path, tmp_path / "none", gpus=[Gpu("NVIDIA Tegra X2", (6, 2))])
    assert found is not None
    assert (found.model, found.l4t, found.jetpack) == ("", None, None)
    assert found.board.name == "TX2 or TX2 NX or TX2 4GB or TX2i"
    assert (found.board.chip, found.board.workspace_mib) == ("tegra186", 512)


def test_other_machines_are_no_jetson(tmp_path: Path) -> None:
    assert find_board(tmp_path, tmp_path / "none", gpus=[]) is None
    tree = write_tree(tmp_path, b"Raspberry Pi 4 Model B\0", b"raspberrypi,4-model-b\0")
    (tmp_path / "nv_tegra_release").write_text(RELEASE.format("32", "7.1", "t186ref"))
    for gpus in ([], [Gpu("NVIDIA H100", (9, 0))], [Gpu("NVIDIA GB10", (12, 1))]):
        assert find_board(tree, tmp_path / "nv_tegra_release", gpus) is None


def test_gpus_are_looked_for_only_without_a_device_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "find_gpus", lambda: [Gpu("Orin", (8, 7))])
    found = find_board(tmp_path, tmp_path)  # a folder where the release's file should be
    assert found is not None
    assert (found.board.chip, found.l4t) == ("tegra234", None)
    monkeypatch.delattr(targets, "find_gpus")
    assert find_board(write_tree(tmp_path, b"quill\0", b"nvidia,tegra186\0"), tmp_path) is not None


@given(model=st.binary(max_size=200), compatible=st.binary(max_size=200), release=st.binary())
def test_hostile_files_crash_nothing(
    tmp_path_factory: pytest.TempPathFactory, model: bytes, compatible: bytes, release: bytes
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    (folder / "nv_tegra_release").write_bytes(release)
    for tail in (b"", b"\0nvidia,tegra186\0"):
        tree = write_tree(folder, model, compatible + tail)
        found = find_board(tree, folder / "nv_tegra_release", gpus=[])
        assert (found is not None) or not tail
        if found:
            assert found.model.isprintable()


@given(st.text())
def test_release_is_a_number_or_none(text: str) -> None:
    l4t = parse_release(text)
    assert l4t is None or [part.isdigit() for part in l4t.split(".")] == [True] * 3


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999), st.text())
def test_release_is_read_back(major: int, minor: int, patch: int, board: str) -> None:
    text = RELEASE.format(major, f"{minor}.{patch}", board)
    assert parse_release(text) == f"{major}.{minor}.{patch}"


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("", None),
        ("# R32 (release), REVISION: ", None),
        ("R (release), REVISION: 7.1", None),
        ("# R32 (release), REVISION: 1, GCID", "32.1.0"),
        ("# R\u0663\u0662 (release), REVISION: 7.1", None),  # digits, but not ours
    ],
)
def test_odd_releases(text: str, l4t: str | None) -> None:
    assert parse_release(text) == l4t


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [("32.7.1", "4.6.1"), ("36.4.9", "6.x"), ("21.5.0", None), ("99.0.0", None)],
)
def test_jetpack_of_a_release(l4t: str, jetpack: str | None) -> None:
    assert jetpack_of(l4t) == jetpack


# The table


def test_names_are_unique_and_each_chip_has_one_compute_capability() -> None:
    names = [row.name for row in (*BOARDS, *GPU_FAMILIES)]
    assert len(set(names)) == len(names)
    # Source: CUDA_TABLE of jetson_stats.
    assert {board.chip: board.compute_capability for board in BOARDS} == {
        "tegra210": (5, 3), "tegra186": (6, 2), "tegra194": (7, 2), "tegra234": (8, 7),
        "tegra264": (11, 0),
    }  # fmt: skip
    for chip in {board.chip for board in BOARDS}:
        rows = [board for board in BOARDS if board.chip == chip]
        assert len({(b.compute_capability, b.jetpacks, b.workspace_mib) for b in rows}) == 1
    capabilities = [row.compute_capability for row in GPU_FAMILIES]
    assert not set(capabilities) & {board.compute_capability for board in BOARDS}
    assert [row.name for row in GPU_FAMILIES] == ["sm{}{}".format(*cc) for cc in capabilities]


def test_marks_tell_boards_of_one_chip_apart() -> None:
    for board in BOARDS:
        for other in BOARDS:
            if board.chip == other.chip and board != other:
                assert not set(board.marks) & set(other.marks)
        assert all(mark == mark.lower() for mark in board.marks)


def test_releases_agree_with_the_table() -> None:
    for jetpack in {jetpack for board in BOARDS for jetpack in board.jetpacks}:
        assert [RELEASES[l4t] for l4t in jetpack.l4t.split(" to ")] == jetpack.versions.split(
            " to "
        )
    assert all(l4t.count(".") == 2 for l4t in RELEASES)


def test_boards_that_have_no_int8_are_those_of_jetpack_4() -> None:
    without = {b.name for b in BOARDS if not precisions(b.compute_capability)["int8"]}
    assert without == {"TX1", "Nano", "TX2", "TX2 NX", "TX2 4GB", "TX2i"}
    assert without == {b.name for b in BOARDS if b.jetpacks[-1].tensorrt == "8.2.1"}
    assert without == {b.name for b in BOARDS if b.note.startswith("no INT8")}
    assert all(b.jetpacks[-1].python == "3.6" for b in BOARDS if b.name in without)


@pytest.mark.parametrize(
    ("board", "capability", "can"),
    [
        ("TX1, Nano", (5, 3), "fp32 fp16"),
        ("P100", (6, 0), "fp32 fp16"),
        ("GeForce 10", (6, 1), "fp32 int8"),
        ("TX2", (6, 2), "fp32 fp16"),
        ("V100", (7, 0), "fp32 fp16 int8"),
        ("Xavier", (7, 2), "fp32 fp16 int8"),
        ("Turing", (7, 5), "fp32 fp16 int8"),
        ("A100", (8, 0), "fp32 fp16 bf16 int8"),
        ("Orin", (8, 7), "fp32 fp16 bf16 int8"),
        ("Ada", (8, 9), "fp32 fp16 bf16 int8 fp8"),
        ("Thor", (11, 0), "fp32 fp16 bf16 int8 fp8"),
    ],
)
def test_precisions(board: str, capability: tuple[int, int], can: str) -> None:
    able = precisions(capability)
    assert list(able) == ["fp32", "fp16", "bf16", "int8", "fp8"]
    assert " ".join(name for name, yes in able.items() if yes) == can, board


def test_int8_on_a_tx2_is_refused_with_the_better_choice() -> None:
    assert refusal("int8", (6, 2)) == (
        "sm62 (TX2, TX2 NX, TX2 4GB, TX2i) has no INT8 instructions: TensorRT would only warn "
        "and build an engine slower than FP16; use --precision fp16"
    )
    assert "sm53 (TX1, Nano)" in str(refusal("int8", (5, 3)))
    assert str(refusal("int8", (6, 0))).startswith("sm60 has no INT8 instructions")
    assert str(refusal("int8", (5, 2))).endswith("slower than FP32; use --precision fp32")


def test_fp16_where_it_is_slow_is_refused() -> None:
    assert refusal("fp16", (6, 1)) == (
        "sm61 has no fast FP16: the engine would be slower than FP32; use --precision fp32"
    )


def test_what_is_fine_is_not_refused() -> None:
    for row in (*BOARDS, *GPU_FAMILIES):
        for precision in ("fp32", "fp16", "int8"):
            able = precisions(row.compute_capability)[precision]
            assert (refusal(precision, row.compute_capability) is None) == able


@pytest.mark.parametrize(
    ("capability", "mib"),
    [((5, 3), 256), ((6, 2), 512), ((7, 2), 1024), ((8, 6), 1024), ((11, 0), 1024)],
)
def test_default_workspace(capability: tuple[int, int], mib: int) -> None:
    assert default_workspace(capability) == mib * 1024 * 1024


def test_rtx_targets_are_those_of_the_installed_builder() -> None:
    rtx = pytest.importorskip("tensorrt_rtx_bindings")
    known = {name.lower() for name in rtx.ComputeCapability.__members__}
    assert set(RTX_TARGETS) == known - {"none", "current"}


# NVIDIA's driver


class Driver:
    """libcuda.so.1 of a machine with one GPU."""

    def __init__(self, capability: tuple[int, int], version: int, fails: str = "") -> None:
        self.attributes = {75: capability[0], 76: capability[1]}
        self.version = version
        self.fails = fails

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cu") and name == object.__getattribute__(self, "fails"):
            return lambda *arguments: 100
        return object.__getattribute__(self, name)

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = b"NVIDIA Tegra X2"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = self.attributes[attribute]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.version
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(*arguments, **named))

    return install


@pytest.mark.parametrize(("number", "cuda"), [(10020, "10.2"), (12060, "12.6"), (13000, "13.0")])
def test_driver_tells_gpus_and_cuda(driver: Callable[..., None], number: int, cuda: str) -> None:
    driver((6, 2), number)
    assert find_gpus() == [Gpu("NVIDIA Tegra X2", (6, 2))]
    assert find_cuda() == cuda


def test_driver_that_fails(driver: Callable[..., None]) -> None:
    for call in ("cuInit", "cuDeviceGetCount", "cuDeviceGet"):
        driver((6, 2), 10020, fails=call)
        assert find_gpus() == [], call
    driver((6, 2), 10020, fails="cuDriverGetVersion")
    assert find_cuda() is None


def test_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_gpus() == []
    assert find_cuda() is None
