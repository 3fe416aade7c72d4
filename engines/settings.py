"""How TensorRT shall build, where there is a choice; the processor's backends have none."""

from typing import NamedTuple, Optional, Tuple

EXPLICIT = "explicit"  # INT8 as the Q/DQ pairs in the graph say
CALIBRATORS = ("entropy", "minmax")  # INT8 as TensorRT itself finds it; up to TensorRT 10
LARGEST_BATCH = 1024
LARGEST_WORKSPACE = 1 << 20  # MiB


class Settings(NamedTuple):
    """What a person can choose about a TensorRT engine.

    workspace: bytes that a layer may use for scratch; None for what suits the board.
    batch: the smallest batch, the one to be fastest at, and the largest; equal for a static one.
    int8: "explicit", or the name of a calibrator, for which the graph is the FP32 one.
    calibration_pictures: picture files for the calibrator, training pictures only.
    calibration_cache: where there are none: the file that `edgetrt quantize` wrote in their place.
    force: build also what the GPU is not made for.
    """

    workspace: Optional[int] = None
    batch: Tuple[int, int, int] = (1, 1, 32)
    int8: str = EXPLICIT
    calibration_cache: Optional[str] = None
    calibration_pictures: Tuple[str, ...] = ()
    force: bool = False


DEFAULT = Settings()


def uncalibrated(settings: Settings) -> Settings:
    """The same for an engine that TensorRT's calibrators have no part in."""
    return settings._replace(int8=EXPLICIT, calibration_cache=None, calibration_pictures=())


def check(settings: Settings) -> Optional[str]:
    """What is wrong with some settings; None if nothing is."""
    smallest, best, largest = settings.batch
    if not 1 <= smallest <= best <= largest <= LARGEST_BATCH:
        return "--batch takes three growing numbers from 1 to {}; received {},{},{}".format(
            LARGEST_BATCH, smallest, best, largest
        )
    if settings.workspace is not None and not 1 <= settings.workspace >> 20 <= LARGEST_WORKSPACE:
        return "--workspace takes 1 to {} MiB; received {}".format(
            LARGEST_WORKSPACE, settings.workspace >> 20
        )
    if settings.int8 not in (EXPLICIT, *CALIBRATORS):
        return "--int8 takes {} or {}; received {}".format(
            ", ".join(CALIBRATORS), EXPLICIT, settings.int8
        )
    return None
