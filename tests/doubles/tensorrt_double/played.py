"""Which TensorRT is played, and what that one can do."""

import os
from typing import NamedTuple


class Played(NamedTuple):
    """A version of TensorRT.

    opset: the newest that its parser is made for; newer ones it reads all the same, and may
        stumble over. Sources: docs/operators.md of each release branch of onnx-tensorrt.
    serialization: the number in its plans.
    """

    version: str
    opset: int
    serialization: int

    @property
    def numbers(self) -> tuple[int, ...]:
        """Such as (8, 2, 1)."""
        return tuple(int(part) for part in self.version.split("."))

    @property
    def number(self) -> int:
        """NV_TENSORRT_VERSION, such as 8201 or 101303."""
        major, minor, patch = self.numbers[:3]
        return (major * 1000 if major < 10 else major * 10000) + minor * 100 + patch


VERSIONS = {
    played.version: played
    for played in (
        Played("8.2.1", 13, 205),
        Played("8.4.1", 17, 212),
        Played("8.5.2", 17, 213),
        Played("8.6.1", 17, 228),
        Played("10.3.0", 20, 239),
        Played("10.13.3.9", 24, 240),
        Played("11.4.0.106", 25, 250),
    )
}


def played() -> Played:
    """What EDGETRT_DOUBLE asks for."""
    return VERSIONS[os.environ["EDGETRT_DOUBLE"]]
