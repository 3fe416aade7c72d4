"""What sensors say while engines are measured, read in a thread at a known rate."""

import math
import threading
import time
from contextlib import suppress
from typing import Any, Dict, List, Optional, Sequence

MOST = 36000  # samples that are kept: an hour at 10 a second
CLOSING = 5.0  # seconds that a reading under way may take when the monitor ends


class Monitor:
    """Reads probes in a thread, from the beginning of a `with` block to its end.

    A probe is an object with read() -> Dict[str, float], such as {"power_w": 7.3}; one that holds
    something open also has close(), which is called at the end of the block. Whatever a probe
    raises costs no more than its values of that sample.

    Memory is bounded: when there are more than `most` samples, every second one is dropped, and
    from then on half as many are taken a second.
    """

    def __init__(self, probes: Sequence[Any], hz: float, most: int = MOST) -> None:
        """Prepare; nothing is read before the block begins.

        Args:
            probes: read one after the other; of two with the same key, the later one's value stays.
            hz: samples a second, above 0. Where reading takes longer than that allows, samples
                are left out, not delayed.
            most: samples that are kept, at least 2.
        """
        self._probes, self._interval, self._most = list(probes), 1.0 / hz, most
        self._seconds: List[float] = []
        self._values: List[Dict[str, float]] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        # A daemon: a sensor that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        self._thread.join(CLOSING)
        for probe in self._probes:
            if hasattr(probe, "close"):
                with suppress(Exception):
                    probe.close()

    def series(self) -> Dict[str, List[Optional[float]]]:
        """All samples so far.

        Returns:
            "seconds": time.perf_counter at the middle of each reading, rising; and under each
            key of a probe, equally many values, None where it gave none.
        """
        with self._lock:
            seconds, values = list(self._seconds), list(self._values)
        keys = list(dict.fromkeys(key for sample in values for key in sample))
        found: Dict[str, List[Optional[float]]] = {"seconds": list(seconds)}
        found.update((key, [sample.get(key) for sample in values]) for key in keys)
        return found

    def _run(self) -> None:
        due = time.perf_counter()
        while not self._end.wait(max(0.0, due - time.perf_counter())):
            self._sample()
            late = time.perf_counter() - due
            due += self._interval * max(1, math.ceil(late / self._interval))

    def _sample(self) -> None:
        values: Dict[str, float] = {}
        before = time.perf_counter()
        for probe in self._probes:
            with suppress(Exception):
                values.update(_finite(probe.read()))
        after = time.perf_counter()
        with self._lock:
            self._seconds.append((before + after) / 2)
            self._values.append(values)
            if len(self._seconds) > self._most:
                del self._seconds[1::2], self._values[1::2]
                self._interval *= 2


def _finite(values: Dict[str, float]) -> Dict[str, float]:
    numbers = {key: float(value) for key, value in values.items()}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}
