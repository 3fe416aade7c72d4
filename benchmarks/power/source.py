"""What every source of power readings is."""

from typing import Dict, List, NamedTuple, Sequence


class Rail(NamedTuple):
    """A supply whose power is known.

    included: whether it is part of "power_w".
    why: it is, or isn't.
    """

    name: str
    included: bool
    why: str


class PowerSource:
    """Reads power, as a probe of a `benchmarks.monitor.Monitor`.

    Attributes:
        name: of sensor and way, such as "INA3221 (hwmon)".
        rails: all that it knows, also those that are not included.
        sees: whose work shows in it, "cpu", "gpu" or both.
    """

    sees = frozenset(["cpu", "gpu"])

    def __init__(self, name: str, rails: Sequence[Rail]) -> None:
        self.name = name
        self.rails: List[Rail] = list(rails)

    def read(self) -> Dict[str, float]:
        """The included rails together; empty where one of them can't be read now.

        Returns:
            "power_w": watts, now or since the last reading.
            "energy_j": joules since some moment, of sensors that count them. The difference of
            two is exact, whatever happened between them.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Stop what was started for reading."""

    def describe(self) -> str:
        """One line on what is measured and what is not."""
        line = "{}: {}".format(
            self.name,
            ", ".join("{} ({})".format(r.name, r.why) for r in self.rails if r.included),
        )
        others = ["{} ({})".format(r.name, r.why) for r in self.rails if not r.included]
        return line + "; not included: " + ", ".join(others) if others else line


class Sum(PowerSource):
    """Several sources that measure different things."""

    def __init__(self, sources: Sequence[PowerSource]) -> None:
        rails = [rail for source in sources for rail in source.rails]
        super().__init__(" + ".join(source.name for source in sources), rails)
        self._sources = list(sources)
        self.sees = frozenset().union(*(source.sees for source in sources))

    def read(self) -> Dict[str, float]:
        """Sums of what all of them give: without one, a sum would be too small."""
        readings = [source.read() for source in self._sources]
        shared = set.intersection(*(set(reading) for reading in readings))
        return {key: sum(reading[key] for reading in readings) for key in shared}

    def close(self) -> None:
        """Close each."""
        for source in self._sources:
            source.close()
