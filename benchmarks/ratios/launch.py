"""`python launch.py RESULT COMMAND...`: run a command, and write down what it took.

A program of its own, and a small one: Linux counts what a process held before it became the
command, so one started by a process with TensorFlow in it would seem to need that much itself.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    start = time.perf_counter()
    code = subprocess.call(sys.argv[2:])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, the largest child's
    Path(sys.argv[1]).write_text(json.dumps({"seconds": seconds, "peak_bytes": peak * 1024}))
    sys.exit(code)
