"""The process in which an engine is built; `engines.tensorrt.apart` starts it.

A build may be killed for memory, or crash in native code; then only this process ends, and the
one that started it says so. A line of JSON on stdin says what to build; each line on stdout is
{"progress": [phase, done, of]}, {"result": {...}} or {"error": "..."}. Whoever started this holds
stdin open: when it ends, this ends.
"""

import fcntl
import importlib
import json
import os
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, Callable, Dict, Iterator

import numpy as np

from engines.cache import cache_file
from engines.engine import EngineError
from engines.files import write_bytes
from engines.settings import EXPLICIT, Settings
from engines.targets import find_cuda
from engines.tensorrt.builder import Progress, build_plan
from engines.tensorrt.calibrator import calibration
from engines.tensorrt.dialect import Dialect
from engines.tensorrt.dialects import dialect_of

ALIVE = 10.0  # seconds
ASKED_AGAIN = 1.0  # seconds between two looks at whether another build is done


def main() -> None:
    """Build what stdin asks for."""
    request = json.loads(sys.stdin.readline())
    protocol, one_at_a_time = os.fdopen(os.dup(1), "w", 1), threading.Lock()
    os.dup2(2, 1)  # whatever libraries print must not come between

    def tell(kind: str, what: Any) -> None:
        with one_at_a_time:
            protocol.write(json.dumps({kind: what}) + "\n")

    threading.Thread(target=_end_with_starter, daemon=True).start()
    threading.Thread(target=_tell_time, args=(tell,), daemon=True).start()
    try:
        built = partial(tell, "result")
        built(perform(request, lambda *step: tell("progress", step), built))
    except EngineError as error:
        tell("error", str(error))
    except MemoryError:
        tell("error", "there is not enough memory for the build")


def perform(
    request: Dict[str, Any],
    progress: Progress,
    built: Callable[[Dict[str, Any]], None] = lambda _made: None,
) -> Dict[str, Any]:
    """Build one engine.

    Args:
        built: given what is returned as soon as the engine is written, before its layers are
            measured: if that crashes, it was built all the same.
        request: "module", "onnx", "plan" (the file to write), "precision", "target",
            "settings", "workspace", and "gpu": the name of the one at hand that it is for, or
            None.

    Returns:
        "options" that made it, and "layers": what inspector and profiler say of it, or None.

    Raises:
        EngineError: it can't be built.
    """
    trt = importlib.import_module(request["module"])
    dialect = dialect_of(trt)
    settings = Settings(**request["settings"])
    gpu = request["gpu"]
    warnings = {}  # type: Dict[str, int]
    with ExitStack() as stack:
        measured = None
        if gpu is not None:
            cuda = str(find_cuda())
            measured = cache_file("timing", trt.__version__, cuda, request["target"], gpu)
            try:
                stack.enter_context(_alone(measured.with_suffix(".lock"), progress))
                known = measured.read_bytes() if measured.exists() else b""
            except OSError as error:
                measured = None
                text = "without a timing cache: {}: {}"
                warnings[text.format(error.filename, error.strerror)] = 1
        calibrator = None
        if request["precision"] == "int8" and settings.int8 != EXPLICIT:
            calibrator = stack.enter_context(calibration(trt, settings, request["onnx"]))
        plan = build_plan(
            dialect,
            request["onnx"],
            request["precision"],
            request["target"],
            settings,
            request["workspace"],
            known if measured else b"",
            calibrator,
            progress,
            detailed=gpu is not None,
        )
        Path(request["plan"]).write_bytes(plan.data)
        if measured and plan.timing_cache:
            with suppress(OSError):  # the next build takes longer, and nothing else
                write_bytes(measured, plan.timing_cache)
    options = {
        "dialect": dialect.name,
        "workspace_bytes": request["workspace"],
        "warnings": dict(plan.warnings, **warnings),
    }
    made = {"options": options, "layers": None}
    built(made)
    return dict(made, layers=gpu and _layers(dialect, request))


def _layers(dialect: Dialect, request: Dict[str, Any]) -> Dict[str, Any]:
    """What the engine's layers are, and how long each takes."""
    try:
        return _measure_layers(dialect, request)
    except (EngineError, ValueError) as error:  # the engine was built all the same
        return {"unavailable": str(error)}


def _measure_layers(dialect: Dialect, request: Dict[str, Any]) -> Dict[str, Any]:
    from engines.tensorrt.runner import TensorRTEngine

    path, precision = request["plan"], request["precision"]
    plan = Path(path).read_bytes()
    with TensorRTEngine(dialect, "tensorrt", precision, plan, path) as engine:
        pictures = np.zeros((engine.batch[0], *engine.picture), np.uint8)
        return {
            "layers": json.loads(engine.layers()),
            "milliseconds": engine.layer_times(pictures),
            "batch": len(pictures),
        }


@contextmanager
def _alone(lock: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other build is at work on this GPU: they would time each other's kernels."""
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.open("w") as file:
        while not _take(file):
            progress("waits for another build on this GPU", 0, 0)
            time.sleep(ASKED_AGAIN)
        yield


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tell_time(tell: Callable[[str, Any], None]) -> None:
    """Say every so often that there is life: TensorRT 8 tells nothing of a build of minutes."""
    start = time.perf_counter()
    while True:
        time.sleep(ALIVE)
        tell("progress", ("{:.0f} s so far".format(time.perf_counter() - start), 0, 0))


def _end_with_starter() -> None:
    sys.stdin.read()
    os._exit(1)
