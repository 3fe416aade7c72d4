"""OpenVINO's own `benchmark_app`, and what it prints."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Tuple

from engines.engine import EngineError
from engines.text import printable

# Of its last step. Latency's lines are indented, and stand alone for one thread.
_COUNT = re.compile(r"Count: +(\d+) iterations")
_LATENCY = re.compile(r"(Median|Average|Min|Max): +([0-9.]+) (us|ms)")
_THROUGHPUT = re.compile(r"Throughput: +([0-9.]+) FPS")


def run(graph: Path, seconds: int) -> Dict[str, float]:
    """Time a graph with one picture at a time: benchmark_app -hint latency.

    Returns:
        As `parse`.

    Raises:
        EngineError: it is not installed or failed.
    """
    beside = Path(sys.executable).with_name("benchmark_app")
    program = str(beside) if beside.is_file() else shutil.which("benchmark_app")
    if program is None:
        raise EngineError("benchmark_app is not installed; pip install openvino")
    shape = "[1,{},{},3]".format(*_size(graph))
    command = [program, "-m", str(graph), "-d", "CPU", "-hint", "latency", "-shape", shape,
               "-t", str(seconds)]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed = done.stdout.decode(errors="replace")
    if done.returncode:
        lines = printed.strip().splitlines() or ["it says nothing"]
        raise EngineError("benchmark_app failed: {}".format(printable(lines[-1])))
    return parse(printed)


def parse(printed: str) -> Dict[str, float]:
    """What benchmark_app prints at its end.

    Returns:
        "n" iterations, "p50", "mean", "min" and "max" in ms, and "ips", pictures a second.

    Raises:
        EngineError: some of it is missing.
    """
    count, throughput = _COUNT.search(printed), _THROUGHPUT.search(printed)
    latency = {
        name: float(value) / (1000 if unit == "us" else 1)
        for name, value, unit in _LATENCY.findall(printed)
    }
    if count is None or throughput is None or len(latency) != 4:
        raise EngineError("benchmark_app printed no latency and throughput")
    names = {"p50": "Median", "mean": "Average", "min": "Min", "max": "Max"}
    return dict(
        {key: latency[name] for key, name in names.items()},
        n=int(count.group(1)),
        ips=float(throughput.group(1)),
    )


def _size(graph: Path) -> Tuple[int, int]:
    try:
        import openvino

        shape = openvino.Core().read_model(str(graph)).input().get_partial_shape()
    except (ImportError, RuntimeError) as error:
        raise EngineError("OpenVINO can't read {}: {}".format(graph, printable(error))) from error
    return shape[1].get_length(), shape[2].get_length()
