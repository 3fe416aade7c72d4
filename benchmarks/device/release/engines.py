"""The engines of a release: what can be built here, what answers right, which is the fastest."""

import os
import platform
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from benchmarks.device.benchmark import benchmark
from benchmarks.device.build import build
from benchmarks.device.folder import Folder
from benchmarks.device.release.content import hard_link
from benchmarks.device.release.store import Store, read_json
from benchmarks.device.selftest import ON_GPU
from benchmarks.progress import Console
from benchmarks.scenarios import QUICK, SINGLE_STREAM, Work
from engines import __version__
from engines.bundle.golden import check
from engines.bundle.manifest import Manifest
from engines.catalogue import MODULES, PRECISIONS, cannot_run, load_engine, none_runs, read_sidecar
from engines.doctor import device_versions
from engines.engine import EngineError
from engines.files import sha256_of
from engines.orders import LAYERS
from engines.settings import DEFAULT as SETTINGS
from engines.targets import find_board, lack, refusal
from engines.tensorrt import standard
from engines.tensorrt.here import gpu_here, target_of

EFFORT = QUICK._replace(loadgen=False)
FOLDER = "engines"


class Asked(NamedTuple):
    """Which engines a release shall have.

    engines: backends, such as "tensorrt".
    precisions: None for all of the bundle's that this GPU is made for.
    """

    engines: Sequence[str] = (standard.BACKEND,)
    precisions: Optional[Sequence[str]] = None

    def as_dict(self) -> Dict[str, Any]:
        """As it stands in release.json."""
        precisions = None if self.precisions is None else sorted(set(self.precisions))
        return {"engines": sorted(set(self.engines)), "precisions": precisions}


class Machine(NamedTuple):
    """What a device is: its board or else its GPU or processor, and the versions on it."""

    name: str
    versions: Dict[str, str]


def examine(manifest: Manifest, asked: Asked) -> Tuple[Machine, List[str]]:
    """See whether this device can build and run what is asked for.

    Returns:
        The device, and for people what will be left out, and why.

    Raises:
        EngineError: it can't; says what to choose instead, where there is something.
    """
    for backend in asked.engines:
        if backend not in MODULES:
            raise EngineError(
                "there is no engine {}; there are: {}".format(backend, ", ".join(MODULES))
            )
        reason = none_runs(backend)
        if reason is not None:
            raise EngineError("{} engines can't run here: {}".format(backend, reason))
    gpu = gpu_here()
    board = find_board(gpus=[] if gpu is None else [gpu])
    name = board.board.name if board else gpu.name if gpu else platform.machine()
    names = set() if board is None else set(board.board.name.split(" or "))
    names |= set() if gpu is None else {target_of(gpu)}
    if manifest.targets and not names & set(manifest.targets):
        raise EngineError(
            "the bundle is for {}; this is {}".format(", ".join(manifest.targets), name)
        )
    notes = _refused(manifest, asked, None if gpu is None else gpu.compute_capability)
    return Machine(name, dict(device_versions(), edgetrt=__version__)), notes


def _refused(
    manifest: Manifest, asked: Asked, compute_capability: Optional[Tuple[int, int]]
) -> List[str]:
    notes = []
    for precision in asked.precisions or manifest.precisions:
        if precision not in PRECISIONS or precision not in manifest.precisions:
            raise EngineError(
                "the bundle has no {}; it has {}".format(precision, ", ".join(manifest.precisions))
            )
        on_gpu = compute_capability is not None and set(asked.engines) & set(ON_GPU)
        against = refusal(precision, compute_capability) if on_gpu else None  # type: ignore[arg-type]
        if against is not None and asked.precisions:
            raise EngineError("{} can't be used: {}".format(precision, against))
        if against is not None:
            short = lack(precision, compute_capability)  # type: ignore[arg-type]
            notes.append("{} is left out: {}".format(precision, short))
    return notes


