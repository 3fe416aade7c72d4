"""The house rules that a reader can't see broken in any one file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FLOORS = ("engines", "benchmarks", "pipeline")  # each imports from those before it only
ON_DEVICES = ("engines", "benchmarks")
HEAVY = ("tensorflow", "keras", "onnx", "onnxruntime", "openvino", "tensorrt_rtx", "cv2", "numpy",
         "matplotlib", "jinja2", "rich")  # fmt: skip


def imported(file: Path) -> set[str]:
    """The packages that a file imports, at its top or inside."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import"
            found.add(str(node.module).split(".")[0])
    return found


def at_the_top(file: Path) -> set[str]:
    """The packages that are imported as soon as the file is."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    return found


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_down_only(floor: str) -> None:
    files = list((REPOSITORY / floor).rglob("*.py"))
    assert files
    above = set(FLOORS[FLOORS.index(floor) + 1 :])
    for file in files:
        assert not imported(file) & above, file


@pytest.mark.parametrize("floor", ON_DEVICES)
def test_devices_need_numpy_only(floor: str) -> None:
    for file in (REPOSITORY / floor).rglob("*.py"):
        others = at_the_top(file) - {*sys.stdlib_module_names, *FLOORS}
        assert others <= {"numpy"}, file


def test_devices_may_have_python_3_6() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("vermin"), "-t=3.6-", "--no-tips", "--eval-annotations",
         "-q", *ON_DEVICES],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", [["--help"], ["retrain", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    script = (
        "import atexit, sys\n"
        f"heavy = {HEAVY}\n"
        "atexit.register(lambda: print([n for n in heavy if n in sys.modules]))\n"
        "from pipeline.cli import main\n"
        f"sys.argv[1:] = {command}\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == b"[]"
