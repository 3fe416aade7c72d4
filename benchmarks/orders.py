"""Engines to build, and telling the person how it goes."""

import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Sequence

from benchmarks.progress import LOG_INTERVAL, Console
from engines.catalogue import module_of
from engines.orders import Order, fulfil
from engines.settings import Settings, uncalibrated
from engines.tensorrt import standard


def orders(
    backends: Iterable[str],
    precisions: Sequence[str],
    places: Mapping[str, Sequence[str]],
    settings: Settings,
) -> Iterator[Order]:
    """An order for each backend, precision and target.

    Args:
        places: the targets of each backend; those of the others are "cpu".
        settings: INT8 by a calibrator is for TensorRT itself, which alone has any.
    """
    for backend in backends:
        for precision in precisions:
            own = backend == standard.BACKEND and precision == "int8"
            for target in places.get(backend, ("cpu",)):
                yield Order(backend, precision, target, settings if own else uncalibrated(settings))


def fulfil_aloud(
    order: Order,
    graph_file: Path,
    folder: Path,
    about: Dict[str, Any],
    impossible: Optional[str],
    console: Console,
) -> Dict[str, Any]:
    """Do what `engines.orders.fulfil` does with the same arguments; the engine's .json."""
    sidecar, there = fulfil(order, graph_file, folder, about, impossible, _phases(order, console))
    if there:
        console.say("build: {} is up to date".format(order.name))
        _warn_of_force(sidecar, console)
    elif sidecar["status"] == "built":
        console.say(
            "build: {}: {:.1f} MB in {:.1f} s".format(
                order.name, sidecar["size_bytes"] / 1e6, sidecar["build_seconds"]
            )
        )
        _warn_of_force(sidecar, console)
    elif module_of(order.backend).unavailable() is None:
        console.warn("{} could not be built: {}".format(order.name, sidecar["reason"]))
    return sidecar


def _warn_of_force(sidecar: Dict[str, Any], console: Console) -> None:
    if "forced" in sidecar["options"]:
        console.warn("{} was forced: {}".format(sidecar["name"], sidecar["options"]["forced"]))


def _phases(order: Order, console: Console) -> Callable[[str, int, int], None]:
    """Says how far TensorRT is with an engine, now and then."""
    last = [time.perf_counter()]

    def tell(phase: str, done: int, of: int) -> None:
        if time.perf_counter() - last[0] >= LOG_INTERVAL:
            last[0] = time.perf_counter()
            steps = ", {}/{}".format(done, of) if of else ""
            console.say("build: {}: {}{}".format(order.name, phase, steps))

    return tell
