"""The table of engines, for a terminal."""

from typing import Any

from engines.text import aligned

HEADER = ("engine", "status", "top-1 (95 %)", "agree", "p50 ms", "p99 ms", "pict./s", "MB")


def table(engines: list[dict[str, Any]]) -> str:
    """The engines of a report as aligned lines; what could not run, or was forced, below."""
    lines = aligned([HEADER, *(_row(engine) for engine in engines)], left=3)
    reasons = [f"{e['name']}: {e['reason']}" for e in engines if _matters(e)]
    return "\n".join([lines, *reasons])


def _matters(engine: dict[str, Any]) -> bool:
    """Whether the reason is news: that an engine was built for elsewhere is not."""
    forced = "forced" in engine.get("options", {})
    return bool(engine["reason"]) and (forced or engine["status"] != "built")


def _row(engine: dict[str, Any]) -> tuple[str, ...]:
    accuracy, latency = engine["accuracy"], engine["latency_ms"]
    size = engine["size_bytes"]
    shown = ["", "", "", "", ""]
    if accuracy and latency:
        low, high = accuracy["ci95"]
        shown = [
            f"{accuracy['top1']:.1%} ({low:.1%}..{high:.1%})",
            f"{accuracy['agreement']:.1%}",
            f"{latency['p50']:.2f}",
            f"{latency['p99']:.2f}",
            f"{engine['throughput_ips']:.0f}",
        ]
    return (engine["name"], engine["status"], *shown, f"{size / 1e6:.1f}" if size else "")
