"""`edgetrt targets`: the table of boards and GPUs, for people and for programs."""

import re
from typing import Any

from engines.boards import BOARDS, GPU_FAMILIES, NGC_IMAGE, Board, GpuFamily
from engines.targets import default_workspace, precisions
from engines.text import aligned
from pipeline.errors import UsageError

Target = Board | GpuFamily
TARGETS: tuple[Target, ...] = (*BOARDS, *GPU_FAMILIES)
COLUMNS = ("target", "chip", "sm", "JetPack", "CUDA", "TensorRT", "Python",
           "FP16", "INT8", "BF16", "FP8", "DLA")  # fmt: skip


def find(name: str) -> Target:
    """The target of that name, whatever its case, spaces and dashes.

    Part of a name does ("thor"), a compute capability ("sm53") or a GPU of a series ("RTX 4090"),
    where only one target is meant by it.

    Raises:
        UsageError: there is none, or several.
    """
    wanted = _plain(name).removeprefix("nvidia").removeprefix("jetson").removeprefix("geforce")
    for target in TARGETS:
        examples = getattr(target, "examples", "").split(", ")
        if wanted and wanted in map(_plain, (target.name, *examples)):
            return target
    near = [target for target in TARGETS if wanted and _is_near(wanted, target)]
    if len(near) == 1:
        return near[0]
    names = ", ".join(target.name for target in near or TARGETS)
    wrong = "may be any of several targets" if near else "is no target"
    raise UsageError(f"'{name}' {wrong}; choose one of: {names}")


def _is_near(wanted: str, target: Target) -> bool:
    if isinstance(target, Board):
        sm = "sm{}{}".format(*target.compute_capability)
        return wanted in (sm, *map(_plain, target.name.split()))
    series = (_plain(example) for example in target.examples.split(", "))
    return any(re.fullmatch(one + "[0-9]{2}(ti|super|d|laptop)*", wanted) for one in series)


def as_dict(target: Target) -> dict[str, Any]:
    """All about a target, as JSON has it; "kind" is "board" or "gpu"."""
    facts = {
        "kind": "board" if isinstance(target, Board) else "gpu",
        "name": target.name,
        "compute_capability": target.compute_capability,
        "precisions": precisions(target.compute_capability),
        "workspace_bytes": default_workspace(target.compute_capability),
    }
    if isinstance(target, GpuFamily):
        return facts | {
            "architecture": target.architecture,
            "examples": target.examples,
            "tensorrt": target.tensorrt,
            "image": NGC_IMAGE if "10" in target.tensorrt else "",
            "note": target.note,
        }
    return facts | {
        "chip": target.chip,
        "jetpacks": [jetpack._asdict() for jetpack in target.jetpacks],
        "dla_cores": target.dla_cores,
        "rails": target.rails._asdict() if target.rails else None,
        "power_modes": dict(target.power_modes),
        "note": target.note,
    }


def table() -> str:
    """One line for each target."""
    return aligned([COLUMNS, *(_row(target) for target in TARGETS)], left=len(COLUMNS))


def describe(target: Target) -> str:
    """All about a target, a fact on each line."""
    facts = _board(target) if isinstance(target, Board) else _gpu(target)
    able = precisions(target.compute_capability)
    facts += [
        ("made for", ", ".join(name for name, yes in able.items() if yes)),
        ("not for", ", ".join(name for name, yes in able.items() if not yes)),
        ("workspace", f"{default_workspace(target.compute_capability) >> 20} MiB"),
        ("note", target.note),
    ]
    told = [(name, fact) for name, fact in facts if fact]
    width = max(len(name) for name, _ in told)
    return "\n".join([target.name, *(f"  {name:{width}}  {fact}" for name, fact in told)])


def _row(target: Target) -> tuple[str, ...]:
    able = ["yes" if precisions(target.compute_capability)[name] else "no"
            for name in ("fp16", "int8", "bf16", "fp8")]  # fmt: skip
    sm = "{}.{}".format(*target.compute_capability)
    if isinstance(target, GpuFamily):
        served = ", ".join(target.tensorrt)
        return (target.name, target.examples, sm, "-", "-", served, "-", *able, "-")
    jetpacks = target.jetpacks
    return (
        target.name, target.chip, sm,
        ", ".join(jetpack.versions for jetpack in jetpacks),
        ", ".join(jetpack.cuda for jetpack in jetpacks),
        ", ".join(jetpack.tensorrt for jetpack in jetpacks),
        ", ".join(jetpack.python for jetpack in jetpacks),
        *able, _dla(target),
    )  # fmt: skip


def _board(board: Board) -> list[tuple[str, str]]:
    facts = [("chip", "{}, compute capability {}.{}".format(board.chip, *board.compute_capability))]
    for jetpack in board.jetpacks:
        facts += [
            (
                f"JetPack {jetpack.versions}",
                f"L4T {jetpack.l4t}, CUDA {jetpack.cuda}, TensorRT {jetpack.tensorrt}, "
                f"Python {jetpack.python}",
            ),
            ("container", jetpack.image),
        ]
    modes = ", ".join(f"{number} {name}" for number, name in board.power_modes)
    rails = f"{', '.join(board.rails.names)} in {board.rails.path}" if board.rails else ""
    return [
        *facts,
        ("DLA cores", _dla(board)),
        ("power modes", modes or "read /etc/nvpmodel.conf"),
        ("power rails", rails),
    ]


def _gpu(family: GpuFamily) -> list[tuple[str, str]]:
    return [
        ("GPUs", family.examples),
        ("chip", "{}, compute capability {}.{}".format(
            family.architecture, *family.compute_capability)),
        ("TensorRT", ", ".join(family.tensorrt)),
        ("container", NGC_IMAGE if "10" in family.tensorrt else ""),
    ]  # fmt: skip


def _dla(board: Board) -> str:
    return " or ".join(map(str, board.dla_cores))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
