"""Whether what is current is really served, and answers right."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from benchmarks.device.release.engines import FOLDER
from benchmarks.device.release.store import HOME, Store
from engines.bundle import golden
from engines.bundle.manifest import MANIFEST, Manifest, parse
from engines.catalogue import load_engine, read_sidecar
from engines.engine import EngineError
from engines.serve import client
from engines.serve.options import ServeOptions
from engines.serve.supervisor import LOCK, listening

# Seconds that a server has to take up a release: CUDA alone may take 20 to start on a TX2.
PATIENCE = 300.0
LOOK_AGAIN = 0.1  # seconds
RESTART = 5.0  # seconds in which whoever watches over a server starts it again
BUSY = 30.0  # seconds in which a server that has much to do must find time
START = """
import sys
sys.path[0] = sys.argv[1]
from benchmarks.device.release.health import main
main(sys.argv[2])
"""


class Server(NamedTuple):
    """What a running server says of itself.

    word: its serve.json.
    mark: changes whenever it writes a new one.
    """

    word: Dict[str, Any]
    mark: Any

    @property
    def served(self) -> Any:
        """The release, and "serving" if that is the one that it is to serve."""
        return self.word.get("release"), self.word.get("state")

    def answers(self) -> Any:
        """The release and the engine that it answers for, where anyone may ask; else None.

        On a full disk it takes up a release all the same, and can't write that down.
        """
        if self.word.get("token"):
            return None
        with suppress(EngineError):
            found = client.ready(*self.place)
            return (found["release"], found["engine"]) if found else None
        return None

    @property
    def place(self) -> Tuple[str, int]:
        """The address and port at which this machine reaches it."""
        host = str(self.word.get("host"))
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        return host, int(self.word.get("port") or 0)

    @property
    def failed(self) -> Any:
        """The release that it is to serve and can't; None if there is none."""
        return self.word.get("wanted") if self.word.get("state") == "failed" else None


def server(store: Store) -> Optional[Server]:
    """The server that runs on this store; None if none does."""
    try:
        with store.serving.open("rb") as file:
            status, word = os.fstat(file.fileno()), json.loads(file.read().decode("utf-8"))
        if not _has_open(int(word["pid"]), store.root / LOCK):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Server(word, (status.st_ino, status.st_mtime_ns))


def _has_open(pid: int, file: Path) -> bool:
    """Whether a process has a file open; after a reboot its number may be another program's."""
    process, wanted = Path("/proc/{}".format(pid)), file.stat()
    try:
        numbers = list((process / "fd").iterdir())
    except PermissionError:  # another user's, such as root's
        return b"serve" in (process / "cmdline").read_bytes().split(b"\0")
    for number in numbers:
        with suppress(OSError):  # it was just closed
            if os.path.samestat(number.stat(), wanted):
                return True
    return False


def prove(
    store: Store,
    manifest: Manifest,
    before: Optional[Server],
    port: Optional[int],
    switched: bool = True,
) -> Optional["subprocess.Popen[bytes]"]:
    """See that the current release is served, and answers its golden cases right.

    Where a server runs, it must take the release up; where none does, one is started; where none
    is wanted, the engine is loaded in a fresh process.

    Args:
        manifest: of the current release.
        before: the server as it was before the switch.
        port: for a server to be started; None: none is wanted.
        switched: whether there was a switch at all, which a server that runs must take notice of.

    Returns:
        The server that was started; None if there was one, or none is wanted.

    Raises:
        EngineError: it is not served, or answers wrong. No server that was started is left.
    """
    if before is None and port is None:
        _prove_without_server(store)
        return None
    process = None if before is not None else _start(store, port or 0)
    try:
        found = _wait(store, manifest.id, before, process, switched)
        _ask(store, manifest, found)
    except BaseException:
        if process is not None:
            stop(process)
        raise
    return process


def check_port(store: Store, port: Optional[int]) -> None:
    """See, before any work, that a server that is to be started would have its port.

    Raises:
        EngineError: another program has it, or this user may not.
    """
    if port is not None and server(store) is None:
        with listening(ServeOptions(port=port)):
            pass


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a server that was started."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_return(store: Store, release: Optional[str], before: Optional[Server]) -> None:
    """Give the server time to go back to the release that it served before."""
    if release is None or before is None:
        return
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        now = server(store)
        if now is None or now.served == (release, "serving") or now.failed == release:
            return
        if now.served[0] != release and now.answers() == (release, before.word.get("engine")):
            return
        time.sleep(LOOK_AGAIN)


