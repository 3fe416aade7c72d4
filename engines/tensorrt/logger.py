"""What TensorRT says, kept instead of printed."""

import re
import time
from collections import Counter, deque
from typing import Any, Deque, Dict, NamedTuple

KEPT = 2000  # messages; a long-lived process must not collect them for ever
TOGETHER = 1.0  # seconds between two errors that tell of the same failure

FULL = re.compile("out ?of ?memory", re.IGNORECASE)  # as CUDA says it, and TensorRT

_loggers: Dict[str, "Log"] = {}


class Message(NamedTuple):
    """What TensorRT said, and when, by a clock that only goes on."""

    level: str
    text: str
    moment: float


class Log:
    """Errors and warnings of one TensorRT module, oldest first.

    A process can have only one logger: TensorRT keeps the first that it is given.
    """

    def __init__(self, trt: Any) -> None:
        self._messages: Deque[Message] = deque(maxlen=KEPT)
        self.logger = _make_logger(trt, self)

    def clear(self) -> None:
        """Forget what was said."""
        self._messages.clear()

    def keep(self, level: str, message: str) -> None:
        """Take what TensorRT says.

        Args:
            level: "error", "warning" or "".
        """
        if level:
            self._messages.append(Message(level, message, time.monotonic()))

    def error(self) -> str:
        """The errors since `clear` that ended the work.

        The very last one often says only that it failed, and the one before it why.
        """
        errors = [message for message in self._messages if message.level == "error"][-2:]
        told = [e.text for e in errors if errors[-1].moment - e.moment < TOGETHER]
        text = "; ".join(dict.fromkeys(told)) or "it gives no reason"
        if FULL.search(text):
            text += ". The GPU's memory is full: end other programs on it, or build with a smaller "
            text += "--batch or --workspace"
        return text

    def warnings(self) -> Dict[str, int]:
        """Each warning since `clear`, with how often it came."""
        return dict(Counter(m.text for m in self._messages if m.level == "warning"))


def log_of(trt: Any) -> Log:
    """The log of a TensorRT module in this process."""
    if trt.__name__ not in _loggers:
        _loggers[trt.__name__] = Log(trt)
    return _loggers[trt.__name__]


def _make_logger(trt: Any, kept: Log) -> Any:
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: "error",
        severity.ERROR: "error",
        severity.WARNING: "warning",
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # the binding demands this very call

        def log(self, level: Any, message: str) -> None:
            kept.keep(levels.get(level, ""), message)

    return Logger()
