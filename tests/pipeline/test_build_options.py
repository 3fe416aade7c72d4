"""What `edgetrt build` refuses before it begins, and says instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.table import table
from engines.catalogue import module_of
from engines.settings import DEFAULT, Settings, check
from pipeline.build import Options
from pipeline.cli import main
from pipeline.errors import UsageError


def test_int8_on_a_tx2_is_refused_with_the_better_choice() -> None:
    with pytest.raises(UsageError, match="no INT8 instructions.* use --precision fp16"):
        Options(backends=("tensorrt",), precisions=("int8",), targets=("tx2",))


@pytest.mark.parametrize(
    ("target", "precisions"), [("tx2", ("fp16",)), ("AGX Orin", ("int8",)), ("nano", ("fp32",))]
)
def test_engines_for_a_board_are_built_on_it(target: str, precisions: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"edgetrt device-package.*edgetrt-device\.pyz build"):
        Options(precisions=precisions, targets=(target,))


def test_unknown_target() -> None:
    with pytest.raises(UsageError, match="--target takes sm75"):
        Options(targets=("sm1",))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (DEFAULT._replace(batch=(4, 2, 8)), "growing numbers"),
        (DEFAULT._replace(batch=(0, 1, 8)), "from 1 to 1024"),
        (DEFAULT._replace(workspace=5), "takes 1 to 1048576 MiB; received 0"),
        (DEFAULT._replace(int8="kl"), "entropy, minmax or explicit; received kl"),
    ],
)
def test_settings_that_make_no_sense(settings: Settings, words: str) -> None:
    assert words in str(check(settings))
    with pytest.raises(UsageError, match=words):
        Options(settings=settings)


@pytest.mark.parametrize(
    "given",
    [{"backends": ("tensorrt-rtx",)}, {"precisions": ("fp16",)}],
    ids=["engine", "precision"],
)
def test_a_calibrator_for_nothing(given: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UsageError, match="--int8 minmax is for --engine tensorrt --precision int8"):
        Options(settings=DEFAULT._replace(int8="minmax"), **given)


def test_run_with_nothing_to_build_by_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if module_of("tensorrt").unavailable() is None:
        pytest.skip("TensorRT is here")
    run = tmp_path / "run"
    command = ["run", "--image-dir", str(tmp_path), "--run", str(run), "--engine", "tensorrt"]
    assert main(command) == 1
    assert "no engine could be built: TensorRT is not installed" in capsys.readouterr().err
    assert not run.exists()


def test_another_gpu_is_no_board() -> None:
    with pytest.raises(
        UsageError, match="TensorRT builds for sm90 only on one: edgetrt build there"
    ):
        Options(targets=("sm90",))


def test_settings_that_do() -> None:
    assert check(DEFAULT) is None
    assert check(Settings(1 << 28, (8, 8, 8), "minmax")) is None


@pytest.mark.parametrize("text", ["", "a", "1,2", "1,2,3,4", "1.5"])
def test_batches_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["build", "--run", "nowhere", f"--batch={text}"])
    assert "1,1,32 or one number is expected" in capsys.readouterr().err


def test_a_forced_engine_is_marked_in_the_table() -> None:
    entry: dict[str, Any] = {
        "name": "tensorrt-int8-sm62", "status": "ran", "accuracy": None, "scenarios": {},
        "size_bytes": 5, "build_seconds": 1.0, "gpu_ms": None, "speedup": None,
        "reason": "built by force: no INT8",
    }  # fmt: skip
    assert table([entry]).endswith("tensorrt-int8-sm62: built by force: no INT8")
