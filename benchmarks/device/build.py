"""`build`: every engine that this device can build."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from benchmarks.device.folder import Folder, WrongUseError
from benchmarks.orders import fulfil_aloud, orders
from benchmarks.progress import Console
from engines.catalogue import MODULES, PRECISIONS, none_runs
from engines.doctor import device_versions
from engines.engine import EngineError
from engines.orders import Order, tidy
from engines.settings import EXPLICIT, Settings
from engines.targets import RTX_TARGETS, lack, refusal
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
    among: Sequence[str] = PRECISIONS,
) -> List[Dict[str, Any]]:
    """Build into the folder's engines/.

    Args:
        backends: None for those that are installed here.
        precisions: None for all that this GPU is made for.
        pictures: folder of labelled pictures, for TensorRT's own calibrators.
        count: how many of its training pictures to calibrate on.
        among: the precisions that there are graphs for, where none is asked for.

    Returns:
        The .json of each engine.

    Raises:
        EngineError: one of a precision that was asked for could not be built, or none at all.
    """
    if settings.int8 != EXPLICIT:
        settings = _calibrated(folder, settings, pictures, count)
    backends, chosen = backends or _installed(), precisions or _suited(settings, among)
    gpu = gpu_here()
    if gpu is not None and not precisions:
        for precision in [p for p in among if p not in chosen]:
            why = lack(precision, gpu.compute_capability)
            console.say("build: no {}: {}".format(precision, why))
    if settings.int8 != EXPLICIT and not (standard.BACKEND in backends and "int8" in chosen):
        against = None if gpu is None or precisions else refusal("int8", gpu.compute_capability)
        console.warn(
            "--int8 {} has no effect: {}".format(
                settings.int8, against or "it is for --engine tensorrt --precision int8"
            )
        )
    places = {standard.BACKEND: [standard.target_here()], rtx.BACKEND: []}
    if gpu is not None and target_of(gpu) in RTX_TARGETS:
        places[rtx.BACKEND] = [target_of(gpu)]
    given = list(orders(backends, chosen, places, settings))
    about = {"versions": device_versions()}
    made = [_build(folder, order, about, console) for order in given]
    tidy(folder.engines, given)
    failed = [sidecar for sidecar in made if sidecar["status"] != "built"]
    for sidecar in failed if precisions or len(failed) == len(made) else []:
        raise EngineError("{} could not be built: {}".format(sidecar["name"], sidecar["reason"]))
    return made


def _suited(settings: Settings, among: Sequence[str]) -> List[str]:
    """The precisions that this GPU is made for, or all by force."""
    gpu = gpu_here()
    if gpu is None or settings.force:
        return list(among)
    return [p for p in among if refusal(p, gpu.compute_capability) is None]


def _installed() -> List[str]:
    found = [backend for backend in MODULES if none_runs(backend) is None]
    if not found:
        raise EngineError("nothing is installed that runs engines: {}".format(standard.none_runs()))
    return found


def _build(folder: Folder, order: Order, about: Dict[str, Any], console: Console) -> Dict[str, Any]:
    graph = folder.graph(order.graph)
    impossible = None if graph.is_file() else "{} is not in the run".format(graph.name)
    console.say("build: {} ...".format(order.name))
    return fulfil_aloud(order, graph, folder.engines, about, impossible, console)


def _calibrated(
    folder: Folder, settings: Settings, pictures: Optional[Path], count: int
) -> Settings:
    """The settings with what TensorRT's calibrator needs: pictures, or a cache in their place."""
    if pictures is None:
        if not folder.calibration_cache.is_file():
            raise WrongUseError(
                "--int8 {} needs --pictures DIR, or what edgetrt quantize --calibration-cache "
                "writes beside the graphs".format(settings.int8)
            )
        return settings._replace(calibration_cache=str(folder.calibration_cache))
    if count < 1:
        raise WrongUseError("--calibration-images must be at least 1; received {}".format(count))
    found = folder.pictures("train", pictures)
    # Every so-manyth: they lie in the dataset class by class.
    chosen = found[:: max(1, len(found) // count)][:count]
    return settings._replace(calibration_pictures=tuple(str(p.file) for p in chosen))
