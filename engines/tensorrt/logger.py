"""What TensorRT says, kept instead of printed."""

from collections import Counter, deque
from typing import Any, Deque, Dict, Tuple

KEPT = 2000  # messages; a long-lived process must not collect them for ever

_loggers: Dict[str, "Log"] = {}


class Log:
    """Errors and warnings of one TensorRT module, oldest first.

    A process can have only one logger: TensorRT keeps the first that it is given.
    """

    def __init__(self, trt: Any) -> None:
        self._messages: Deque[Tuple[str, str]] = deque(maxlen=KEPT)
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
            self._messages.append((level, message))

    def error(self) -> str:
        """The errors since `clear` that ended the work.

        The very last one often says only that it failed, and the one before it why.
        """
        errors = [message for level, message in self._messages if level == "error"]
        return "; ".join(dict.fromkeys(errors[-2:])) if errors else "it gives no reason"

    def warnings(self) -> Dict[str, int]:
        """Each warning since `clear`, with how often it came."""
        return dict(Counter(message for level, message in self._messages if level == "warning"))


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