def _wait(
    store: Store,
    release: str,
    before: Optional[Server],
    process: Optional["subprocess.Popen[bytes]"],
    switched: bool,
) -> Dict[str, Any]:
    """Wait until the server says that it serves the release with its engine; gives its word."""
    engine = (store.about(release) or {}).get("engine")
    seen = time.monotonic()
    end = seen + PATIENCE
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise EngineError("the server ended as soon as it was started: " + _last_words(store))
        now = server(store)
        seen = seen if now is None else time.monotonic()
        if before is not None and time.monotonic() - seen > RESTART:
            raise EngineError("the server ended when it was to take up release " + release)
        if now is not None and (process is None or now.word.get("pid") == process.pid):
            word = now.word
            news = before is None or now.mark != before.mark
            served = word.get("release"), word.get("engine"), word.get("state")
            if served == (release, engine, "serving") and (news or not switched):
                return word
            other = before is not None and served[:2] != (release, engine)
            if other and now.answers() == (release, engine):
                return word
            if now.failed == release and news:
                raise EngineError("the server does not take it up: {}".format(word.get("reason")))
        time.sleep(LOOK_AGAIN)
    raise EngineError(
        "the server did not take up release {} within {:.0f} s".format(release, PATIENCE)
    )


def _ask(store: Store, manifest: Manifest, word: Dict[str, Any]) -> None:
    """Ask a server the golden cases; behind a token only whether it is ready, as anyone may."""
    host, port = Server(word, None).place
    if word.get("token"):
        # Its worker answered them right before it took the place of the one before.
        _patiently(lambda: client.check_ready(host, port))
        return
    found = _patiently(lambda: client.golden(host, port, manifest, store.folder(manifest.id)))
    if not found.ok:
        raise EngineError("the server answers wrong: {}".format(found.what))


def _patiently(ask: Callable[[], Any]) -> Any:
    """Ask until there is an answer: others ask too, and the worker before may take one more."""
    end = time.monotonic() + BUSY
    while True:
        try:
            return ask()
        except EngineError:
            if time.monotonic() > end:
                raise
        time.sleep(LOOK_AGAIN)


def _start(store: Store, port: int) -> "subprocess.Popen[bytes]":
    """Start a server that stays when this program ends."""
    arguments = ["serve", "--root", str(store.root), "--port", str(port)]
    with _log(store).open("wb") as log:
        return subprocess.Popen(
            _program(store) + arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=str(store.root),
            start_new_session=True,
            env=dict(os.environ, PYTHONPATH=str(HOME)) if HOME.is_dir() else None,
        )


def _program(store: Store) -> List[str]:
    own = store.program(store.current())
    if own is not None:
        return [sys.executable, str(own)]
    return [sys.executable, "-m", "benchmarks.device"]


def _log(store: Store) -> Path:
    return store.root / "serve.log"


def _last_words(store: Store) -> str:
    lines = _log(store).read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _prove_without_server(store: Store) -> None:
    home = store.program(store.current()) or HOME
    command = [sys.executable, "-c", START, str(home), str(store.root / "current")]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise EngineError("its engine does not answer within {:.0f} s".format(PATIENCE)) from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EngineError(
            "its engine can't be used: {}".format(
                lines[-1] if lines else "the process ended with {}".format(done.returncode)
            )
        )


def main(release: str) -> None:
    """In a fresh process: the engine of a release against its golden cases; exits with 1."""
    folder = Path(release)
    try:
        about = json.loads((folder / "release.json").read_text("utf-8"))
        manifest = parse((folder / MANIFEST).read_bytes())
        sidecar = read_sidecar(folder / FOLDER / (about["engine"] + ".json"))
        with load_engine(folder / FOLDER, sidecar) as engine:
            found = golden.check(engine, sidecar["precision"], manifest, folder)
    except (EngineError, OSError, ValueError, KeyError) as error:
        sys.exit(str(error))
    if not found.ok:
        sys.exit(found.what)
