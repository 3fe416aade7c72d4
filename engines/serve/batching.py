"""Pictures of several requests, computed together: one thread has the engine, and a queue.

A TensorRT engine belongs to the thread that loaded it; so the same thread loads it and runs it.
"""

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Any, Callable, Deque, Iterator, List, Optional

import numpy as np

from engines.engine import Engine, EngineError
from engines.serve.http import HttpError, busy
from engines.text import printable

MOST_FAILURES = 3  # batches one after the other; CUDA does not recover from many of its errors


class Job:
    """The pictures of one request, and what became of them."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = pictures
        self.arrived = time.monotonic()
        self.done = threading.Event()
        self.given_up = False
        self.probabilities: Optional[np.ndarray] = None
        self.error: Optional[HttpError] = None


class Turn:
    """A request that is on its way; others may wait for it until it comes or `leaves`."""

    def __init__(self, batcher: "Batcher") -> None:
        self._batcher = batcher
        self._coming = True

    def infer(self, pictures: np.ndarray, seconds: float) -> np.ndarray:
        """See `Batcher.infer`."""
        job = Job(pictures)
        self._batcher.enter(job, self)
        return self._batcher.answer(job, seconds)

    def leave(self) -> bool:
        """Say that nothing comes any more; False if that was said before. Needs the lock."""
        came, self._coming = self._coming, False
        return came


class Batcher:
    """A queue in front of an engine.

    Args:
        largest: pictures in a batch; those of one request that has more are computed in several.
        delay: seconds that a request waits for others on their way.
        queue: requests that wait; more are refused.
        observe: told of each batch: its pictures, and seconds queued (of each request) and
            computed.
    """

    def __init__(
        self,
        largest: int,
        delay: float,
        queue: int,
        observe: Callable[[int, List[float], float], None],
    ) -> None:
        self._largest, self._delay, self._most = largest, delay, queue
        self._observe = observe
        self._changed = threading.Condition()
        self._waiting: Deque[Job] = deque()
        self._coming = 0
        self._closed = False
        self._since: Optional[float] = None

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return len(self._waiting)

    def computing_for(self) -> float:
        """Seconds that the batch at hand has taken so far; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def turn(self) -> Iterator[Turn]:
        """Let a request that arrives be waited for."""
        turn = Turn(self)
        with self._changed:
            self._coming += 1
        try:
            yield turn
        finally:
            with self._changed:
                self._left(turn)

    def enter(self, job: Job, turn: Turn) -> None:
        """Take a request into the queue.

        Raises:
            HttpError: 503, the queue is full or closed.
        """
        with self._changed:
            self._left(turn)
            if self._closed:
                raise busy("the engine has stopped")
            if len(self._waiting) >= self._most:
                raise busy("{} requests wait already".format(self._most))
            self._waiting.append(job)
            self._changed.notify_all()

    def answer(self, job: Job, seconds: float) -> np.ndarray:
        """Wait for the probabilities, (N, classes).

        Raises:
            HttpError: 504, they are not there in time; 500, the engine failed.
        """
        if not job.done.wait(seconds):
            job.given_up = True
            raise HttpError(504, "there was no answer within {:g} s".format(seconds))
        if job.error is not None:
            raise job.error
        probabilities: Any = job.probabilities
        return probabilities

    def run(self, engine: Engine) -> None:
        """Compute until `close` is called; in the thread that loaded the engine.

        Raises:
            EngineError: it failed several times in a row.
        """
        failures = 0
        try:
            while True:
                jobs = self._next()
                if not jobs:
                    return
                failures = 0 if self._compute(engine, jobs) else failures + 1
                if failures == MOST_FAILURES:
                    raise EngineError("{} batches failed one after the other".format(failures))
        finally:
            self.close()
            for job in self._waiting:
                job.error = busy("the engine has stopped")
                job.done.set()

    def close(self) -> None:
        """Take no more requests; those in the queue are computed still."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _left(self, turn: Turn) -> None:
        if turn.leave():
            self._coming -= 1
            self._changed.notify_all()

    def _next(self) -> List[Job]:
        """Wait for a batch; empty if there won't be any more."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                if not self._waiting:
                    return []
                end = self._waiting[0].arrived + self._delay
                self._changed.wait_for(self._is_full, max(0.0, end - time.monotonic()))
                jobs = self._take()
                if jobs:
                    return jobs

    def _is_full(self) -> bool:
        enough = sum(len(job.pictures) for job in self._waiting) >= self._largest
        return enough or not self._coming or self._closed

    def _take(self) -> List[Job]:
        jobs, count = [], 0  # type: List[Job], int
        while self._waiting and (
            not jobs or count + len(self._waiting[0].pictures) <= self._largest
        ):
            job = self._waiting.popleft()
            if not job.given_up:
                jobs.append(job)
                count += len(job.pictures)
        return jobs

    def _compute(self, engine: Engine, jobs: List[Job]) -> bool:
        """Answer some requests; whether the engine could."""
        start, count = time.monotonic(), sum(len(job.pictures) for job in jobs)
        error: Optional[HttpError] = None
        try:
            pictures = (
                jobs[0].pictures if len(jobs) == 1 else np.concatenate([j.pictures for j in jobs])
            )
            parts = []
            for first in range(0, count, self._largest):
                self._since = time.monotonic()
                parts.append(engine.infer(pictures[first : first + self._largest]))
            probabilities = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if len(probabilities) != count or not np.isfinite(probabilities).all():
                raise EngineError("the engine's answer is no probabilities")
        except Exception as failure:  # whatever it is, the clients get an answer
            error = HttpError(500, "the engine failed: " + printable(failure)[:300])
        self._since = None
        self._observe(count, [start - job.arrived for job in jobs], time.monotonic() - start)
        first = 0
        for job in jobs:
            if error is None:
                job.probabilities = probabilities[first : first + len(job.pictures)]
                first += len(job.pictures)
            job.error = error
            job.done.set()
        return error is None
