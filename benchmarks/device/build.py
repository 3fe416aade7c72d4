"""`build`: every engine that this device can build."""

import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

from benchmarks.device.folder import Folder, WrongUseError
from benchmarks.progress import LOG_INTERVAL, Console
from engines.catalogue import MODULES, PRECISIONS, runs_here
from engines.doctor import device_versions
from engines.engine import EngineError
from engines.orders import Order, fulfil
from engines.settings import EXPLICIT, Settings
from engines.tensorrt import rtx, standard
from engines.tensorrt.here import gpu_here, target_of


def build(
    folder: Folder,
    backends: Optional[Sequence[str]],
    precisions: Optional[Sequence[str]],
    settings: Settings,
    pictures: Optional[Path],
    count: int,
    console: Console,
) -> List[Dict[str, Any]]:
    """Build into the folder's engines/.

    Args:
        backends: None for those that are installed here.
        precisions: None for all that this GPU is made for; one asked for by name must succeed.
        pictures: folder of labelled pictures, for TensorRT's own calibrators.
        count: how many of its training pictures to calibrate on.

    Returns:
        The .json of each engine.

    Raises:
        EngineError: one that was asked for by name could not be built, or none at all.
    """
    if settings.int8 != EXPLICIT:
        settings = _calibrated(folder, settings, pictures, count)
    orders = list(_orders(backends or _installed(), precisions or PRECISIONS, settings))
    made = [_build(folder, order, console) for order in orders]
    failed = [sidecar for sidecar in made if sidecar["status"] != "built"]
    asked = [s for s in failed if (precisions or backends)]
    for sidecar in asked or (failed if len(failed) == len(made) else []):
        raise EngineError("{} could not be built: {}".format(sidecar["name"], sidecar["reason"]))
    return made


def _installed() -> List[str]:
    found = [backend for backend in MODULES if runs_here(backend)]
    if not found:
        raise EngineError("nothing is installed that runs engines: {}".format(standard.none_runs()))
    return found


def _orders(
    backends: Sequence[str], precisions: Sequence[str], settings: Settings
) -> Iterator[Order]:
    gpu = gpu_here()
    places = {
        standard.BACKEND: standard.target_here(),
        rtx.BACKEND: standard.UNKNOWN if gpu is None else target_of(gpu),
    }
    for backend in backends:
        # Only TensorRT itself has calibrators.
        own = settings if backend == standard.BACKEND else settings._replace(int8=EXPLICIT)
        for precision in precisions:
            yield Order(backend, precision, places.get(backend, "cpu"), own)


def _build(folder: Folder, order: Order, console: Console) -> Dict[str, Any]:
    graph = folder.graph(order.graph)
    impossible = None if graph.is_file() else "{} is not in the run".format(graph.name)
    console.say("build: {} ...".format(order.name))
    sidecar, there = fulfil(
        order,
        graph,
        folder.engines,
        {"versions": device_versions()},
        impossible,
        _phases(order, console),
    )
    if there:
        console.say("build: {} is up to date".format(order.name))
    elif sidecar["status"] == "built":
        console.say(
            "build: {}: {:.1f} MB in {:.1f} s".format(
                order.name, sidecar["size_bytes"] / 1e6, sidecar["build_seconds"]
            )
        )
        if "forced" in sidecar["options"]:
            console.warn("{} was forced: {}".format(order.name, sidecar["options"]["forced"]))
    else:
        console.warn("{} could not be built: {}".format(order.name, sidecar["reason"]))
    return sidecar


def _phases(order: Order, console: Console) -> Callable[[str, int, int], None]:
    """Says how far TensorRT is with an engine, now and then."""
    last = [time.perf_counter()]

    def tell(phase: str, done: int, of: int) -> None:
        if time.perf_counter() - last[0] >= LOG_INTERVAL:
            last[0] = time.perf_counter()
            console.say("build: {}: {}, {}/{}".format(order.name, phase, done, of))

    return tell


def _calibrated(
    folder: Folder, settings: Settings, pictures: Optional[Path], count: int
) -> Settings:
    """The settings with what TensorRT's calibrator needs: a cache, or pictures."""
    cache = str(folder.calibration_cache)
    if pictures is None:
        if not folder.calibration_cache.is_file():
            raise WrongUseError(
                "--int8 {} needs {} (edgetrt quantize --calibration-cache VERSION writes it) or "
                "--pictures DIR".format(settings.int8, cache)
            )
        return settings._replace(calibration_cache=cache)
    found = folder.pictures("train", pictures)
    # Every so-manyth: they lie in the dataset class by class.
    chosen = found[:: max(1, len(found) // count)][:count]
    return settings._replace(
        calibration_cache=cache, calibration_pictures=tuple(str(p.path) for p in chosen)
    )
