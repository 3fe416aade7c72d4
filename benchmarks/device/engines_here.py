"""The engines of a run, and which of them can run on this device."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from benchmarks.device.folder import Folder, WrongUseError
from benchmarks.measure import REFERENCE
from benchmarks.progress import Console
from engines import tensorflow_graph
from engines.catalogue import cannot_run, is_made_of, load_engine, read_sidecars
from engines.engine import Engine, EngineError


class Known(NamedTuple):
    """An engine of the run.

    sidecar: its .json; empty for TensorFlow's.
    reason: why it can't run here; None if it can.
    """

    name: str
    sidecar: Dict[str, Any]
    reason: Optional[str]

    @property
    def forced(self) -> Optional[str]:
        """Why it was not meant for its GPU, if it was built all the same."""
        against: Optional[str] = self.sidecar.get("options", {}).get("forced")
        return against


def look(folder: Folder) -> List[Known]:
    """The engines of a run, TensorFlow's first."""
    found = [Known(REFERENCE, {}, _no_tensorflow(folder))]
    for sidecar in read_sidecars(folder.engines) if folder.engines.is_dir() else []:
        found.append(Known(sidecar["name"], sidecar, _why_not(folder, sidecar)))
    return found


def load(folder: Folder, known: Known) -> Engine:
    """Load an engine that `look` has nothing against.

    Raises:
        EngineError: it does not load.
    """
    if known.name == REFERENCE:
        return tensorflow_graph.load(str(folder.frozen_graph))
    return load_engine(folder.engines, known.sidecar)


def choose(folder: Folder, name: str) -> Known:
    """An engine of the run by its name.

    Raises:
        WrongUseError: there is none of that name that can run here.
    """
    found = look(folder)
    reason: Optional[str] = "there is none of that name"
    for known in found:
        if known.name == name:
            if known.reason is None:
                return known
            reason = known.reason
    good = ", ".join(known.name for known in found if known.reason is None)
    raise WrongUseError(
        "engine {} can't run here: {}; there are: {}".format(name, reason, good or "none")
    )


def load_all(
    folder: Folder, console: Console, names: Optional[Sequence[str]] = None
) -> List[Tuple[Known, Engine]]:
    """Every engine that can run here, loaded; says of the others why not.

    Args:
        names: of those that are wanted; None for all.

    Raises:
        WrongUseError: there is none.
    """
    engines = []
    for known in look(folder):
        if names is not None and known.name not in names:
            continue
        if known.reason is not None:
            console.say("{} does not run here: {}".format(known.name, known.reason))
            continue
        try:
            engines.append((known, load(folder, known)))
        except EngineError as error:
            console.warn("{}: {}".format(known.name, error))
    if not engines:
        raise WrongUseError("no engine of {} runs here; run: build --run DIR".format(folder.path))
    return engines


def _no_tensorflow(folder: Folder) -> Optional[str]:
    reason = tensorflow_graph.unavailable()
    if reason is None and not folder.frozen_graph.is_file():
        reason = "{} is not on this device".format(folder.frozen_graph)
    return reason


def _why_not(folder: Folder, sidecar: Dict[str, Any]) -> Optional[str]:
    if sidecar["status"] != "built":
        return str(sidecar["reason"])
    if not is_made_of(sidecar, folder.graphs):
        return "it was built from an older model; build again"
    return cannot_run(sidecar)
