"""Starting a build in a process of its own, and saying what became of it."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any, Dict, Optional

from engines.engine import EngineError
from engines.settings import Settings
from engines.tensorrt.builder import Progress

# The folder or zip file that this program is. What lies in the current folder is not run.
HOME = str(Path(__file__).resolve().parents[2])
START = """
import sys
sys.path[0] = sys.argv[1]
from engines.tensorrt.worker import main
main()
"""


def build_apart(
    module: str,
    onnx_path: str,
    plan_path: str,
    precision: str,
    target: str,
    settings: Settings,
    workspace: int,
    gpu: Optional[str],
    progress: Optional[Progress],
) -> Dict[str, Any]:
    """Build an engine in another process, which may die of it.

    Args:
        module: "tensorrt" or "tensorrt_rtx".
        gpu: name of the GPU at hand that it is for; None if it is for another machine.
        progress: told how far the builder is, where TensorRT tells that.

    Returns:
        As `engines.tensorrt.worker.perform`.

    Raises:
        EngineError: TensorRT refused, the process was killed, or crashed.
    """
    request = {
        "module": module,
        "onnx": str(Path(onnx_path).resolve()),
        "plan": str(Path(plan_path).resolve()),
        "precision": precision,
        "target": target,
        "settings": settings._asdict(),
        "workspace": workspace,
        "gpu": gpu,
    }
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", START, HOME],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                universal_newlines=True,
            )
        except OSError as error:
            raise EngineError("the build can't be started: {}".format(error)) from error
        with process:
            try:
                outcome = _follow(process, request, progress)
            except BaseException:
                process.kill()
                raise
        if "result" in outcome:
            result: Dict[str, Any] = outcome["result"]
            return result
        raise EngineError(
            outcome.get("error") or _death(process.returncode, onnx_path, workspace, said)
        )


def _follow(process: Any, request: Dict[str, Any], progress: Optional[Progress]) -> Dict[str, Any]:
    """Hand the request over and read what comes, until the end."""
    outcome: Dict[str, Any] = {}
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it is dead already; how it died says its exit code
        return outcome
    for line in process.stdout:
        try:
            message = json.loads(line)
        except ValueError:  # it died in the middle of a line
            break
        if "progress" not in message:
            outcome = message
        elif progress is not None:
            progress(*message["progress"])
    return outcome


def _death(code: int, onnx_path: str, workspace: int, said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    if code == -signal.SIGKILL:
        return (
            "the build was killed, most likely for want of memory; choose a smaller --workspace "
            "than {} MiB, end other programs and the desktop, or add swap".format(workspace >> 20)
        )
    if code < 0:
        return "TensorRT crashed on {} (signal {}): {}".format(onnx_path, -code, last)
    return "the build of {} failed (exit code {}): {}".format(onnx_path, code, last)
