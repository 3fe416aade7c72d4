"""Why two results should not be held against each other."""

from typing import Any, Dict, List, Optional

from engines.text import printable

CLOCKS_APART = 0.1  # of the higher one
OVERLOAD = 1.5  # load for each processor

# What must be the same, and its name in a sentence.
SAME = (
    ("processors", "numbers of processors"),
    ("governor", "governors of the processors' clocks"),
    ("power_mode", "power modes"),
    ("jetson_clocks", "settings of jetson_clocks"),
    ("gpus", "GPUs"),
)


def differences(a: Dict[str, Any], b: Dict[str, Any]) -> List[str]:
    """Say what differs between two conditions so that their results can't be compared.

    Serves for before and after of one run (then something changed while it ran) and for two runs.

    - Of different machines nothing more is compared: that they differ is why one looks at them.
    - What cannot be read in one of them but in the other counts as different.
    - Clocks are read at one moment. Where a governor moves them, that moment says nothing of
      the moments measured: an idle GPU stands at a tenth of its clock. So they are compared only
      where they are held: by jetson_clocks, by the governor "userspace", and, for processors, where
      there is no governor, as in virtual machines, whose clock then tells one host from another.
      They differ from 10 % on: one that has just been set reads a little off.
    - Load counts for `a` alone. After a run it is the run's own; of two runs, each was held
      against its own end when it was measured. Nor is our own work before a run (building,
      accuracy), which makes a load of one for each processor, taken for another's: only more than
      1.5 is.
    - Throttled counts whenever it is: the numbers are then of a hot or starved machine.
    - Temperatures are not compared: what matters of them is throttling.

    Args:
        a, b: as `look` gives them; before and after, or this run's and another's.

    Returns:
        Sentences without a full stop; none where results can be compared.
    """
    if a.get("machine") != b.get("machine"):
        found = [_differ("machines", a.get("machine"), b.get("machine"))]
    else:
        found = [_differ(name, a.get(key), b.get(key)) for key, name in SAME
                 if a.get(key) != b.get(key)]  # fmt: skip
        found += _clocks(a, b)
    load, processors = _number(a.get("load")), _number(a.get("processors"))
    if load is not None and processors and load > OVERLOAD * processors:
        found.append(
            "other programs were at work: the load was {:.1f} on {:.0f} processors".format(
                load, processors
            )
        )
    lists = [c["throttled"] for c in (a, b) if isinstance(c.get("throttled"), list)]
    reasons = sorted({str(reason) for told in lists for reason in told})
    if reasons:
        found.append("the machine was throttled: {}".format(printable(", ".join(reasons))))
    return found


def _clocks(a: Dict[str, Any], b: Dict[str, Any]) -> List[str]:
    held = [c.get("jetson_clocks") is True for c in (a, b)]
    cpus_held = [h or c.get("governor") in (None, "userspace") for h, c in zip(held, (a, b))]
    found = []
    for key, name, compared in (
        ("cpu_mhz", "processors", all(cpus_held)),
        ("gpu_mhz", "GPU", all(held)),
    ):
        one, other = _number(a.get(key)), _number(b.get(key))
        if not compared or one is None or other is None:
            continue
        if abs(one - other) > CLOCKS_APART * max(one, other):
            found.append(
                "the clocks of the {} differ: {:.0f} and {:.0f} MHz".format(name, one, other)
            )
    return found


def _differ(name: str, one: Any, other: Any) -> str:
    return "the {} differ: {} and {}".format(name, _shown(one), _shown(other))


def _shown(value: Any) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return printable(", ".join(map(str, value))) or "none"
    return printable(value)


def _number(value: Any) -> Optional[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else None
