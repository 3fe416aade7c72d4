"""What can be measured of an engine's speed, and how thoroughly.

The scenarios are those of MLPerf Inference (V. J. Reddi et al., ISCA 2020, arXiv:1911.02549;
MultiStream as its rules have it since version 2.0): SingleStream sends one picture when the one
before is answered, and its result is the latency's 90th percentile; MultiStream sends 8 pictures
at a time, and its result is the 99th; Offline has all pictures at once, and its result is pictures
a second. FROM_FILE is our own: a picture file in, probabilities out.

The scenarios alone are MLPerf's: its rules ask for 10 minutes of each, and for their own networks.
"""

from typing import NamedTuple, Tuple

SINGLE_STREAM, MULTI_STREAM = "single-stream", "multi-stream"
OFFLINE, FROM_FILE = "offline", "from-file"
SCENARIOS = (SINGLE_STREAM, MULTI_STREAM, OFFLINE, FROM_FILE)
DEFAULT = (SINGLE_STREAM, OFFLINE, FROM_FILE)
RESULT = {SINGLE_STREAM: "p90", MULTI_STREAM: "p99", FROM_FILE: "p90"}


class Effort(NamedTuple):
    """How thoroughly to measure.

    name: "valid", or "quick" for a result that is marked as proving nothing.
    queries, seconds: what each engine must have at least; in Offline a query is a picture.
    turns: rounds to spread them over.
    window: seconds of a window of warm-up, which has at least two queries.
    warm_up: seconds of warm-up at most, after the first query.
    loadgen: whether MLCommons' LoadGen times the fastest engine as well, where it is installed.
    """

    name: str
    queries: int
    seconds: float
    turns: int
    window: float
    warm_up: float
    loadgen: bool = True


THOROUGH = Effort("valid", 1024, 10.0, 20, window=0.3, warm_up=10.0)
QUICK = Effort("quick", 60, 0.0, 10, window=0.02, warm_up=0.5)


class Work(NamedTuple):
    """What is to be measured, and how thoroughly."""

    scenarios: Tuple[str, ...] = DEFAULT
    effort: Effort = THOROUGH
