"""`classify`: pictures -> their most likely classes."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from benchmarks.classify import likeliest
from benchmarks.device import engines_here
from benchmarks.device.engines_here import Known
from benchmarks.device.folder import Folder, WrongUseError

FASTEST_FIRST = ("fp16", "int8", "fp32")  # where nothing was measured


def classify(folder: Folder, name: Optional[str], pictures: Sequence[Path]) -> List[Dict[str, Any]]:
    """The five most likely classes of each picture.

    Args:
        name: of the engine; None for TensorRT's in FP16, or what comes next to it.

    Returns:
        As `benchmarks.classify.likeliest`, and "engine", its name.
    """
    known = engines_here.choose(folder, name) if name else _default(folder)
    with engines_here.load(folder, known) as engine:
        answers = likeliest(engine, folder.labels(), pictures)
    return [dict(answer, engine=known.name) for answer in answers]


def _default(folder: Folder) -> Known:
    runnable = [known for known in engines_here.look(folder) if known.reason is None]
    for precision in FASTEST_FIRST:
        for known in runnable:
            if known.name.startswith("tensorrt-" + precision) and not known.forced:
                return known
    if not runnable:
        raise WrongUseError("no engine of {} runs here; run: build --run DIR".format(folder.path))
    return runnable[-1]
