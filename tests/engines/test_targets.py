"""The truth about each board."""

from pathlib import Path

import pytest

from engines.targets import RTX_TARGETS, find_gpus, find_jetson, precisions

# Contents of /proc/device-tree/compatible and model: strings that each end in a zero byte.
BOARDS = {
    "TX2": (b"nvidia,p2597-0000+p3310-1000\0nvidia,p2597-0000\0nvidia,quill\0nvidia,tegra186\0",
            b"quill\0", "TX2"),
    "Nano": (b"nvidia,p3450-0000\0nvidia,jetson-nano\0nvidia,tegra210\0",
             b"NVIDIA Jetson Nano Developer Kit\0", "Nano"),
    "Orin": (b"nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0",
             b"NVIDIA Jetson Orin NX Engineering Reference Developer Kit\0", "Orin NX"),
}  # fmt: skip


@pytest.mark.parametrize("board", BOARDS)
def test_jetson_is_found_by_its_device_tree(tmp_path: Path, board: str) -> None:
    compatible, model, family = BOARDS[board]
    (tmp_path / "compatible").write_bytes(compatible)
    (tmp_path / "model").write_bytes(model)
    found = find_jetson(str(tmp_path))
    assert found is not None
    name, jetson = found
    assert name == model.strip(b"\0").decode()
    assert family in jetson.name


def test_other_machines_are_no_jetson(tmp_path: Path) -> None:
    assert find_jetson(str(tmp_path)) is None
    (tmp_path / "compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    (tmp_path / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    assert find_jetson(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("board", "capability", "fp16", "int8"),
    [
        ("TX1, Nano", (5, 3), True, False),
        ("P100", (6, 0), True, False),
        ("GeForce 10", (6, 1), False, True),
        ("TX2", (6, 2), True, False),
        ("V100", (7, 0), True, True),
        ("Xavier", (7, 2), True, True),
        ("Turing", (7, 5), True, True),
        ("Orin", (8, 7), True, True),
        ("Thor", (11, 0), True, True),
    ],
)
def test_precisions(board: str, capability: tuple[int, int], fp16: bool, int8: bool) -> None:
    assert precisions(capability) == {"fp32": True, "fp16": fp16, "int8": int8}, board


def test_rtx_targets_are_those_of_the_installed_builder() -> None:
    rtx = pytest.importorskip("tensorrt_rtx")
    known = {name.lower() for name in rtx.ComputeCapability.__members__}
    assert set(RTX_TARGETS) <= known


def test_machine_without_a_driver_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert find_gpus() == []
