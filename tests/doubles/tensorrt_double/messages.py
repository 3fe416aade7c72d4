"""Loggers, of which TensorRT uses one at a time, and how it words what it says."""

import sys
import weakref
from enum import Enum
from typing import Any

from .played import played


class ILogger:
    """What people derive their loggers from."""

    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: "ILogger.Severity", msg: str) -> None:
        """Is given every message."""
        raise NotImplementedError


class Logger(ILogger):
    """Prints what is severe enough."""

    INTERNAL_ERROR = ILogger.Severity.INTERNAL_ERROR
    ERROR = ILogger.Severity.ERROR
    WARNING = ILogger.Severity.WARNING
    INFO = ILogger.Severity.INFO
    VERBOSE = ILogger.Severity.VERBOSE

    def __init__(self, min_severity: ILogger.Severity = ILogger.Severity.WARNING) -> None:
        self.min_severity = min_severity

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        """Print."""
        if severity.value <= self.min_severity.value:
            print(f"[TRT] [{severity.name[0]}] {msg}", file=sys.stderr)


_logger: ILogger | None = None
_users: "weakref.WeakSet[Any]" = weakref.WeakSet()


def register(user: Any, logger: ILogger) -> None:
    """Take a builder's or runtime's logger, unless there is one in use: then that one stays."""
    global _logger
    if not len(_users):
        _logger = logger
    elif logger is not _logger:
        warning(
            f"The logger passed into create{type(user).__name__} differs from one already "
            "registered for an existing builder, runtime, or refitter. So the current new logger "
            "is ignored, and TensorRT will use the existing one which is returned by "
            "nvinfer1::getLogger() instead."
        )
    _users.add(user)


def _say(severity: ILogger.Severity, message: str) -> None:
    if _logger is not None:
        _logger.log(severity, message)


def error(message: str) -> None:
    """Say that something failed."""
    _say(ILogger.Severity.ERROR, message)


def warning(message: str) -> None:
    """Say that something is worth a look."""
    _say(ILogger.Severity.WARNING, message)


def info(message: str) -> None:
    """Say what goes on."""
    _say(ILogger.Severity.INFO, message)


def api_error(function: str, number: int, kind: str, text: str) -> None:
    """An error as this version of TensorRT words it.

    Args:
        function: such as "IBuilder::buildSerializedNetwork".
        number, kind: of the error code, such as 4, "API Usage Error".
    """
    if played().numbers[0] < 10:
        name = function.partition("::")[2]
        error(f"{number}: [{name}] Error Code {number}: {kind} ({text})")
    else:
        error(f"{function}: Error Code {number}: {kind} ({text})")
