"""From a bundle to the release that this device serves, or the one before: nothing in between.

Whatever fails before the switch leaves the device as it was. Whatever fails after it, the device
goes back by itself; and if it dies there, the next command goes back before it does anything else.
"""

import io
import os
from typing import Any, BinaryIO, Callable, Dict, List, NamedTuple, Optional

from benchmarks.device.release import engines, health
from benchmarks.device.release.content import DamagedError, Missing
from benchmarks.device.release.engines import Asked, Machine
from benchmarks.device.release.steps import Steps
from benchmarks.device.release.store import DEPLOYED, HOME, ROLLED_BACK, SCHEMA, Store
from benchmarks.device.release.trust import Offer
from benchmarks.progress import Console
from engines.bundle.manifest import Manifest, parse
from engines.engine import EngineError
from engines.files import sha256_of
from engines.text import printable

RESERVE = 32 << 20  # bytes that must stay free

# Gives the bytes of a missing file, from the first missing one on.
Source = Callable[[Missing], BinaryIO]


class Request(NamedTuple):
    """A bundle, and what is to become of it.

    keep: how many releases stay on the device, the new one among them.
    port: for a server to be started, if none runs; None: none is wanted.
    dry_run: only look whether it could be done.
    """

    offer: Offer
    asked: Asked = Asked()
    keep: int = 3
    port: Optional[int] = None
    dry_run: bool = False


class Means(NamedTuple):
    """What a deployment works with.

    source: where missing files come from.
    alone: called right before the switch, from which on it finishes, whoever started it.
    """

    source: Source
    steps: Steps
    console: Console
    alone: Callable[[], None] = lambda: None


def install(store: Store, request: Request, means: Means) -> Dict[str, Any]:
    """Make a bundle the current release.

    Returns:
        "release", "changed" (whether anything had to be done), "engine" (the one that is served),
        "engines" (see `engines.self_test`), "report" (of the benchmark), "seconds" (by step),
        "board" and "versions"; of a dry run also "dry_run" and "missing_bytes".

    Raises:
        EngineError: it is not current; `means.steps` tells where it failed.
        OSError: as that: the disk is full, or can't be written.
    """
    if request.dry_run:
        manifest, machine = _check(store, request, means.steps)
        missing = store.missing(manifest)
        _check_space(store, manifest, missing, request, means.steps)
        changed = _as_asked(store, manifest, request.asked) is None or bool(missing)
        result = _result(store, manifest, changed, machine, None, means.steps)
        return dict(result, dry_run=True, missing_bytes=_bytes(missing))
    with store.locked():
        _recover(store, means.console)
        manifest, machine = _check(store, request, means.steps)
        missing = store.missing(manifest)
        _check_space(store, manifest, missing, request, means.steps)
        _transfer(store, manifest, missing, request, means)
        _verify(store, manifest, means.steps)
        about = _as_asked(store, manifest, request.asked)
        changed = about is None or bool(missing)
        if about is not None:
            report = engines.report_of(store.folder(manifest.id))
            with means.steps.step("health") as say:
                _confirm_health(store, manifest, request.port)
                store.trust.pin(request.offer)
                say("already deployed")
        else:
            about, report = _make(store, manifest, request, means)
            means.alone()
            _switch(store, manifest, about, request, means.steps)
        _tidy(store, manifest, request, means)
        return _result(store, manifest, changed, machine, report, means.steps)


