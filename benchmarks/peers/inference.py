"""Peers and our engines of one run: opened, asked the same pictures, timed in turns."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import numpy as np

from benchmarks import latency, results
from benchmarks.accuracy import top1
from benchmarks.latency import Timed
from benchmarks.peers import benchmark_app
from benchmarks.peers.catalogue import App, Peer
from benchmarks.peers.run_folder import Picture, RunFolder
from benchmarks.progress import Console
from benchmarks.scenarios import OFFLINE, SINGLE_STREAM, Effort
from engines import tensorflow_graph
from engines.catalogue import cannot_run, is_made_of, load_engine, read_sidecar
from engines.engine import Engine, EngineError
from engines.preprocess import load_good
from engines.text import printable

BATCH = 32  # pictures at a time for accuracy; so many are held for timing
APP_SECONDS = {"valid": 10, "quick": 2}
MEASURED, NOT_MEASURED = "measured", "not measured"

Row = Dict[str, Any]


def measure(
    run: RunFolder, peers: Sequence[Peer], apps: Sequence[App], effort: Effort, console: Console
) -> List[Row]:
    """Measure peers beside our engines of a run.

    Returns:
        A row for each engine of ours, each followed by its peers: "name", "what", "beside" (None
        for ours), "status", "reason" (of not being measured), "accuracy" (see
        `benchmarks.accuracy.top1`), "scenarios" (results by scenario, see
        `benchmarks.results.summarize`), and "against_ours": how many times as long it takes as
        ours, by single-stream's result, with its 95 % interval. A program that measures itself
        has no accuracy, and "app", see `benchmark_app.parse`.
    """
    rows: List[Row] = []
    with ExitStack() as stack:
        engines: Dict[str, Engine] = {}
        for peer in [*_ours(run), *peers]:
            console.say("peers: {}".format(peer.name))
            row = _row(peer.name, peer.what, peer.beside)
            rows.append(row)
            try:
                engines[peer.name] = stack.enter_context(peer.open(run))
            except Exception as error:  # whatever foreign code raises, the others go on
                _give_up(row, error)
        pixels = _answer(rows, engines, run, console)
        timed: Dict[str, Dict[str, Timed]] = {}
        for scenario in (SINGLE_STREAM, OFFLINE):
            with console.progress(scenario, effort.turns * len(engines), "turns") as advance:
                timed[scenario] = latency.measure(scenario, engines, pixels, [], effort, advance)
    for row in rows:
        for scenario, by_name in timed.items():
            if row["name"] in by_name:
                own = by_name[row["name"]]
                row["scenarios"][scenario] = results.summarize(scenario, own, effort)
        ours, own_time = (timed[SINGLE_STREAM].get(row[key]) for key in ("beside", "name"))
        if ours is not None and own_time is not None:
            row["against_ours"] = results.speedup(ours, own_time)
    for app in apps:
        console.say("peers: {}".format(app.name))
        rows.append(_run_app(run, app, effort))
    return _beside_each_other(rows)


def _row(name: str, what: str, beside: Any) -> Row:
    return {
        "name": name,
        "what": what,
        "beside": beside or None,
        "status": MEASURED,
        "reason": "",
        "accuracy": None,
        "scenarios": {},
        "against_ours": None,
    }


def _give_up(row: Row, error: Exception) -> None:
    text = str(error) if isinstance(error, EngineError) else repr(error)
    row.update(status=NOT_MEASURED, reason=printable(text.strip() or repr(error)))


def _ours(run: RunFolder) -> Iterator[Peer]:
    """The run's engines: TensorFlow, and those that were built for this machine."""
    yield Peer(
        "tensorflow-fp32", "ours: the frozen graph", "",
        lambda run: tensorflow_graph.load(str(run.model("frozen.pb"))),
    )  # fmt: skip
    for path in sorted((run.folder / "engines").glob("[!.]*.json")):
        if not _is_elsewhere(path):
            yield Peer(path.stem, "ours", "", _opener(path))


def _is_elsewhere(path: Path) -> bool:
    """Whether an engine is none for this machine; one that can't be read may be."""
    try:
        sidecar = read_sidecar(path)
    except EngineError:
        return False
    return sidecar["status"] != "built" or cannot_run(sidecar) is not None


def _opener(path: Path) -> Callable[[RunFolder], Engine]:
    def load(run: RunFolder) -> Engine:
        sidecar = read_sidecar(path)
        if not is_made_of(sidecar, run.folder / "onnx"):
            raise EngineError("built from an older model; run: edgetrt build")
        return load_engine(path.parent, sidecar)

    return load


def _answer(
    rows: Sequence[Row], engines: Dict[str, Engine], run: RunFolder, console: Console
) -> np.ndarray:
    """Fill in each row's accuracy, and give the first pixels; each picture is decoded once.

    An engine that fails is taken out of `engines`.
    """
    test = run.split("test")
    if not engines:
        raise EngineError("none of them can be run")
    _, height, width, _ = next(iter(engines.values())).input.shape
    first = _pixels(test[:BATCH], int(height or 0), int(width or 0))
    predicted: Dict[str, List[np.ndarray]] = {name: [] for name in engines}
    with console.progress("accuracy", len(test), "pictures") as advance:
        for start in range(0, len(test), BATCH):
            some = test[start : start + BATCH]
            pixels = _pixels(some, *first.shape[1:3]) if start else first
            for row in rows:
                if row["name"] in engines:
                    try:
                        answers = engines[row["name"]].infer(pixels)
                        predicted[row["name"]].append(answers.argmax(1))
                    except Exception as error:  # as above
                        _give_up(row, error)
                        engines.pop(row["name"])
            advance(len(some))
    truth = np.array([picture.label for picture in test])
    for row in rows:
        if row["name"] in engines:
            row["accuracy"] = top1(np.concatenate(predicted[row["name"]]), truth)
    return first


def _pixels(pictures: Sequence[Picture], height: int, width: int) -> np.ndarray:
    return np.stack([load_good(picture.file, height, width) for picture in pictures])


def _run_app(run: RunFolder, app: App, effort: Effort) -> Row:
    row = _row(app.name, app.what, app.beside)
    try:
        row["app"] = benchmark_app.run(run.graph(app.precision), APP_SECONDS[effort.name])
    except (EngineError, OSError) as error:
        _give_up(row, error)
    return row


def _beside_each_other(rows: Sequence[Row]) -> List[Row]:
    """Each engine of ours followed by its peers, then those whose engine is not there."""
    ours = [row["name"] for row in rows if row["beside"] is None]
    order = {name: place for place, name in enumerate(ours)}

    def place(row: Row) -> int:
        return order.get(row["beside"] or row["name"], len(order))

    return sorted(rows, key=place)
