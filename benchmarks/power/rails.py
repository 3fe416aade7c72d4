"""Which of a Jetson's rails make the power of the whole, none counted twice."""

from typing import List, Sequence

from benchmarks.power.source import Rail
from engines.boards import BOARDS

# What everything else is behind. Sources: jetson_stats#51, #344, #900; energymon,
# JetsonPowerRails.md.
TOTALS = {
    "VDD_IN": "the whole module",
    "POM_5V_IN": "the whole module",
    "VIN": "the whole kit with its carrier board",
}

# On the carrier board of the TX1 and TX2 kits, beside VDD_IN and not behind it (energymon).
CARRIER = ("VDD_MUX", "VDD_5V0_IO_SYS", "VDD_3V3_SYS", "VDD_3V3_IO_SLP", "VDD_1V8_IO",
           "VDD_3V3_SYS_M2")  # fmt: skip

# Rail -> the one that feeds it: AGX Orin's memory hangs on its 5 V.
FED_FROM = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}

# Of boards without a total, the rails that add up to it: AGX Xavier, AGX Orin.
PARTS = tuple(
    frozenset(board.rails.names) - set(FED_FROM)
    for board in BOARDS
    if board.rails is not None and not set(board.rails.names) & set(TOTALS)
)


def choose(names: Sequence[str]) -> List[Rail]:
    """Say of each rail whether it counts.

    The board need not be known, which in a container it seldom is: the names tell.

    Args:
        names: of those that can be read.

    Returns:
        One Rail for each name. None is included where there is neither a total nor all
        parts of one: a sum of some is the power of nothing.
    """
    total = next((name for name in TOTALS if name in names), None)
    parts = next((parts for parts in PARTS if parts <= set(names)), frozenset())
    rails: List[Rail] = []
    for index, name in enumerate(names):
        if name in names[:index]:
            rails.append(Rail(name, False, "a rail of this name is there already"))
        elif name == total:
            rails.append(Rail(name, True, TOTALS[name]))
        elif name in CARRIER:
            rails.append(Rail(name, False, "on the carrier board, not on the module"))
        elif total is not None:
            rails.append(Rail(name, False, "part of {}".format(total)))
        elif name in parts:
            rails.append(Rail(name, True, "a part; no rail has the whole"))
        elif name in FED_FROM:
            rails.append(Rail(name, False, "fed from {}".format(FED_FROM[name])))
        else:
            rails.append(Rail(name, False, "not known what it is part of"))
    return rails
