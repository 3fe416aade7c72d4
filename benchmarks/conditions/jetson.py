"""What only a Jetson has: power modes, clocks that can be held, a GPU that sysfs knows."""

import re
import subprocess
from pathlib import Path
from typing import List, Optional

from benchmarks.conditions import kernel
from benchmarks.conditions.processor import CPUS

NVPMODEL = "usr/sbin/nvpmodel"
SECONDS = 5  # that it may take to answer

# Folders in /sys/class/devfreq: Nano 57000000.gpu, TX2 17000000.gp10b, Xavier 17000000.gv11b,
# Orin 17000000.ga10b or, from JetPack 6 on, 17000000.gpu; Thor gpu-gpc-0 (gpu-nvd-0
# beside it is another clock). Source: scripts of their users.
GPU = re.compile(r"[0-9a-f]+\.(gm20b|gp10b|gv11b|ga10b|gpu)|gpu-gpc-0")

MODE = re.compile(
    r"NV Power Mode:[ \t]*([^\r\n]+)(?:\r?\n[ \t]*([0-9]{1,4})[ \t\r]*$)?", re.MULTILINE
)


def gpu_folder(root: Path) -> Optional[Path]:
    """Where the GPU's clocks are: cur_freq, min_freq and max_freq, in Hz."""
    folders = kernel.find(root, "sys/class/devfreq/*")
    return next((folder for folder in folders if GPU.fullmatch(folder.name)), None)


def power_mode(root: Path) -> Optional[str]:
    """Name and number of the power mode, such as "MAXN (0)"; None where nvpmodel is not there."""
    program = root / NVPMODEL
    if not program.is_file():
        return None
    try:
        asked = subprocess.run(
            [str(program), "-q"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_power_mode(asked.stdout.decode("utf-8", "replace"))


def parse_power_mode(text: str) -> Optional[str]:
    """Name and number in what `nvpmodel -q` prints, "NV Power Mode: MAXN" and "0" below it.

    The name may hold spaces. Warnings and the fan's mode may come before.
    """
    found = MODE.search(text)
    if not found:
        return None
    name = "".join(c for c in found.group(1) if c.isprintable()).strip()
    if not name:
        return None
    return name if found.group(2) is None else "{} ({})".format(name, int(found.group(2)))


def clocks_are_held(root: Path) -> Optional[bool]:
    """Whether every processor and the GPU may have one clock only, as `jetson_clocks` sets it.

    Returns:
        None where the clocks of processors or GPU can't be read.
    """
    gpu = gpu_folder(root)
    folders = [file.parent for file in kernel.find(root, CPUS + "scaling_min_freq")]
    held = [_same(folder / "scaling_min_freq", folder / "scaling_max_freq") for folder in folders]
    held.append(None if gpu is None else _same(gpu / "min_freq", gpu / "max_freq"))
    if False in held:
        return False
    return None if None in held or len(held) == 1 else True


def _same(*files: Path) -> Optional[bool]:
    values: List[str] = [kernel.read(file) for file in files]
    return None if "" in values else len(set(values)) == 1
