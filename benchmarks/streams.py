"""Standard streams as they may be found: closed, or with an encoding that lacks letters."""

import os
import sys


def open_closed_streams() -> None:
    """Open a standard stream that was closed (`>&-`) to nowhere.

    Else the next file that is opened would take its number, and get whatever is printed.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def show_anything() -> None:
    """Let output escape what its encoding lacks: in the C locale, Python 3.6 knows ASCII only."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream.errors in ("strict", "surrogateescape"):
            escaping = open(  # noqa: SIM115
                stream.fileno(), "w", 1, stream.encoding, "backslashreplace", closefd=False
            )
            setattr(sys, name, escaping)
