"""Power of a Jetson by its sensors, INA3221 (three rails each) and INA238, from sysfs."""

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from benchmarks.conditions import kernel
from benchmarks.power.rails import choose
from benchmarks.power.source import PowerSource, Rail

# Sensors' folders by their drivers, as `engines.boards` has them, but at every address: the
# carrier board's are found too, and said not to count.
IIO = "sys/bus/i2c/drivers/ina3221x/*/iio:device*"  # JetPack 4
HWMON = "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"  # JetPack 5 and later
INA238 = "sys/bus/i2c/drivers/ina238/*/hwmon/hwmon*"  # on AGX Thor's carrier board

UNUSED = ("", "NC")  # names of channels that nothing is wired to


class Sensor(NamedTuple):
    """Of one rail: watts are the product of what its files say, times `scale`."""

    chip: str
    rail: str
    files: Tuple[Path, ...]
    scale: float

    def watts(self) -> Optional[float]:
        """Power now; None where it can't be read. A little below 0 in a rail without load."""
        product = self.scale
        for file in self.files:
            value = kernel.number(kernel.read(file))
            if value is None:
                return None
            product *= value
        return product


class Ina3221(PowerSource):
    """Reads those rails that make the whole."""

    def __init__(self, sensors: Sequence[Sensor], rails: Sequence[Rail]) -> None:
        """Name it after the chips that are read.

        Args:
            sensors: those of the rails that are included.
            rails: all of them.
        """
        chips = list(dict.fromkeys(sensor.chip for sensor in sensors))
        super().__init__(" + ".join(chips), rails)
        self._sensors = list(sensors)

    def read(self) -> Dict[str, float]:
        """Read "power_w"."""
        watts = [sensor.watts() for sensor in self._sensors]
        known = [value for value in watts if value is not None]
        return {"power_w": sum(known)} if len(known) == len(watts) else {}


def find(root: Path) -> Tuple[Optional[PowerSource], Optional[str]]:
    """The sensors of this board; without, why there are none, or None where it has no such chip."""
    sensors = _sensors(root)
    if not sensors:
        return None, None
    readable = [sensor for sensor in sensors if sensor.watts() is not None]
    rails = choose([sensor.rail for sensor in readable])
    included = [sensor for sensor, rail in zip(readable, rails) if rail.included]
    rails += [Rail(s.rail, False, "can't be read") for s in sensors if s not in readable]
    if included:
        return Ina3221(included, rails), None
    told = ", ".join("{} ({})".format(rail.name, rail.why) for rail in rails)
    return None, "the board's rails do not make a whole: " + told


def _sensors(root: Path) -> List[Sensor]:
    found = []
    for folder in kernel.find(root, IIO):
        for channel in "012":
            power = folder / "in_power{}_input".format(channel)  # mW
            name = _name(folder / "rail_name_{}".format(channel))
            found.append(Sensor("INA3221 (iio)", name, (power,), 1e-3))
    for folder in kernel.find(root, HWMON):
        for channel in "123":  # in4 to in7 are the shunts' voltages
            volts = folder / "in{}_input".format(channel)  # mV
            current = folder / "curr{}_input".format(channel)  # mA
            name = _name(folder / "in{}_label".format(channel))
            found.append(Sensor("INA3221 (hwmon)", name, (volts, current), 1e-6))
    for folder in kernel.find(root, INA238):
        found.append(Sensor("INA238 (hwmon)", "VIN", (folder / "power1_input",), 1e-6))  # uW
    return [sensor for sensor in found if sensor.rail not in UNUSED]


def _name(file: Path) -> str:
    return "".join(c for c in kernel.read(file) if c.isprintable())
