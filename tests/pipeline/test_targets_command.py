"""`edgetrt targets`."""

import json

import pytest

from engines.boards import BOARDS, GPU_FAMILIES
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.targets import TARGETS, find


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["targets", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_table_has_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        row.name for row in (*BOARDS, *GPU_FAMILIES)
    ]
    tx2 = next(line for line in lines if line.startswith("TX2 "))
    assert " ".join(tx2.split()) == (
        "TX2 tegra186 6.2 4.6.1 to 4.6.6 10.2 8.2.1 3.6 yes no no no 0"
    )
    starts = [lines[0].index(column) for column in ("chip", "FP16", "DLA")]
    for line in lines[1:]:
        assert all(line[start - 1] == " " != line[start] for start in starts), line


@pytest.mark.parametrize("name", ["AGX Orin", "agx-orin", "AGXORIN", "agx_orin"])
def test_a_name_is_found_however_it_is_written(name: str) -> None:
    assert find(name).name == "AGX Orin"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("thor", "AGX Thor"),
        ("RTX 4090", "sm89"),
        ("GeForce RTX 3060 Ti", "sm86"),
        ("sm110", "AGX Thor"),
    ],
)
def test_part_of_a_name_does_where_it_is_enough(name: str, wanted: str) -> None:
    assert find(name).name == wanted


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("orin", "may be any of several targets; choose one of: Orin Nano, Orin NX, AGX Orin"),
        ("sm62", "choose one of: TX2, TX2 NX, TX2 4GB, TX2i"),
        ("RTX 409", "is no target"),
        ("RTX 40900", "is no target"),
    ],
)
def test_part_of_several_names_does_not(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find(name)


def test_every_target_is_found_by_its_name() -> None:
    assert [find(target.name) for target in TARGETS] == list(TARGETS)


def test_all_about_a_board(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "tx2")
    for fact in (
        "tegra186", "6.2", "L4T 32.7.1 to 32.7.6", "CUDA 10.2", "TensorRT 8.2.1", "Python 3.6",
        "nvcr.io/nvidia/l4t-base:r32.7.1", "0 MAXN, 1 MAXQ, 2 MAXP_CORE_ALL, 3 MAXP_CORE_ARM",
        "VDD_IN", "/sys/bus/i2c/drivers/ina3221x/", "512 MiB", "no INT8",
    ):  # fmt: skip
        assert fact in told, fact
    assert "read /etc/nvpmodel.conf" in said(capsys, "AGX", "Orin")  # a name of two words


def test_all_about_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    told = said(capsys, "SM90")
    assert "H100" in told
    assert "RTX" not in told
    assert "10, 11" in told


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    every = json.loads(said(capsys, "--json"))
    assert [target["name"] for target in every] == [target.name for target in TARGETS]
    nano = json.loads(said(capsys, "nano", "--json"))
    assert nano in every
    assert (nano["kind"], nano["compute_capability"], nano["dla_cores"]) == ("board", [5, 3], [0])
    assert nano["precisions"]["int8"] is False
    assert nano["workspace_bytes"] == 256 << 20
    assert nano["jetpacks"][0]["tensorrt"] == "8.2.1"
    assert nano["rails"]["names"][0] == "POM_5V_IN"


def test_unknown_name_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "tx3"]) == 2
    error = capsys.readouterr().err
    assert "'tx3' is no target; choose one of: TX1, Nano, TX2, " in error
    with pytest.raises(UsageError):
        find("")
