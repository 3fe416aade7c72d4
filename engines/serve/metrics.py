"""What a server counts, as Prometheus reads it (text format 0.0.4) and as Triton's statistics."""

import threading
import time
from typing import Any, Dict, List, Sequence

KIND = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128)


class Histogram:
    """How often a value was at most each of some bounds."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * len(bounds)
        self.total, self.sum = 0, 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.total += 1
        self.sum += value
        for place, bound in enumerate(self.bounds):
            self.counts[place] += value <= bound


class Metrics:
    """A server's figures since its worker began.

    Args:
        about: labels of edgetrt_release_info.
        restarts: how often a worker died and was started again.
        gauges: name -> (help, what gives its value now).
    """

    def __init__(
        self,
        about: Dict[str, str],
        restarts: int,
        gauges: Dict[str, Any],
    ) -> None:
        self._about, self._restarts, self._gauges = about, restarts, gauges
        self._lock = threading.Lock()
        self._answers: Dict[int, int] = {}
        self._pictures = 0
        self._failures, self._failed_seconds = 0, 0.0
        self._last = 0.0
        self._requests = Histogram(SECONDS)
        self._queued = Histogram(SECONDS)
        self._computed = Histogram(SECONDS)
        self._batches = Histogram(PICTURES)

    def answered(self, status: int) -> None:
        """Count an answer of any kind."""
        with self._lock:
            self._answers[status] = self._answers.get(status, 0) + 1

    def inferred(self, good: bool, pictures: int, seconds: float) -> None:
        """Count a request for inference, from its arrival to its answer."""
        with self._lock:
            if good:
                self._requests.add(seconds)
                self._pictures += pictures
                self._last = time.time()
            else:
                self._failures += 1
                self._failed_seconds += seconds

    def computed(self, pictures: int, queued: List[float], seconds: float) -> None:
        """Count a batch."""
        with self._lock:
            for wait in queued:
                self._queued.add(wait)
            self._batches.add(pictures)
            self._computed.add(seconds)

    def text(self) -> str:
        """All of it for Prometheus."""
        with self._lock:
            lines = _info("edgetrt_release_info", "What is served", self._about)
            lines += _one("edgetrt_worker_restarts_total", "counter",
                          "Workers that died and were started again", self._restarts)  # fmt: skip
            lines += _heading("edgetrt_responses_total", "counter", "Answers by HTTP status")
            lines += [
                'edgetrt_responses_total{{code="{}"}} {}'.format(code, count)
                for code, count in sorted(self._answers.items())
            ]
            lines += _one("edgetrt_pictures_total", "counter", "Pictures classified",
                          self._pictures)  # fmt: skip
            lines += _one("edgetrt_failed_requests_total", "counter",
                          "Requests for inference without an answer", self._failures)  # fmt: skip
            for name, text, histogram in (
                ("request_seconds", "From a request's head to its answer", self._requests),
                ("queue_seconds", "Requests waiting for the engine", self._queued),
                ("batch_seconds", "Batches in the engine", self._computed),
                ("batch_pictures", "Pictures in a batch", self._batches),
            ):
                lines += _histogram("edgetrt_" + name, text, histogram)
            for name, (text, value) in self._gauges.items():
                lines += _one("edgetrt_" + name, "gauge", text, value())
        return "\n".join(lines) + "\n"

    def statistics(self, name: str, version: str) -> Dict[str, Any]:
        """Of Triton's statistics extension what is known here; times in nanoseconds."""
        with self._lock:
            requests, queued, computed = self._requests, self._queued, self._computed
            return {
                "model_stats": [
                    {
                        "name": name,
                        "version": version,
                        "last_inference": int(self._last * 1000),
                        "inference_count": self._pictures,
                        "execution_count": computed.total,
                        "inference_stats": {
                            "success": _spent(requests.total, requests.sum),
                            "fail": _spent(self._failures, self._failed_seconds),
                            "queue": _spent(queued.total, queued.sum),
                            "compute_infer": _spent(computed.total, computed.sum),
                        },
                    }
                ]
            }


def _spent(count: int, seconds: float) -> Dict[str, int]:
    return {"count": count, "ns": int(seconds * 1e9)}


def _heading(name: str, kind: str, text: str) -> List[str]:
    return ["# HELP {} {}".format(name, text), "# TYPE {} {}".format(name, kind)]


def _one(name: str, kind: str, text: str, value: float) -> List[str]:
    return [*_heading(name, kind, text), "{} {}".format(name, value)]


def _info(name: str, text: str, labels: Dict[str, str]) -> List[str]:
    pairs = ",".join('{}="{}"'.format(key, _escaped(value)) for key, value in labels.items())
    return [*_heading(name, "gauge", text), "{}{{{}}} 1".format(name, pairs)]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _histogram(name: str, text: str, histogram: Histogram) -> List[str]:
    lines = _heading(name, "histogram", text)
    for bound, count in zip(histogram.bounds, histogram.counts):
        lines.append('{}_bucket{{le="{:g}"}} {}'.format(name, bound, count))
    lines.append('{}_bucket{{le="+Inf"}} {}'.format(name, histogram.total))
    lines.append("{}_sum {!r}".format(name, histogram.sum))
    lines.append("{}_count {}".format(name, histogram.total))
    return lines
