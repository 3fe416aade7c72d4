"""The table of engines, for a terminal; on the host and on a device alike."""

from typing import Any, Dict, List, Mapping, Sequence

from benchmarks.scenarios import FROM_FILE, MULTI_STREAM, OFFLINE, SINGLE_STREAM
from engines.text import aligned, printable

Engine = Mapping[str, Any]  # one entry of "engines" in a report


def table(engines: Sequence[Engine]) -> str:
    """The engines of a report as aligned lines; what could not run, or was forced, below."""
    rows = [_row(engine) for engine in engines]
    # What no engine has is left out.
    columns = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    left = sum(name in ("engine", "status", "top-1 (95 %)") for name in columns)
    lines = aligned([columns, *([row[name] for name in columns] for row in rows)], left)
    reasons = {}  # type: Dict[str, List[str]]
    for engine in filter(_matters, engines):
        reasons.setdefault(printable(engine["reason"]), []).append(printable(engine["name"]))
    told = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return "\n".join([lines, *told])


def _matters(engine: Engine) -> bool:
    """Whether the reason is news: that an engine was built for elsewhere is not."""
    forced = "forced" in engine.get("options", {})
    return bool(engine["reason"]) and (forced or engine["status"] != "built")


def _row(engine: Engine) -> Dict[str, str]:
    figures = numbers(engine)

    def shown(key: str, spec: str) -> str:
        return "" if figures[key] is None else format(figures[key], spec)

    interval = ""
    if figures["top1"] is not None:
        interval = f" ({figures['top1_low']:.1%}..{figures['top1_high']:.1%})"
    size = engine["size_bytes"]
    return {
        "engine": printable(engine["name"]),
        "status": status(engine),
        "top-1 (95 %)": shown("top1", ".1%") + interval,
        "agree": shown("agreement", ".1%"),
        "p50 ms": shown("single_stream_p50_ms", ".2f"),
        "p90 ms": shown("single_stream_p90_ms", ".2f"),
        "p99 ms": shown("single_stream_p99_ms", ".2f"),
        "p99 ms of 8": shown("multi_stream_p99_ms", ".2f"),
        "from file ms": shown("from_file_p90_ms", ".2f"),
        "GPU ms": shown("gpu_ms", ".2f"),
        "pict./s": shown("offline_ips", ".0f"),
        "mJ": shown("energy_mj", ".1f"),
        "MB": f"{size / 1e6:.1f}" if size else "",
    }


def status(engine: Engine) -> str:
    """What became of an engine, and what weakens its figures."""
    return ", ".join([engine["status"], *marks(engine)])


def marks(engine: Engine) -> List[str]:
    """In a word each, what weakens an engine's figures: too few queries, a throttled machine."""
    results = engine["scenarios"].values()
    whys = [result["why"] for result in results if not result["valid"]]
    quick = any(why.startswith("quick") for why in whys)
    found = ["quick" if quick else "not valid"] if whys else []
    throttled = any(result.get("throttled_share") for result in results)
    return [*found, "throttled"] if throttled else found


def numbers(engine: Engine) -> Dict[str, Any]:
    """Every figure of an engine's row by a name with its unit; None what was not measured.

    Shares are 0..1, times ms, "_low" and "_high" the ends of a figure's 95 % interval.
    """
    accuracy = engine["accuracy"] or {}
    scenarios, speedup = engine["scenarios"], engine["speedup"] or {}
    found: Dict[str, Any] = {}

    def figure(name: str, value: Any, ends: Any) -> None:
        low, high = ends or (None, None)
        found.update({name: value, f"{name}_low": low, f"{name}_high": high})

    figure("top1", accuracy.get("top1"), accuracy.get("ci95"))
    found.update(top5=accuracy.get("top5"), pictures=accuracy.get("n"))
    found["agreement"] = accuracy.get("agreement")
    figure("delta", accuracy.get("delta"), accuracy.get("delta_ci95"))
    found["p_value"] = accuracy.get("p_value")
    for scenario in (SINGLE_STREAM, MULTI_STREAM, FROM_FILE):
        result = scenarios.get(scenario, {})
        for key in ("p50", "p90", "p99"):
            name = f"{scenario.replace('-', '_')}_{key}_ms"
            figure(name, result.get(key), result.get("ci95", {}).get(key))
        found[f"{scenario.replace('-', '_')}_queries"] = result.get("n")
        found[f"{scenario.replace('-', '_')}_throttled_share"] = result.get("throttled_share")
    found["gpu_ms"] = (engine["gpu_ms"] or {}).get("compute")
    offline = scenarios.get(OFFLINE, {})
    figure("offline_ips", offline.get("ips"), offline.get("ci95"))
    found["offline_pictures"] = offline.get("n")
    found["offline_throttled_share"] = offline.get("throttled_share")
    energy = scenarios.get(SINGLE_STREAM, {}).get("energy") or {}
    figure("energy_mj", energy.get("mj"), energy.get("ci95"))
    figure("speedup", speedup.get("value"), speedup.get("ci95"))
    found.update(size_bytes=engine["size_bytes"], build_seconds=engine["build_seconds"])
    return found
