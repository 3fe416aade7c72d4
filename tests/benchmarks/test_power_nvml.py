"""Power of a PC's GPU by the real nvidia-ml-py, on a driver made for the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.power import rapl

pytest.importorskip("pynvml")
REPOSITORY = Path(__file__).parents[2]

# libnvidia-ml.so.1 and libcuda.so.1 in one, with two GPUs: CUDA's first is the one at bus 2, and
# NVML knows power of that one only.
DRIVER = r"""
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define FIRST ((void *)2L)
static double start;
static double now(void) {
  struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9;
}
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strcpy(name, "Test GPU"); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 8; return 0; }
int cuDeviceGetPCIBusId(char *bus, int size, int device) {
  strcpy(bus, "0000:02:00.0"); return 0;
}
int nvmlInitWithFlags(unsigned flags) { start = now(); return getenv("NO_DRIVER") ? 9 : 0; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **handle) {
  *handle = FIRST; return strcmp(bus, "0000:02:00.0") ? 6 : 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned size) {
  strcpy(name, "Test GPU"); return handle == FIRST ? 0 : 2;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
  const char *value = getenv("POWER_MW");
  if (!value || handle != FIRST) return 3;  /* not supported */
  *milliwatts = atoi(value); return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
  const char *value = getenv("COUNTED_MW");
  if (!value || handle != FIRST) return 3;
  *millijoules = 5000000 + (now() - start) * atoi(value); return 0;
}
"""

MEASURE = """
import json, sys
from pathlib import Path
from benchmarks import power
from benchmarks.monitor import Monitor
source, reason = power.find(Path(sys.argv[1]))
if source is None:
    print(json.dumps({"reason": reason}))
else:
    with Monitor([source], 50.0) as monitor:
        watts = power.idle(monitor, 0.5).mean
    print(json.dumps({"name": source.name, "rails": source.rails, "watts": watts,
                      "keys": sorted(monitor.series()), "read": source.read()}))
"""

# A processor that takes 20 W.
RISE = """
import os, sys, time
while True:
    with open(sys.argv[1] + ".new", "w") as file:
        file.write("%d" % (time.perf_counter() * 20e6))
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.002)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "driver.c"], check=True)
    shutil.copy(library, folder / "libcuda.so.1")
    return folder


def measure(driver: Path, root: Path, **environment: str) -> Any:
    """What a process with that driver finds and measures in half a second."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, root],
        cwd=REPOSITORY, env={**os.environ, "LD_LIBRARY_PATH": str(driver), **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_joules_that_the_gpu_counts(driver: Path, tmp_path: Path) -> None:
    # The two differ on purpose, to tell which is taken.
    found = measure(driver, tmp_path, POWER_MW="42500", COUNTED_MW="30000")
    assert found["name"] == "NVML"
    assert found["rails"] == [
        ["GPU (Test GPU)", True, "the card with its memory"],
        ["other GPUs", False, "engines run on the first"],
        ["CPU", False, rapl.NONE],
    ]
    assert found["keys"] == ["energy_j", "power_w", "seconds"]
    assert found["read"]["power_w"] == 42.5
    assert found["watts"] == pytest.approx(30.0, rel=0.03)


def test_gpu_without_a_counter(driver: Path, tmp_path: Path) -> None:
    found = measure(driver, tmp_path, POWER_MW="42500")
    assert found["read"] == {"power_w": 42.5}
    assert found["watts"] == pytest.approx(42.5)


def test_gpu_and_driver_that_tell_nothing(driver: Path, tmp_path: Path) -> None:
    told = measure(driver, tmp_path)["reason"]
    assert told == "the GPU does not tell its power; " + rapl.NONE
    told = measure(driver, tmp_path, NO_DRIVER="1")["reason"]
    assert told == "NVIDIA's management library (NVML) finds no GPU; " + rapl.NONE


def test_gpu_and_processor_at_work(driver: Path, tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    processor = subprocess.Popen([sys.executable, "-c", RISE, str(zone / "energy_uj")])
    try:
        end = time.monotonic() + 20
        while not (zone / "energy_uj").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        found = measure(driver, tmp_path, POWER_MW="30000", COUNTED_MW="30000")
    finally:
        processor.kill()
        processor.wait()
    assert found["name"] == "NVML + RAPL"
    assert found["watts"] == pytest.approx(50.0, rel=0.05)