def roll_back(store: Store, steps: Steps, console: Console, alone: Callable[[], None]) -> Any:
    """Make the release before the current one current again.

    Where a deployment died before it was confirmed, undoing that is all of the way back.

    Returns:
        As `install`.

    Raises:
        EngineError: there is none, or it is no longer whole; the current one stays.
    """
    with store.locked():
        event = (store.pending() or {}).get("event")
        left, current = _recover(store, console), store.current()
        if left is not None and event != ROLLED_BACK and current is not None:
            manifest = store.manifest(current)
            with steps.step("health") as say:
                _confirm_health(store, manifest, None)
                say("back from {}, which was never confirmed".format(left))
            return _result(store, manifest, True, None, None, steps)
        with steps.step("verify") as say:
            release = store.previous()
            if release is None:
                raise EngineError("there is no release before this one to go back to")
            about, manifest = store.check(release), store.manifest(release)
            against = engines.usable(store.folder(release), about["engine"])
            if against is not None:
                raise EngineError("release {} can't be used: {}".format(release, against))
            say("release {} is whole".format(release))
        alone()
        _switch(store, manifest, about, None, steps)
        return _result(store, manifest, True, None, None, steps)


def _recover(store: Store, console: Console) -> Optional[str]:
    left = store.recover()
    if left is not None:
        console.warn("release {} was never confirmed; went back from it".format(left))
    return left


def _check(store: Store, request: Request, steps: Steps) -> Any:
    with steps.step("check") as say:
        manifest = parse(request.offer.manifest)
        store.trust.check(request.offer)
        machine, notes = engines.examine(manifest, request.asked)
        health.check_port(store, request.port)
        say("; ".join([machine.name, *notes]))
    return manifest, machine


def _check_space(
    store: Store, manifest: Manifest, missing: List[Missing], request: Request, steps: Steps
) -> None:
    """See that the files have room, and engines about as large as the graphs they come from."""
    with steps.step("space") as say:
        needed = _bytes(missing) + RESERVE
        if _as_asked(store, manifest, request.asked) is None:
            graphs = sum(f.size for f in manifest.files if f.path.endswith(".onnx"))
            needed += graphs * len(request.asked.engines)
        free = _free(store)
        if free < needed and not request.dry_run:
            store.begin(manifest, request.offer.manifest, request.offer.signature)
            store.tidy(request.keep, spare=manifest.id)  # what cut-off deployments left
            free = _free(store)
        if free < needed:
            raise EngineError(
                "{:.0f} MB are needed in {} and {:.0f} MB are free; free some, or --keep fewer "
                "releases".format(needed / 1e6, store.root, free / 1e6)
            )
        say("{:.0f} MB of {:.0f} MB free".format(needed / 1e6, free / 1e6))


def _free(store: Store) -> int:
    place = store.root
    while not place.exists():
        place = place.parent
    status = os.statvfs(str(place))
    return status.f_bavail * status.f_frsize


def _transfer(
    store: Store, manifest: Manifest, missing: List[Missing], request: Request, means: Means
) -> None:
    with means.steps.step("transfer") as say:
        store.begin(manifest, request.offer.manifest, request.offer.signature)
        done, total = 0, _bytes(missing)

        def advance(count: int) -> None:
            nonlocal done
            done = min(done + count, total)
            means.steps.progress(done, total)

        for one in missing:
            try:
                store.content.receive(one, _open(means.source, one), advance)
            except DamagedError:
                if not one.offset:
                    raise
                # What an earlier deployment left of it was damaged: all of it again.
                again = one._replace(offset=0)
                store.content.receive(again, _open(means.source, again), advance)
        say("{:.1f} MB in {} file(s)".format(total / 1e6, len(missing)))


def _open(source: Source, missing: Missing) -> BinaryIO:
    return io.BytesIO() if missing.offset == missing.file.size else source(missing)


def _verify(store: Store, manifest: Manifest, steps: Steps) -> None:
    with steps.step("verify") as say:
        store.stage(manifest)
        say("{} file(s)".format(len(manifest.files)))


def _as_asked(store: Store, manifest: Manifest, asked: Asked) -> Optional[Dict[str, Any]]:
    """The release.json, if it is current already, as asked, by this program, and can be used."""
    about = store.about(manifest.id) if store.current() == manifest.id else None
    if about is None or about.get("asked") != asked.as_dict():
        return None
    if about.get("program") != _own_program():
        return None
    usable = engines.usable(store.folder(manifest.id), about.get("engine")) is None
    return about if usable else None


