"""Small files in which the kernel says what it knows; none of them is sure to be there."""

import os
import re
from pathlib import Path
from typing import Dict, List, Optional, Union

LONGEST = 1 << 16  # bytes that are read of one
LARGEST = 1e15  # number that is believed; sums of such have no overflow


def read(path: Union[str, Path]) -> str:
    """What a file says, on one line or several; "" if it can't be read.

    Sensors that are switched off have a file that fails when it is read.
    """
    try:
        file = os.open(str(path), os.O_RDONLY)
        try:
            text = os.read(file, LONGEST)
        finally:
            os.close(file)
    except OSError:
        return ""
    return text.decode("ascii", "replace").strip()


def number(text: str) -> Optional[float]:
    """The number that `text` is; None if it is none, or no sensor can mean it."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def find(root: Path, pattern: str) -> List[Path]:
    """The files of a pattern under a folder, those with numbers in their order."""
    try:
        found = list(root.glob(pattern))
    except OSError:
        return []
    return sorted(found, key=lambda path: [int(n) for n in re.findall("[0-9]+", str(path))])


def thermal(root: Path, kind: str, value: str) -> Dict[str, Path]:
    """The files of a value in /sys/class/thermal, by what the "type" beside each says.

    Args:
        root: where the system's files are.
        kind: "thermal_zone" or "cooling_device".
        value: name of the files.
    """
    found: Dict[str, Path] = {}
    for folder in find(root, "sys/class/thermal/{}[0-9]*".format(kind)):
        name = "".join(c for c in read(folder / "type") if c.isprintable())
        if name in found:  # two sensors of one kind
            name = "{} {}".format(name, folder.name)
        if name:
            found[name] = folder / value
    return found
