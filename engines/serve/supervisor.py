"""The process that keeps a device's current release served.

It holds the listening socket and starts a worker for the release, run by the release's own
program. When the `current` link changes, another worker starts; only once that has proven its
engine, the one before stops, after it has answered what it has accepted. Both serve the same
socket, so there is no moment in which nobody does. This process itself stays the program that it
was started as, and imports nothing later: a newer release's program runs that release's worker.
"""

import fcntl
import json
import os
import re
import select
import signal
import socket
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

from engines.engine import EngineError
from engines.files import remove, write_json
from engines.serve.connections import BACKLOG, LAST_CALL
from engines.serve.options import ServeOptions, check, is_loopback
from engines.serve.worker_process import RELEASES, Link, Worker

CURRENT = "current"
HISTORY, STATE, LOCK = "history.json", "serve.json", "serve.lock"

TICK = 0.2  # seconds between two looks at the link
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 300.0  # seconds before a release that failed is tried again
STEADY = 60.0  # seconds after which a worker's death says nothing about its release
MOST_DEATHS = 3  # sooner than that; then the release before it is served meanwhile

_ID = re.compile("[0-9a-f]{16}")

Say = Callable[[str], None]


class Failure(NamedTuple):
    """Why a release could not be served.

    times: how often so far; again: when to try once more; died: whether it was served before.
    """

    reason: str
    times: int
    again: float
    died: bool


def serve(root: Path, options: ServeOptions, say: Say) -> int:
    """Serve the release that `root`/current leads to, and the next one when that changes.

    Until SIGTERM or SIGINT; then what was accepted is answered still. What is served stands in
    `root`/serve.json.

    Args:
        root: the folder of a device's releases.
        say: told what happens, a line at a time.

    Returns:
        0, the exit code.

    Raises:
        EngineError: the options are wrong, nothing is deployed there, another server is at work,
            the port is taken, or no release can be served to begin with.
    """
    wrong = check(options)
    if wrong is not None:
        raise EngineError(wrong)
    say = _with_time(say)
    if current(root) is None:
        raise EngineError("no release is deployed in {}".format(root))
    with _alone(root), listening(options) as listener:
        remove(root / STATE)  # a server that was killed left it
        host, port = listener.getsockname()[:2]
        options = options._replace(port=port)
        say("serve: http://{}:{}".format("[%s]" % host if ":" in host else host, port))
        if not is_loopback(options.host):
            say("serve: the token and all pictures cross the network as they are; a tunnel or a "
                "proxy with TLS in front hides them")  # fmt: skip
        with _told_to_end() as ending:
            supervisor = Supervisor(root, options, listener, say)
            try:
                while not ending:
                    supervisor.look()
            finally:
                listener.close()
                supervisor.end()
    return 0


def _with_time(say: Say) -> Say:
    """Say it with the time of day: it goes to a log that is read when something went wrong."""
    return lambda text: say("{} {}".format(time.strftime("%Y-%m-%d %H:%M:%S"), text))


def current(root: Path) -> Optional[Link]:
    """The link to the release that is to be served; None where there is none."""
    path = root / CURRENT
    try:
        made, target = path.lstat(), os.readlink(str(path))  # noqa: PTH115 - Path has it from 3.9 on
    except OSError:
        return None
    folder, _, name = target.rpartition("/")
    good = folder == RELEASES and _ID.fullmatch(name)
    return Link(name, (made.st_ino, made.st_mtime_ns)) if good else None


