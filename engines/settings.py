"""How TensorRT shall build, where there is a choice; the processor's backends have none."""

from typing import NamedTuple, Optional, Tuple

EXPLICIT = "explicit"  # INT8 as the Q/DQ pairs in the graph say
CALIBRATORS = ("entropy", "minmax")  # INT8 as TensorRT itself finds it; up to TensorRT 10


class Settings(NamedTuple):
    """What a person can choose about a TensorRT engine.

    workspace: bytes that a layer may use for scratch; None for what suits the board.
    batch: the smallest batch, the one to be fastest at, and the largest; equal for a static one.
    int8: "explicit", or the name of a calibrator, for which the graph is the FP32 one.
    calibration_cache: file of the ranges that a calibrator found or `edgetrt quantize` wrote;
        read if it fits, else made from the pictures and written there.
    calibration_pictures: picture files for the calibrator, training pictures only.
    force: build also what the GPU is not made for.
    """

    workspace: Optional[int] = None
    batch: Tuple[int, int, int] = (1, 1, 32)
    int8: str = EXPLICIT
    calibration_cache: Optional[str] = None
    calibration_pictures: Tuple[str, ...] = ()
    force: bool = False


DEFAULT = Settings()


def check(settings: Settings) -> Optional[str]:
    """What is wrong with some settings; None if nothing is."""
    smallest, best, largest = settings.batch
    if not 1 <= smallest <= best <= largest:
        return "a batch range is three growing numbers from 1 on; received {},{},{}".format(
            smallest, best, largest
        )
    if settings.workspace is not None and settings.workspace < 1 << 20:
        return "a workspace is at least 1 MiB"
    if settings.int8 not in (EXPLICIT, *CALIBRATORS):
        return "int8 is {} or {}; received {}".format(
            ", ".join(CALIBRATORS), EXPLICIT, settings.int8
        )
    return None
