"""`benchmark`: every engine on this device side by side, in speed, power and accuracy."""

import platform
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from benchmarks.device import engines_here
from benchmarks.device.engines_here import Known
from benchmarks.device.folder import Folder, WrongUseError, load
from benchmarks.measure import BATCH, REFERENCE, Batches, Picture, entry_of, measure
from benchmarks.progress import Console
from benchmarks.scenarios import FROM_FILE, Work
from engines import __version__
from engines.catalogue import TENSORFLOW
from engines.doctor import device_versions
from engines.engine import Engine, EngineError
from engines.files import write_json
from engines.tensorrt import standard


def benchmark(
    folder: Folder,
    root: Optional[Path],
    graphs: bool,
    work: Work,
    console: Console,
    names: Optional[Sequence[str]] = None,
) -> Dict[str, Any]:
    """Measure all engines that run here, TensorFlow among them where it is installed.

    Args:
        root: folder of labelled pictures, whose test split is answered; None: speed alone, on
            noise.
        graphs: measure TensorRT's engines a second time, with their batches recorded as CUDA
            graphs.
        names: of the engines to measure; None for all.

    Returns:
        The report, as it is written to `folder.report`.

    Raises:
        WrongUseError: only files are to be timed, and there are none.
    """
    if root is None and work.scenarios == (FROM_FILE,):
        raise WrongUseError("the scenario {} needs --pictures".format(FROM_FILE))
    folder.report.parent.mkdir(exist_ok=True)  # else that it can't be is found after minutes
    pictures = folder.pictures("test", root) if root else []
    loaded = engines_here.load_all(folder, console, names)
    if graphs:
        loaded += _recorded(folder, loaded, console)
    entries = [_entry(folder, known) for known, _ in loaded]
    engines = {known.name: engine for known, engine in loaded}
    _, height, width, _ = loaded[0][1].input.shape
    batches = _batches(pictures, (int(height or 0), int(width or 0)))
    try:
        measured = measure(entries, engines, pictures, batches, folder.labels(), work, console)
    finally:
        for engine in engines.values():
            engine.close()
    report = dict(
        measured,
        run={
            "name": folder.path.resolve().name,
            "architecture": None,
            "seed": None,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
        environment=dict(
            device_versions(),
            edgetrt=__version__,
            system="{} {} {}".format(platform.system(), platform.release(), platform.machine()),
        ),
    )
    write_json(folder.report, report, indent=None)
    return report


def _entry(folder: Folder, known: Known) -> Dict[str, Any]:
    if known.name == REFERENCE:
        size = folder.frozen_graph.stat().st_size
        about = {"backend": TENSORFLOW, "precision": "fp32", "target": "cpu", "size_bytes": size}
        return entry_of(dict(about, name=REFERENCE, status="built"))
    return entry_of(dict(known.sidecar, name=known.name))


def _batches(pictures: Sequence[Picture], size: Tuple[int, int]) -> Batches:
    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(pictures), BATCH):
            yield np.stack([load(picture, size) for picture in pictures[start : start + BATCH]])

    return batches


def _recorded(
    folder: Folder, loaded: Sequence[Tuple[Known, Engine]], console: Console
) -> List[Tuple[Known, Engine]]:
    """Each of TensorRT's engines again, recorded; TensorRT-RTX records them by itself."""
    found = []
    for known, engine in loaded:
        if engine.backend == standard.BACKEND:
            try:
                found.append((known._replace(name=known.name + " (graph)"), _twin(folder, known)))
            except EngineError as error:
                console.warn("{}: {}".format(known.name, error))
    return found


def _twin(folder: Folder, known: Known) -> Engine:
    engine: Any = engines_here.load(folder, known)
    engine.graphs = True
    try:
        for _ in range(2):
            engine.infer(np.zeros((1, *engine.picture), np.uint8))
    except EngineError:
        engine.close()
        raise
    recorded: Engine = engine
    return recorded
