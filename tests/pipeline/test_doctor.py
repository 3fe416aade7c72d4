"""What edgetrt says of the machine it is on."""

import pytest

from engines.targets import JETSONS, Gpu
from pipeline import doctor


def test_board_and_what_it_is_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    [tx2] = [jetson for jetson in JETSONS if jetson.chip == "tegra186"]
    monkeypatch.setattr(doctor, "find_jetson", lambda: ("quill", tx2))
    monkeypatch.setattr(doctor, "find_gpus", lambda: [Gpu("NVIDIA Tegra X2", (6, 2))])
    lines = doctor.describe(doctor.examine()).splitlines()
    assert lines[1:3] == [
        "Jetson: quill (TX2, TX2 NX, TX2i), TensorRT up to 8.2.1, "
        "made for fp32, fp16; not for int8",
        "NVIDIA GPU: NVIDIA Tegra X2, made for fp32, fp16; not for int8",
    ]


def test_machine_without_gpu_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_jetson", lambda: None)
    monkeypatch.setattr(doctor, "find_gpus", lambda: [])
    told = doctor.describe(doctor.examine())
    assert "NVIDIA GPU: none" in told
    [tensorrt] = [line for line in told.splitlines() if line.startswith("tensorrt ")]
    assert tensorrt.split()[1:3] == ["not", "here"]
    assert "pip install tensorrt" in tensorrt or "there is no NVIDIA GPU" in tensorrt
