"""What became of each device, as one table."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines.text import aligned, printable
from pipeline.deploy.record import DONE, Entry

WIDEST = 72  # characters of the last column


def table(entries: Mapping[str, Entry]) -> str:
    """The table of a deployment, dry run or rollback: one line for each device."""
    head = ["device", "state", "engine", "p90 ms", "seconds", ""]
    rows = [
        [name, entry["state"], engine(entry), p90(entry), f"{entry['seconds']:.1f}"
         if "seconds" in entry else "", remark(entry)]
        for name, entry in entries.items()
    ]  # fmt: skip
    return _aligned([head, *rows])


def status_table(entries: Mapping[str, Entry]) -> str:
    """The table of what devices have and do."""
    head = ["device", "release", "engine", "server", "releases", ""]
    rows = []
    for name, entry in entries.items():
        result = _mapping(entry.get("result"))
        server = _mapping(result.get("server"))
        releases = result.get("releases")
        rows.append([
            name,
            _cell(result.get("current")) or ("none" if entry["state"] == DONE else ""),
            _cell(server.get("engine")) or _built(result),
            _cell(server.get("state")) or ("off" if entry["state"] == DONE else ""),
            str(len(releases)) if isinstance(releases, list) else "",
            _cell(server.get("reason")) or remark(entry),
        ])  # fmt: skip
    return _aligned([head, *rows])


def engine(entry: Entry) -> str:
    """The engine that a device serves after it; empty where it was not told."""
    return _cell(_mapping(entry.get("result")).get("engine"))


def p90(entry: Entry) -> str:
    """That engine's milliseconds there."""
    engines = _mapping(_mapping(entry.get("result")).get("engines"))
    value = _mapping(engines.get(engine(entry))).get("p90_ms")
    return f"{value:.2f}" if isinstance(value, int | float) and 0 <= value < 1e7 else ""


def remark(entry: Entry) -> str:
    """What else there is to say of a device, on one line."""
    if entry["text"]:
        step = f"{entry['step']}: " if entry.get("step") else ""
        back = "; rolled back" if entry.get("rolled_back") else ""
        return _cell(step + entry["text"].splitlines()[0] + back)
    result = _mapping(entry.get("result"))
    if result.get("dry_run") is True:
        missing = result.get("missing_bytes")
        size = ""
        if isinstance(missing, int) and 0 <= missing < 2**63:
            size = f", {missing / 1e6:.1f} MB to send"
        return _cell(f"would be deployed{size}" if result.get("changed") else "already deployed")
    if result.get("changed") is False:
        return "already deployed"
    return ""


def _built(result: Mapping[str, Any]) -> str:
    """The engine of a device's current release."""
    releases = result.get("releases")
    for release in releases if isinstance(releases, list) else []:
        if _mapping(release).get("release") == result.get("current"):
            return _cell(_mapping(release).get("engine"))
    return ""


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    return aligned(rows, left=len(rows[0]))


def _cell(value: Any) -> str:
    """What a device said, as text that does no harm to a table."""
    text = printable(value) if isinstance(value, str) else ""
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
