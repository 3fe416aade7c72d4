"""The process that serves one release; `engines.serve.supervisor` starts it.

A line of JSON on stdin says how: {"options": {...}, "restarts": N}. On stdout comes one line:
{"event": "ready", "engine": ...} or {"event": "failed", "text": ...}. It listens at a socket that
it inherits. On SIGTERM, and when stdin ends because whoever started it is gone, it answers what it
has accepted and ends.
"""

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Optional

from engines.catalogue import is_made_of, load_engine, read_sidecar
from engines.engine import Engine, EngineError
from engines.serve.application import Application
from engines.serve.batching import Batcher
from engines.serve.connections import LAST_CALL, Server
from engines.serve.kserve import Model
from engines.serve.metrics import Metrics
from engines.serve.options import ServeOptions
from engines.text import printable

HANGS = 60.0  # seconds; an engine that computes longer never comes back
OK, FAILED = 0, 1
ENDING = 5.0  # seconds for the engine to let go of the GPU


def main(release: Path, descriptor: int) -> int:
    """Serve a release until told to stop.

    Args:
        release: its folder.
        descriptor: number of the listening socket.

    Returns:
        Exit code: 0 stopped as told, 1 the engine could not be loaded, or failed.
    """
    # Who started this may have blocked them for itself, and blocked they are inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's
    told = json.loads(sys.stdin.readline())
    protocol = os.fdopen(os.dup(1), "w", 1)
    os.dup2(2, 1)  # whatever libraries print must not come between
    known = ServeOptions._fields  # a supervisor of another version may have others
    options = ServeOptions(**{k: v for k, v in told["options"].items() if k in known})
    worker = Worker(release, options, int(told["restarts"]), socket.socket(fileno=descriptor))
    return worker.run(lambda **what: protocol.write(json.dumps(what) + "\n"))


class Worker:
    """A release, its engine in a thread, and the server in front of it."""

    def __init__(
        self, folder: Path, options: ServeOptions, restarts: int, listener: socket.socket
    ) -> None:
        self._folder, self._options, self._restarts = folder, options, restarts
        self._listener = listener
        self._metrics: Optional[Metrics] = None
        self._batcher = Batcher(
            options.max_batch, options.max_delay_ms / 1000, options.queue, self._computed
        )
        self._loaded = threading.Event()
        self._server: Optional[Server] = None
        self._model: Optional[Model] = None
        self._error: Optional[str] = None

    def run(self, tell: Any) -> int:
        """See `main`."""
        threading.Thread(target=self._end_with_starter, daemon=True).start()
        engine = threading.Thread(target=self._have_engine, daemon=True)
        engine.start()
        self._loaded.wait()
        if self._model is None:
            tell(event="failed", text=self._error)
            return FAILED
        server: Server = self._serving(self._model)
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        tell(event="ready", engine=self._model.engine)
        server.run(self._look)
        answered = server.wait(2 * self._options.timeout_s + LAST_CALL)
        self._batcher.close()
        engine.join(ENDING)
        if self._error is not None:
            print("engine: " + printable(self._error), file=sys.stderr, flush=True)
        if engine.is_alive() or not answered:
            os._exit(FAILED)  # in native code, which nothing else ends
        return OK if self._error is None else FAILED

    def _serving(self, model: Model) -> Server:
        about = {"name": model.name, "release": model.release, "engine": model.engine}
        gauges = {
            "queue_length": ("Requests waiting for the engine", lambda: self._batcher.waiting),
            "connections": ("Connections open", lambda: server.open),
        }
        metrics = self._metrics = Metrics(about, self._restarts, gauges)
        application = Application(model, self._batcher, metrics, self._options)
        server: Server = Server(
            self._listener, self._options, application.exchange, metrics.answered
        )
        self._server = server
        return server

    def _have_engine(self) -> None:
        """Load the engine, prove it and run it: all in one thread, whose it then is."""
        try:
            release = Release(self._folder)
            with release.load() as engine:
                self._model = release.proven(engine)
                self._loaded.set()
                self._batcher.run(engine)
        except EngineError as error:
            self._error = str(error)
        except Exception as error:
            self._error = "unexpected {}: {}".format(type(error).__name__, error)
        finally:
            self._loaded.set()
            if self._server is not None:
                self._server.stop()

    def _computed(self, pictures: int, queued: Any, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.computed(pictures, queued, seconds)

    def _look(self) -> None:
        if self._batcher.computing_for() > max(HANGS, 2 * self._options.timeout_s):
            print("engine: it does not come back from a batch", file=sys.stderr, flush=True)
            os._exit(FAILED)

    def _end_with_starter(self) -> None:
        sys.stdin.read()
        if self._server is None:
            os._exit(FAILED)
        self._server.stop()


class Release:
    """A release's folder: what of it is served.

    Raises EngineError if something there is missing, damaged, or of another release.
    """

    def __init__(self, folder: Path) -> None:
        from engines.bundle.manifest import MANIFEST, parse

        self._folder = folder
        self.manifest = parse(_read(folder / MANIFEST))
        if self.manifest.id != folder.name:
            raise EngineError("{} holds release {}".format(folder, self.manifest.id))
        name = _engine_of(folder / "release.json")
        self.sidecar = read_sidecar(folder / "engines" / (name + ".json"))
        if self.sidecar["status"] != "built" or not is_made_of(self.sidecar, folder / "onnx"):
            raise EngineError("{} was not built from this release; deploy it again".format(name))

    def load(self) -> Engine:
        """The engine.

        Raises:
            EngineError: it does not load here.
        """
        return load_engine(self._folder / "engines", self.sidecar)

    def proven(self, engine: Engine) -> Model:
        """What is served, after the golden cases were asked.

        Raises:
            EngineError: the engine answers wrong, or is one of another model.
        """
        from engines.bundle.golden import check

        precision, classes = self.sidecar["precision"], self.manifest.classes
        height, width = self.manifest.picture
        if engine.input.shape[1:] != (height, width, 3) or engine.output.shape[1:] != (
            len(classes),
        ):
            raise EngineError("{} is of another model".format(self.sidecar["name"]))
        golden = check(engine, precision, self.manifest, self._folder)
        if not golden.ok:
            raise EngineError("{} answers wrong: {}".format(self.sidecar["name"], golden.what))
        return Model(
            self.manifest.name,
            self.manifest.id,
            self.sidecar["name"],
            engine.backend,
            precision,
            self.manifest.data["input"]["name"],
            height,
            width,
            tuple(classes),
        )


def _engine_of(file: Path) -> str:
    """The engine that is to be served."""
    try:
        found = json.loads(_read(file).decode("utf-8"))
        name, complete = found["engine"], found["complete"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise EngineError("{} is damaged: {!r}; deploy it again".format(file, error)) from error
    good = isinstance(name, str) and Path(name).name == name and name.isprintable()
    if not good or complete is not True:
        raise EngineError("{} is of an unfinished deployment; deploy it again".format(file))
    return str(name)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise EngineError("{}: {}; deploy it again".format(file, error.strerror)) from error
