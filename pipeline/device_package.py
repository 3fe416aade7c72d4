"""The device program: engines/ and benchmarks/ in one file that Python runs."""

import io
import zipfile
from pathlib import Path

import benchmarks
import engines
from engines.files import write_bytes
from pipeline.errors import UsageError

MAIN = """import sys
if sys.version_info < (3, 6):
    sys.exit("edgetrt-device needs Python 3.6 or newer: python3 edgetrt-device.pyz")
try:
    import numpy
except ImportError as error:
    sys.exit("edgetrt-device: numpy can't be imported (%s); apt-get install python3-numpy" % error)
from benchmarks.device.cli import main
sys.exit(main())
"""
LEFT_OUT = ("peers", "ratios", "rtx_matrix.py")  # what needs the pipeline
SUFFIXES = (".py", ".html", ".css", ".js")  # code, and the page that `serve` shows
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same program, the same bytes


def package(out: Path) -> int:
    """Write the program.

    Args:
        out: such as edgetrt-device.pyz.

    Returns:
        Its size in bytes.

    Raises:
        UsageError: there is something else of that name.
    """
    if out.exists() and not out.is_file():
        raise UsageError(f"{out} is no file; choose another --out")
    data = program()
    write_bytes(out, data)
    out.chmod(out.stat().st_mode | 0o100)
    return len(data)


def program() -> bytes:
    """The program's bytes; the same every time."""
    buffer = io.BytesIO(b"")
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", MAIN.encode())
        for floor in (engines, benchmarks):
            home = Path(str(floor.__file__)).parent
            for file in sorted(home.rglob("*")):
                inside = file.relative_to(home.parent)
                if _belongs(inside) and file.is_file() and not file.is_symlink():
                    _add(archive, inside.as_posix(), file.read_bytes())
    return buffer.getvalue()


def _belongs(file: Path) -> bool:
    """Whether a file is the program's, and not what an editor or a test left there."""
    if any(part.startswith(".") or part in LEFT_OUT for part in file.parts):
        return False
    return file.suffix in SUFFIXES or file.parent.name == "known"


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
