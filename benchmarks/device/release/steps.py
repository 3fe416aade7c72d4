"""The steps of a deployment, told as they go."""

import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Optional

SILENCE = 0.5  # seconds between two words about the same step's progress


class Steps:
    """Tells which step is being done, how far it is, and how long each took.

    Attributes:
        now: the step that is being done; after a failure the one that failed.
        rolled_back: whether a switch was made and undone.
        seconds: of each step that was done.
    """

    def __init__(self, tell: Callable[[Dict[str, Any]], None]) -> None:
        self.now: Optional[str] = None
        self.rolled_back = False
        self.seconds: Dict[str, float] = {}
        self._tell = tell
        self._last = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """Do a step.

        Yields:
            A function to call with what came of it, for people.
        """
        outcome = [""]
        self.now, self._last = name, 0.0
        self._tell({"event": "step", "step": name, "state": "start", "text": ""})
        start = time.monotonic()
        yield lambda text: outcome.__setitem__(0, text)
        self.seconds[name] = round(time.monotonic() - start, 3)
        self._tell({"event": "step", "step": name, "state": "done", "text": outcome[0]})
        self.now = None

    def progress(self, done: int, total: int) -> None:
        """Say how far the step is, though not too often."""
        if done == total or time.monotonic() - self._last >= SILENCE:
            self._last = time.monotonic()
            self._tell({"event": "progress", "step": self.now, "done": done, "total": total})