def adopt(store: Store, manifest: Manifest) -> None:
    """Take over the engines that other releases have of the same graphs: a build takes minutes."""
    folder = store.folder(manifest.id) / FOLDER
    graphs = {file.sha256 for file in manifest.files}
    for release in store.releases():
        source = store.folder(release) / FOLDER
        for path in sorted(source.glob("[!.]*.json")) if release != manifest.id else []:
            try:
                sidecar = read_sidecar(path)
            except EngineError:
                continue
            there = (folder / path.name).exists()
            if there or sidecar["status"] != "built" or sidecar["onnx_sha256"] not in graphs:
                continue
            for name in (sidecar["file"], os.path.join(LAYERS, path.name), path.name):  # noqa: PTH118
                if (source / name).is_file():
                    hard_link(source / name, folder / name)


def make(folder: Path, manifest: Manifest, asked: Asked, console: Console) -> List[Dict[str, Any]]:
    """Build what is asked for and is not there yet.

    Returns:
        The .json of each engine.

    Raises:
        EngineError: one of a precision that was asked for could not be built, or none at all.
    """
    with Folder(folder, writes=True) as run:
        return build(
            run, asked.engines, asked.precisions, SETTINGS, None, 0, console, manifest.precisions
        )


def self_test(
    folder: Path, manifest: Manifest, made: Sequence[Dict[str, Any]]
) -> Dict[str, Dict[str, Any]]:
    """Ask each engine the golden cases of the bundle.

    Returns:
        By name "status" ("passed", "failed" or "unavailable"), "reason", "golden" and "p90_ms".

    Raises:
        EngineError: none passed.
    """
    found = {sidecar["name"]: _tested(folder, manifest, sidecar) for sidecar in made}
    if not any(engine["status"] == "passed" for engine in found.values()):
        reasons = ["{}: {}".format(name, engine["reason"]) for name, engine in found.items()]
        raise EngineError("no engine answers the golden cases right: {}".format("; ".join(reasons)))
    return found


def _tested(folder: Path, manifest: Manifest, sidecar: Dict[str, Any]) -> Dict[str, Any]:
    entry = {"status": "unavailable", "reason": sidecar["reason"], "golden": None, "p90_ms": None}
    if sidecar["status"] != "built":
        return entry
    try:
        with load_engine(folder / FOLDER, sidecar) as engine:
            golden = check(engine, sidecar["precision"], manifest, folder)
    except (EngineError, ImportError) as error:  # the latter where there is no OpenCV
        return dict(entry, status="failed", reason=str(error))
    return dict(
        entry,
        status="passed" if golden.ok else "failed",
        reason="" if golden.ok else golden.what,
        golden=golden._asdict(),
    )


def time_them(folder: Path, engines: Dict[str, Dict[str, Any]], console: Console) -> Dict[str, Any]:
    """Measure those that passed, for seconds, and note how fast each is.

    Returns:
        The report, which is also in the release.

    Raises:
        EngineError: one fails once it is timed.
    """
    passed = [name for name, engine in engines.items() if engine["status"] == "passed"]
    with Folder(folder, writes=True) as run:
        report = benchmark(run, None, False, Work((SINGLE_STREAM,), EFFORT), console, passed)
    for entry in report["engines"]:
        if SINGLE_STREAM in entry["scenarios"]:
            engines[entry["name"]]["p90_ms"] = entry["scenarios"][SINGLE_STREAM]["p90"]
    return report


def report_of(folder: Path) -> Any:
    """The report that `time_them` left in a release; None if it can't be read."""
    return read_json(folder / "report" / "device.json")


def fastest(engines: Dict[str, Dict[str, Any]]) -> str:
    """The engine to serve: of those that answer right the one that does so soonest.

    Raises:
        EngineError: none was timed.
    """
    timed = [(e["p90_ms"], name) for name, e in engines.items() if e["p90_ms"] is not None]
    if not timed:
        raise EngineError("no engine ran under the benchmark")
    return min(timed)[1]


def usable(folder: Path, name: Any) -> Optional[str]:
    """Why an engine of a release can't be served here and now; None if it can.

    Its file is hashed, and that it is for this machine's GPU and TensorRT is looked at.
    """
    try:
        sidecar = read_sidecar(folder / FOLDER / "{}.json".format(name))
        if sidecar["status"] != "built":
            return str(sidecar["reason"])
        if sha256_of(folder / FOLDER / sidecar["file"]) != sidecar["sha256"]:
            return "{} is not the file that was built".format(sidecar["file"])
        return cannot_run(sidecar)
    except (EngineError, OSError) as error:
        return str(error)
