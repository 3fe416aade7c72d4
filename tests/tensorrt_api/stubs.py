"""Import TensorRT's bindings on a machine that has neither TensorRT nor a GPU.

The binding is linked with NVIDIA's libraries. In their place go empty ones, whose functions return
NULL: enough to import the binding and read what it offers, not to call it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
WHEELS = Path(sys.prefix) / "bindings"  # `make test` puts them there, by tests/bindings.lock


def describe_wheel(wheel: Path, folder: Path) -> dict[str, Any]:
    """The snapshot of the bindings in a wheel, unpacked in an empty folder.

    They are imported in a process of their own: the packages of all versions have one name.
    """
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    (binding,) = (folder / "wheel").glob("*/tensorrt.so")
    libraries = folder / "libraries"
    libraries.mkdir()
    compile_stubs(binding, libraries)
    return describe_installed(binding.parent, libraries)


def describe_installed(package: Path, libraries: Path | None = None) -> dict[str, Any]:
    """The snapshot of the bindings in a package's folder, their libraries found in another."""
    environment = dict(os.environ)
    if libraries:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("snapshot.py"), package, "--print"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    described: dict[str, Any] = json.loads(done.stdout)
    return described


def compile_stubs(binding: Path, folder: Path) -> None:
    """Compile the libraries of NVIDIA's that a binding is linked with, empty."""
    needed = re.findall(r"\[(libnv\w+\.so\.\d+)\]", _output("readelf", "-d", str(binding)))
    # Functions of Python have its prefix, those of other libraries a version.
    wanted = [
        name
        for name in re.findall(r" U (\S+)", _output("nm", "-D", "--undefined-only", str(binding)))
        if "@" not in name and not name.startswith(("Py", "_Py"))
    ]
    source = folder / "stubs.c"
    source.write_text(
        "".join(
            f'void *stub{number}(void) __asm__("{name}");\n'
            f"void *stub{number}(void) {{ return 0; }}\n"
            for number, name in enumerate(wanted)
        )
    )
    for library in needed:
        _output("gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(folder / library),
                str(source))  # fmt: skip


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