class Supervisor:
    """The workers of a root folder: the one that serves, the next one, and those that stop."""

    def __init__(self, root: Path, options: ServeOptions, listener: Any, say: Say) -> None:
        self._root, self._options = root, options
        self._listener, self._told = listener, say
        self._active: Optional[Worker] = None
        self._next: Optional[Worker] = None
        self._leaving: Dict[Worker, float] = {}
        self._failures: Dict[str, Failure] = {}
        self._wanted = current(root)
        self._restarts = 0
        self._served = False
        self._state: Dict[str, Any] = {}
        self._unwritten = False

    def look(self) -> None:
        """Wait a little for something to happen, and see to it.

        Raises:
            EngineError: nothing can be served, and nothing was.
        """
        poll = select.poll()
        for worker in (self._active, self._next):
            if worker is not None:
                poll.register(worker.output, select.POLLIN)
        poll.poll(TICK * 1000)
        wanted = current(self._root)
        if wanted != self._wanted:
            self._wanted = wanted
            self._failures.clear()
        self._see_active()
        self._see_next()
        self._see_leaving()
        if self._next is None:
            self._start()
        self._write()
        if not (self._served or self._active or self._next):
            reasons = ["{}: {}".format(name, f.reason) for name, f in self._failures.items()]
            raise EngineError("nothing can be served: " + "; ".join(reasons))

    def end(self) -> None:
        """Let all workers answer what they have accepted, and end."""
        workers = [w for w in (self._active, self._next, *self._leaving) if w is not None]
        for worker in workers:
            worker.stop()
        patience = time.monotonic() + self._patience()
        while any(worker.alive for worker in workers) and time.monotonic() < patience:
            time.sleep(0.02)
        for worker in workers:
            worker.kill()
        remove(self._root / STATE)

    def _say(self, text: str) -> None:
        with suppress(OSError):  # the log's disk is full, or nobody reads any longer
            self._told(text)

    def _patience(self) -> float:
        """Seconds in which a worker that is told to stop has certainly answered everything."""
        return 2 * self._options.timeout_s + 4 * LAST_CALL

    def _see_active(self) -> None:
        worker = self._active
        failed = worker.hear() if worker else None
        if worker is None or failed is None:
            return
        self._restarts += 1
        self._say("serve: release {}: {}; starting another".format(worker.release, failed))
        if time.monotonic() - worker.begun > STEADY:
            self._failures.pop(worker.release, None)
        worker.close()
        self._fail(worker.release, failed, died=True)
        self._active = None

    def _see_next(self) -> None:
        worker = self._next
        if worker is None:
            return
        failed = worker.hear()
        if failed is not None:
            worker.close()
            self._fail(worker.release, failed)
            self._next = None
        elif self._active is not None and worker.link != self._wanted:
            self._leave(worker)  # the link was changed once more
            self._next = None
        elif worker.ready:
            if self._active is not None:
                self._leave(self._active)
            self._active, self._next, self._served = worker, None, True
            self._say("serve: release {}, {}".format(worker.release, worker.engine))

    def _leave(self, worker: Worker) -> None:
        worker.stop()
        self._leaving[worker] = time.monotonic()

    def _see_leaving(self) -> None:
        for worker, since in list(self._leaving.items()):
            if not worker.alive:
                worker.close()
                del self._leaving[worker]
            elif time.monotonic() - since > self._patience():
                worker.kill()

    def _start(self) -> None:
        """Start a worker for the first release that should be served, and has not just failed."""
        wanted, active = self._wanted, self._active
        links = [wanted] if wanted and not (active and active.link == wanted) else []
        if active is None:
            links += [Link(name) for name in self._earlier()]
        for link in links:
            failure = self._failures.get(link.release)
            if failure is not None and failure.again > time.monotonic():
                if failure.died and failure.times < MOST_DEATHS:
                    return
                continue
            try:
                self._next = Worker(self._root, link, self._options, self._listener, self._restarts)
                return
            except EngineError as error:
                self._fail(link.release, str(error))

    def _fail(self, release: str, reason: str, died: bool = False) -> None:
        """Remember that a release can't be served; one that died is tried again at once."""
        before = self._failures.get(release)
        times = before.times + 1 if before else 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (times - 1))
        again = time.monotonic() + (0 if died and times == 1 else pause)
        self._failures[release] = Failure(reason, times, again, died)
        if not died:
            self._say("serve: release {} can't be served: {}".format(release, reason))

    def _earlier(self) -> List[str]:
        """The releases that were served before, the last one first."""
        try:
            history = json.loads((self._root / HISTORY).read_text("utf-8"))
            names = [str(entry["release"]) for entry in reversed(history)]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return []
        return [name for name in names if _ID.fullmatch(name)]

    def _write(self) -> None:
        """Keep serve.json true."""
        active, wanted = self._active, self._wanted
        failure = self._failures.get(wanted.release) if wanted else None
        if active is not None and active.link == wanted:
            state, reason = "serving", None
        elif failure is not None:
            state, reason = "failed", failure.reason
        else:
            state, reason = "switching", None
        found = {
            "pid": os.getpid(),
            "worker": active.pid if active else None,
            "host": self._options.host,
            "port": self._options.port,
            "release": active.release if active else None,
            "engine": active.engine if active else None,
            "wanted": wanted.release if wanted else None,
            "state": state,
            "reason": reason,
            "token": self._options.token is not None,
        }
        if found == self._state:
            return
        try:
            write_json(self._root / STATE, found)
        except OSError as error:  # a full disk is no reason to serve no longer; later, then
            if not self._unwritten:
                self._say("serve: {}: {}".format(self._root / STATE, error.strerror))
            self._unwritten = True
            return
        self._state, self._unwritten = found, False


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with (root / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError("another server is at work in {}".format(root)) from None
        yield


@contextmanager
def listening(options: ServeOptions) -> Iterator[socket.socket]:
    """A socket that listens where the options say.

    Raises:
        EngineError: the port is taken, or not for this user.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise EngineError(
                "can't listen at {} port {}: {}; choose another --port".format(
                    options.host, options.port, error.strerror
                )
            ) from error
        listener.setblocking(False)
        yield listener


@contextmanager
def _told_to_end() -> Iterator[List[int]]:
    """A list that gets the number of a signal once one came that ends the server."""
    came: List[int] = []
    ending = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    ending = [n for n in ending if signal.getsignal(n) is not signal.SIG_IGN]  # as by nohup
    before = [signal.signal(number, lambda n, _frame: came.append(n)) for number in ending]
    # Who started this may have blocked them for itself, and blocked they are inherited.
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    try:
        yield came
    finally:
        for number, handler in zip(ending, before):
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
