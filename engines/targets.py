"""What each board and GPU can do, and which of them this machine has."""

import ctypes
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from engines.boards import BOARDS, GPU_FAMILIES, RELEASES, Board

# Compute capabilities that TensorRT-RTX builds for without a GPU, by the name of the target.
RTX_TARGETS = tuple(family.name for family in GPU_FAMILIES if "RTX" in family.tensorrt)

# What stands in a board's row where it is not known which of several boards it is.
_UNKNOWN = Board("", "", (0, 0), (), (), (), 0, None, (), "")
WORKSPACE_MIB = 1024  # where no board in the table says otherwise
LONGEST = 4096  # bytes that are read of a file that describes a board


class Gpu(NamedTuple):
    """A GPU that CUDA sees: its name and compute capability."""

    name: str
    compute_capability: Tuple[int, int]


class FoundBoard(NamedTuple):
    """The Jetson this is.

    model: what the device tree calls it; "" where it can't be read, as in most containers.
    board: its row; of several that it may be, what they have in common.
    l4t, jetpack: such as "32.7.1" and "4.6.1" ("4.x": a release that is not in the table);
        None: unknown.
    """

    model: str
    board: Board
    l4t: Optional[str]
    jetpack: Optional[str]


def has_fast_fp16(compute_capability: Tuple[int, int]) -> bool:
    """Whether a GPU computes FP16 faster than FP32.

    Source: NVIDIA's support matrix; 6.1 (GeForce 10, P4) has it at 1/64 of the FP32 rate.
    """
    return compute_capability in ((5, 3), (6, 0), (6, 2)) or compute_capability >= (7, 0)


def has_int8(compute_capability: Tuple[int, int]) -> bool:
    """Whether a GPU has INT8 instructions (DP4A or tensor cores).

    Source: CUDA's table of compute capabilities: from 6.1 on, but not 6.2, the TX2.
    """
    return compute_capability >= (6, 1) and compute_capability != (6, 2)


def has_bf16(compute_capability: Tuple[int, int]) -> bool:
    """Whether a GPU has BF16 instructions: from Ampere on (NVIDIA's support matrix)."""
    return compute_capability >= (8, 0)


def has_fp8(compute_capability: Tuple[int, int]) -> bool:
    """Whether a GPU has FP8 instructions: from Ada on (NVIDIA's support matrix)."""
    return compute_capability >= (8, 9)


def precisions(compute_capability: Tuple[int, int]) -> Dict[str, bool]:
    """For each precision, whether a GPU is the faster for it."""
    return {
        "fp32": True,
        "fp16": has_fast_fp16(compute_capability),
        "bf16": has_bf16(compute_capability),
        "int8": has_int8(compute_capability),
        "fp8": has_fp8(compute_capability),
    }


def lack(precision: str, compute_capability: Tuple[int, int]) -> Optional[str]:
    """What a GPU lacks for a precision, in few words; None if it is made for it."""
    if precisions(compute_capability)[precision]:
        return None
    gpu = "sm{}{}".format(*compute_capability)
    what = "INT8 instructions" if precision == "int8" else "fast FP16"
    return "{} has no {}".format(gpu, what)


def refusal(precision: str, compute_capability: Tuple[int, int]) -> Optional[str]:
    """Why a precision makes no sense on a GPU, and what to use instead; None if it does.

    Slower: TensorRT 8 only warns, and YOLOv3-416 on a TX2 then took 300 ms in INT8, 200 ms in
    FP16 and 250 ms in FP32 (lewes6369/TensorRT-Yolov3#62).

    Args:
        precision: "fp32", "fp16" or "int8".
    """
    if precisions(compute_capability)[precision]:
        return None
    boards = [board.name for board in BOARDS if board.compute_capability == compute_capability]
    gpu = "sm{}{}".format(*compute_capability)
    if boards:
        gpu += " ({})".format(", ".join(boards))
    if precision == "int8":
        better = "fp16" if has_fast_fp16(compute_capability) else "fp32"
        return (
            "{} has no INT8 instructions: TensorRT would only warn and build an engine slower "
            "than {}; use --precision {}".format(gpu, better.upper(), better)
        )
    return "{} has no fast FP16: the engine would be slower than FP32; use --precision fp32".format(
        gpu
    )


