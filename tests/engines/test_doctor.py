"""What edgetrt says of the machine it is on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines import doctor
from engines.boards import BOARDS
from engines.targets import FoundBoard, Gpu
from engines.tensorrt import here, rtx

TX2 = next(board for board in BOARDS if board.name == "TX2")
GPU = Gpu("NVIDIA Tegra X2", (6, 2))


def be(
    monkeypatch: pytest.MonkeyPatch, board: FoundBoard | None, gpus: list[Gpu], cuda: str | None
) -> None:
    monkeypatch.setattr(doctor, "find_board", lambda gpus: board)
    monkeypatch.setattr(doctor, "find_gpus", lambda: gpus)
    monkeypatch.setattr(here, "find_gpus", lambda: gpus)
    monkeypatch.setattr(doctor, "find_cuda", lambda: cuda)


def line(told: str, start: str) -> str:
    [found] = [line for line in told.splitlines() if line.startswith(start)]
    return found


def test_board_and_what_it_is_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, FoundBoard("quill", TX2, "32.7.1", "4.6.1"), [GPU], "10.2")
    found = doctor.examine({"python": "3.6.9", "tensorrt": "8.2.1.8"})
    assert doctor.describe(found).splitlines()[:4] == [
        "installed: python 3.6.9, tensorrt 8.2.1.8",
        "Jetson: quill (TX2), L4T 32.7.1, JetPack 4.6.1, TensorRT up to 8.2.1, "
        "made for fp32, fp16; not for int8",
        "NVIDIA GPU: NVIDIA Tegra X2, made for fp32, fp16; not for int8",
        "CUDA: 10.2",
    ]


def test_board_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, FoundBoard("", TX2, None, None), [GPU], "10.2")
    assert line(doctor.describe(doctor.examine({})), "Jetson") == (
        "Jetson: TX2, TensorRT up to 8.2.1, made for fp32, fp16; not for int8"
    )


def test_machine_without_gpu_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    be(monkeypatch, None, [], None)
    told = doctor.describe(doctor.examine({}))
    assert "NVIDIA GPU: none" in told
    assert "CUDA: no driver" in told
    assert "Jetson" not in told.split("tensorflow")[0]
    tensorrt = line(told, "tensorrt ")
    assert tensorrt.split()[1:3] == ["not", "here"]
    assert "pip install tensorrt" in tensorrt or "there is no NVIDIA GPU" in tensorrt
    assert line(told, "openvino").split()[1:] == ["builds", "and", "runs"]


def test_rtx_builds_everywhere_and_runs_on_the_gpus_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    for gpus, runs, reason in (
        ([], False, "its engines don't run: there is no NVIDIA GPU here"),
        ([Gpu("H100", (9, 0))], False, "its engines don't run: it builds none for sm90"),
        ([Gpu("RTX 4090", (8, 9))], True, ""),
    ):
        be(monkeypatch, None, gpus, "13.0")
        state = doctor.examine({})["backends"]["tensorrt-rtx"]
        assert state == {"builds": True, "runs": runs, "reason": reason}


def test_a_jetson_is_told_what_helps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("No module named 'tensorrt_rtx'")

    board = FoundBoard("quill", TX2, "32.7.1", "4.6.1")
    monkeypatch.setattr(rtx, "_module", missing)
    be(monkeypatch, board, [GPU], "10.2")
    told = doctor.examine({})["backends"]["tensorrt-rtx"]["reason"]
    assert told == "TensorRT-RTX is not installed, and builds none for sm62"
    be(monkeypatch, board, [], "10.2")
    monkeypatch.setattr(here, "find_board", lambda gpus: board)
    assert here.why_no_gpu() == (
        "CUDA finds no GPU on this Jetson; is this user in the group that may, video?"
    )


def write_module(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


def test_versions_on_a_device(tmp_path: Path) -> None:
    """As JetPack installs them; TensorFlow is not imported for its version."""
    write_module(tmp_path, "numpy", "__version__ = '1.19.5'")
    write_module(tmp_path, "tensorrt", "__version__ = '8.2.1.8'")
    write_module(tmp_path, "pycuda", "VERSION_TEXT = '2020.1'")
    write_module(tmp_path, "cv2", "raise OSError('libcublas.so.10: file too short')")
    write_module(tmp_path, "tensorflow", "raise SystemExit('TensorFlow was imported')")
    (tmp_path / "tensorflow_estimator-1.15.1.dist-info").mkdir()
    (tmp_path / "tensorflow-1.15.5+nv21.12.dist-info").mkdir()
    code = (
        "import engines.doctor as d; import json, sys\n"
        "for name in ['numpy', 'cv2']: sys.modules.pop(name, None)\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "print(json.dumps(d.device_versions()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found.pop("python") == sys.version.split()[0]
    assert found == {
        "numpy": "1.19.5", "tensorrt": "8.2.1.8", "pycuda": "2020.1",
        "tensorflow": "1.15.5+nv21.12",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "version"),
    [
        ("tensorflow-2.7.0.dist-info", "2.7.0"),
        ("tensorflow_gpu-1.15.0.dist-info", "1.15.0"),
        ("nvidia_tensorflow-1.15.5.dist-info", "1.15.5"),
        ("tensorflow-1.15.5-py3.6.egg-info", "1.15.5"),
        ("tensorflow_hub-0.1.dist-info", "of unknown version"),
    ],
)
def test_tensorflow_by_its_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str, version: str
) -> None:
    write_module(tmp_path, "tensorflow", "raise SystemExit('TensorFlow was imported')")
    (tmp_path / metadata).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert doctor.device_versions()["tensorflow"] == version


def test_module_that_is_not_there_has_no_version() -> None:
    assert doctor.module_version("no_such_module") is None
    assert doctor.module_version("numpy") is not None
