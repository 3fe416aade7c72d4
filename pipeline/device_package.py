"""The device program: engines/ and benchmarks/ in one file that Python runs."""

import io
import zipfile
from pathlib import Path

import benchmarks
import engines
from engines.files import write_bytes

MAIN = """import sys
from benchmarks.device.cli import main
sys.exit(main())
"""
LEFT_OUT = ("ratios", "__pycache__")  # what needs the pipeline
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same program, the same bytes


def package(out: Path) -> int:
    """Write the program.

    Args:
        out: such as edgetrt-device.pyz.

    Returns:
        Its size in bytes.
    """
    buffer = io.BytesIO(b"")
    buffer.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "__main__.py", MAIN.encode())
        for floor in (engines, benchmarks):
            home = Path(str(floor.__file__)).parent
            for file in sorted(home.rglob("*")):
                inside = file.relative_to(home.parent)
                if file.is_file() and not set(LEFT_OUT) & set(inside.parts):
                    _add(archive, inside.as_posix(), file.read_bytes())
    write_bytes(out, buffer.getvalue())
    out.chmod(0o755)
    return len(buffer.getvalue())


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