def default_workspace(compute_capability: Tuple[int, int]) -> int:
    """Bytes that a builder may use for a layer's scratch space: little where memory is short."""
    for board in BOARDS:
        if board.compute_capability == compute_capability:
            return board.workspace_mib << 20
    return WORKSPACE_MIB << 20


def find_board(
    device_tree: Union[str, Path] = "/proc/device-tree",
    release: Union[str, Path] = "/etc/nv_tegra_release",
    gpus: Optional[Sequence[Gpu]] = None,
) -> Optional[FoundBoard]:
    """The Jetson this is; None on anything else.

    In a container the device tree is hidden as a rule: the GPU's compute capability, which no
    other machine has, then says which family of boards it is.

    Args:
        device_tree: folder with the files "model" and "compatible".
        release: file that names the release of L4T.
        gpus: as `find_gpus` finds them, which is asked if needed where this is None.
    """
    model = _read(Path(device_tree) / "model").replace("\0", " ").strip()
    described = "{} {}".format(model, _read(Path(device_tree) / "compatible")).lower()
    boards = [board for board in BOARDS if board.chip in described]
    if not boards:
        seen = [gpu.compute_capability for gpu in (find_gpus() if gpus is None else gpus)][:1]
        boards = [board for board in BOARDS if board.compute_capability in seen]
    if not boards:
        return None
    l4t = parse_release(_read(Path(release)))
    model = "".join(c for c in model if c.isprintable())
    return FoundBoard(model, _narrow(boards, described), l4t, l4t and jetpack_of(l4t))


def parse_release(text: str) -> Optional[str]:
    """The release of L4T, such as "32.7.1", in what /etc/nv_tegra_release says; None: no release.

    It begins "# R32 (release), REVISION: 7.1, GCID: ...".
    """
    number = re.search(r"R([0-9]{1,3}) \(release\), REVISION: ([0-9]{1,3}(\.[0-9]{1,3})?)", text)
    if not number:
        return None
    return "{}.{}".format(number.group(1), number.group(2) + ("" if number.group(3) else ".0"))


def jetpack_of(l4t: str) -> Optional[str]:
    """The JetPack with a release of L4T ("4.6.1"), or its major ("4.x"), or None: too old or new.

    Args:
        l4t: as `parse_release` gives it.
    """
    if l4t in RELEASES:
        return RELEASES[l4t]
    for known, jetpack in RELEASES.items():
        if known.split(".")[0] == l4t.split(".")[0]:
            return jetpack.split(".")[0] + ".x"
    return None


def find_gpus() -> List[Gpu]:
    """The GPUs that NVIDIA's driver shows; none where there is no driver."""
    cuda = _driver()
    count = ctypes.c_int(0)
    if cuda is None or cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    gpus = []
    for number in range(count.value):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
        if cuda.cuDeviceGet(ctypes.byref(device), number) != 0:
            continue
        cuda.cuDeviceGetName(name, len(name), device)
        # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        major, minor = (_attribute(cuda, attribute, device) for attribute in (75, 76))
        gpus.append(Gpu(name.value.decode("utf-8", "replace"), (major, minor)))
    return gpus


def find_cuda() -> Optional[str]:
    """The newest CUDA that NVIDIA's driver runs, such as "10.2"; None where there is no driver."""
    cuda, version = _driver(), ctypes.c_int(0)
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(version)) != 0 or not version.value:
        return None
    return "{}.{}".format(version.value // 1000, version.value % 1000 // 10)


def _driver() -> Optional[ctypes.CDLL]:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _attribute(cuda: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value


def _read(path: Path) -> str:
    """The beginning of a file; "" if there is none."""
    try:
        with path.open("rb") as file:
            return file.read(LONGEST).decode("ascii", "replace")
    except OSError:
        return ""


def _narrow(boards: List[Board], described: str) -> Board:
    """The board whose longest mark is in `described`; without any, what `boards` have in common."""
    marks = [(len(mark), board) for board in boards for mark in board.marks if mark in described]
    if marks:
        return max(marks, key=lambda mark: mark[0])[1]
    common = Board._make(
        values[0] if len(set(values)) == 1 else unknown
        for values, unknown in zip(zip(*boards), _UNKNOWN)
    )
    return common._replace(name=" or ".join(board.name for board in boards))
