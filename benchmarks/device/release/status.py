"""What a device has and serves, for people and for the host."""

from typing import Any, Dict

from benchmarks.device.release import health
from benchmarks.device.release.root import check
from benchmarks.device.release.store import Store
from engines.engine import EngineError


def status(store: Store) -> Dict[str, Any]:
    """What a device has and serves; nothing is changed.

    Raises:
        EngineError: the folder belongs to someone else.
    """
    if store.root.exists():
        check(store.root)
    server = health.server(store)
    releases = []
    for release in store.releases():
        about = store.about(release)
        known = about or {}
        releases.append(
            {
                "release": release,
                "name": known.get("name"),
                "engine": known.get("engine"),
                "complete": about is not None,
            }
        )
    try:
        key = store.trust.fingerprint()
    except EngineError as error:
        key = str(error)
    return {
        "current": store.current(),
        "previous": store.previous(),
        "releases": releases,
        "history": store.history(),
        "server": None if server is None else server.word,
        "key": key,
        "pending": store.pending(),
    }
