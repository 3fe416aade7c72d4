"""Playing a version of TensorRT, in this process or in one that a test starts.

with play("8.2.1") as trt: ...             `import tensorrt` and pycuda give the doubles
subprocess.run(..., env=environment("10.13.3.9", EDGETRT_DOUBLE_CC="8.6"))
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATHS = (str(HERE.parent / "doubles"), str(HERE))
DOUBLES = ("tensorrt", "tensorrt_double", "pycuda", "cuda_double")


def environment(version: str, **settings: str) -> dict[str, str]:
    """The environment of a process in which TensorRT and pycuda are played.

    CUDA's driver is played too where doubles/libcuda.c, compiled, is what LD_LIBRARY_PATH finds as
    libcuda.so.1.

    Args:
        settings: EDGETRT_DOUBLE_CC, _MEMORY, _PYCUDA, _NO_PYCUDA or _KILL.
    """
    path = os.pathsep.join(filter(None, [*PATHS, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "EDGETRT_DOUBLE": version, **settings}


@contextmanager
def play(version: str, **settings: str) -> Iterator[Any]:
    """Let `import tensorrt` and `import pycuda.driver` give the doubles; gives the first.

    Nothing else in this process may import TensorRT meanwhile. Processes that are started inherit
    it. What was played before is forgotten at the end, and no context may be left on the stack.
    """
    before = dict(os.environ)
    os.environ.update(environment(version, **settings))
    _forget()
    sys.path[:0] = PATHS
    try:
        yield importlib.import_module("tensorrt")
        left = sys.modules["cuda_double._gpu"].gpu.stack.contexts
        assert not left, "a CUDA context is still on this thread's stack"
    finally:
        for path in PATHS:
            sys.path.remove(path)
        _forget()
        os.environ.clear()
        os.environ.update(before)


def _forget() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in DOUBLES:
            del sys.modules[name]
