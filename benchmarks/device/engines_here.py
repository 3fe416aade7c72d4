"""The engines of a run that can run on this device."""

from typing import Dict, List, Optional, Tuple

from benchmarks.device.folder import Folder, WrongUseError
from benchmarks.progress import Console
from engines import tensorflow_graph
from engines.catalogue import TENSORFLOW, cannot_run, load_engine, read_sidecars
from engines.engine import Engine, EngineError

REFERENCE = TENSORFLOW + "-fp32"


def names(folder: Folder) -> Tuple[List[str], Dict[str, str]]:
    """The names of the engines that can run here, and of the others why not.

    TensorFlow's comes first, where it is installed.
    """
    good, bad = [], {}
    reason = tensorflow_graph.unavailable()
    if reason is None and not folder.frozen_graph.is_file():
        reason = "{} is not on this device".format(folder.frozen_graph)
    if reason is None:
        good.append(REFERENCE)
    else:
        bad[REFERENCE] = reason
    for sidecar in read_sidecars(folder.engines) if folder.engines.is_dir() else []:
        if sidecar["status"] != "built":
            reason = sidecar["reason"]
        elif not folder.is_current(sidecar):
            reason = "it was built from an older model; build again"
        else:
            reason = cannot_run(sidecar)
        if reason is None:
            good.append(sidecar["name"])
        else:
            bad[sidecar["name"]] = reason
    return good, bad


def load(folder: Folder, name: str) -> Engine:
    """An engine of the run by its name.

    Raises:
        WrongUseError: there is none of that name that can run here.
        EngineError: it does not load.
    """
    good, bad = names(folder)
    if name not in good:
        raise WrongUseError(
            "engine {} can't run here: {}; there are: {}".format(
                name, bad.get(name, "there is none of that name"), ", ".join(good) or "none"
            )
        )
    if name == REFERENCE:
        return tensorflow_graph.load(str(folder.frozen_graph))
    [sidecar] = [s for s in read_sidecars(folder.engines) if s["name"] == name]
    return load_engine(folder.engines, sidecar)


def forced(folder: Folder, name: str) -> Optional[str]:
    """Why an engine was not meant for this GPU, if it was built all the same."""
    for sidecar in read_sidecars(folder.engines) if folder.engines.is_dir() else []:
        if sidecar["name"] == name:
            against: Optional[str] = sidecar["options"].get("forced")
            return against
    return None


def load_all(folder: Folder, console: Console) -> Dict[str, Engine]:
    """Every engine that can run here, by name; warns of those that fail.

    Raises:
        WrongUseError: there is none.
    """
    good, bad = names(folder)
    for name, reason in bad.items():
        console.say("{} does not run here: {}".format(name, reason))
    engines = {}
    for name in good:
        try:
            engines[name] = load(folder, name)
        except EngineError as error:
            console.warn("{}: {}".format(name, error))
    if not engines:
        raise WrongUseError("no engine of {} runs here; run: build --run DIR".format(folder.path))
    return engines