def _own_program() -> Optional[str]:
    """The SHA-256 of this program; None if it is no single file."""
    return sha256_of(HOME) if HOME.is_file() else None


def _make(store: Store, manifest: Manifest, request: Request, means: Means) -> Any:
    """Build, test and time the engines; gives the release.json and the benchmark's report."""
    folder = store.folder(manifest.id)
    with means.steps.step("build") as say:
        engines.adopt(store, manifest)
        made = engines.make(folder, manifest, request.asked, means.console)
        built = [sidecar["name"] for sidecar in made if sidecar["status"] == "built"]
        say(", ".join(built))
    with means.steps.step("self-test") as say:
        found = engines.self_test(folder, manifest, made)
        bad = ["{}: {}".format(n, e["reason"]) for n, e in found.items() if e["reason"]]
        say("; ".join(bad) if bad else "{} engine(s) answer right".format(len(found)))
    with means.steps.step("benchmark") as say:
        report = engines.time_them(folder, found, means.console)
        name = engines.fastest(found)
        say("{} is the fastest: {:.3f} ms".format(name, found[name]["p90_ms"]))
    about = {
        "schema": SCHEMA,
        "id": manifest.id,
        "name": manifest.name,
        "engine": name,
        "engines": found,
        "asked": request.asked.as_dict(),
        "program": _own_program(),
        "complete": True,
    }
    return about, report


def _switch(
    store: Store,
    manifest: Manifest,
    about: Dict[str, Any],
    request: Optional[Request],
    steps: Steps,
) -> None:
    """Switch, and go back if that does not prove good."""
    before, old = health.server(store), store.current()
    event = DEPLOYED if request is not None else ROLLED_BACK
    started = None
    try:
        with steps.step("switch") as say:
            store.switch(manifest.id, about, event)
            say("to {}".format(manifest.id) + (", from {}".format(old) if old else ""))
        with steps.step("health") as say:
            started = health.prove(store, manifest, before, request.port if request else None)
            if request is not None:
                store.trust.pin(request.offer)
            store.confirm(event)
            say("{} answers right".format(about["engine"]))
    except BaseException as error:
        stands = False
        try:
            steps.rolled_back = store.recover(printable(error)) is not None
            stands = not steps.rolled_back
        except OSError:  # a full disk; the next command does the rest, and this error is told
            steps.rolled_back = store.current() == old != manifest.id
        try:
            if started is not None and not stands:
                health.stop(started)
        finally:
            if store.current() == old:
                health.wait_for_return(store, old, before)
        raise


def _confirm_health(store: Store, manifest: Manifest, port: Optional[int]) -> None:
    """See that what is current without a switch is served."""
    server = health.server(store)
    if server is not None and server.served != (manifest.id, "serving"):
        store.renew()  # else it may be minutes until it tries again what has been mended
    health.prove(store, manifest, server, port, switched=False)


def _tidy(store: Store, manifest: Manifest, request: Request, means: Means) -> None:
    with means.steps.step("tidy") as say:
        try:
            gone = store.tidy(request.keep, spare=manifest.id)
            say("removed {}".format(", ".join(gone)) if gone else "nothing to remove")
        except OSError as error:  # the release is deployed all the same
            means.console.warn("old releases can't be removed: {}".format(error))


def _result(
    store: Store,
    manifest: Manifest,
    changed: bool,
    machine: Optional[Machine],
    report: Any,
    steps: Steps,
) -> Dict[str, Any]:
    about = store.about(manifest.id) or {}
    return {
        "release": manifest.id,
        "name": manifest.name,
        "changed": changed,
        "engine": about.get("engine"),
        "engines": about.get("engines", {}),
        "report": report,
        "seconds": steps.seconds,
        "board": machine.name if machine else None,
        "versions": machine.versions if machine else {},
    }


def _bytes(missing: List[Missing]) -> int:
    return sum(one.file.size - one.offset for one in missing)
