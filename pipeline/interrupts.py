"""Ctrl-C and its like: the process ends at once, with one line and without leftovers.

Nothing has to be unwound for it: every file of a run is whole or not there, at whatever moment
a process dies.
"""

import os
import signal
import threading
from contextlib import suppress

from engines.files import remove_temporaries

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it (ECMA-48, DEC private mode 25)


def end_on_signals() -> None:
    """From now on end with exit code 128 + its number on Ctrl-C, SIGTERM or a lost terminal.

    Call it once, before any other thread starts. A thread of its own waits for the signals: as
    an exception in the main thread, an interruption would come late out of long native code,
    and be lost or reported as something else wherever libraries catch or can't raise it.
    """
    heeded = {s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}  # as by nohup
    signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
    # stderr's own number may be silenced when the signal comes.
    threading.Thread(target=_wait, args=(heeded, os.dup(2)), daemon=True).start()


def _wait(heeded: set[signal.Signals], stderr: int) -> None:
    number = signal.sigwait(heeded)
    with suppress(OSError):
        # In one piece: another thread may draw a progress bar meanwhile.
        before = SHOW_CURSOR + b"\n" if os.isatty(stderr) else b""
        os.write(stderr, before + b"edgetrt: interrupted; the same command goes on where it can\n")
    remove_temporaries()
    os._exit(128 + number)
