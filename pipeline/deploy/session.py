"""The host's end of the protocol that a device's agent speaks, over one SSH channel.

The host sends one line of JSON, the request; the agent answers with lines of JSON, the events. For
each event "send" the host writes a line of JSON (`sha256`, `offset`, `length`) and so many raw
bytes of that file. Empty lines say that the other is still there. It all runs in one thread:
whoever waits for the device also says so to it, and reads what it writes to stderr.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

from engines.bundle.archive import Bundle
from engines.text import printable
from pipeline.deploy.bootstrap import NO_PROGRAM, Program
from pipeline.deploy.errors import DeviceError

PROTOCOL = 1
HEARTBEAT = 5.0  # seconds; an agent that hears nothing for 60 gives up
SILENCE = 300.0  # seconds; an agent gives signs of life, but not while it loads a library
LONGEST = 12 * 3600.0  # seconds for one device, however much it says
PIECE = 1 << 16
MAX_LINE = 16 << 20  # bytes of one event, which may hold a report
MAX_CONTAINERS = 100_000  # of its objects and lists: empty ones take 26 times their bytes
MAX_RESULT = 4 << 20  # bytes of a result without its report: those of all devices are held
MAX_LOGGED = 1 << 20  # characters of a device in its log; the rest is read, and dropped
LONGEST_TEXT = 600  # characters of what a device says in one go
SWITCHED = ("switch", "health", "tidy")  # from the first of these on the agent finishes alone

Event = Mapping[str, Any]


class Channel(Protocol):
    """What is used of `paramiko.Channel`."""

    def settimeout(self, timeout: float | None) -> None: ...  # noqa: D102
    def send(self, s: bytes) -> int: ...  # noqa: D102
    def recv(self, nbytes: int) -> bytes: ...  # noqa: D102
    def recv_stderr(self, nbytes: int) -> bytes: ...  # noqa: D102
    def recv_stderr_ready(self) -> bool: ...  # noqa: D102
    def exit_status_ready(self) -> bool: ...  # noqa: D102
    def recv_exit_status(self) -> int: ...  # noqa: D102
    def shutdown_write(self) -> None: ...  # noqa: D102
    def get_transport(self) -> Any: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Session:
    """One request to one device.

    Args:
        channel: on which `bootstrap.command` was started.
        program: sent if the device asks for it.
        bundle: what a deployment sends from; None for other requests.
        tell: called with each event, but for "send", "result" and "error".
        log: called with each line for the device's log.
    """

    def __init__(
        self,
        channel: Channel,
        program: Program,
        bundle: Bundle | None,
        tell: Callable[[Event], None],
        log: Callable[[str], None],
    ) -> None:
        self._channel, self._program, self._bundle = channel, program, bundle
        self._tell, self._log = tell, log
        self._received, self._searched = bytearray(), 0
        self._messages, self._logged = bytearray(), 0
        self._last_words = ""  # on stderr
        self._began = self._heard = self._spoke = time.monotonic()
        self._step, self._gave, self._asked, self._deaf = "start", False, False, False

    def perform(self, request: Mapping[str, Any]) -> Event:
        """Make the request, and give the agent all it asks for.

        Returns:
            The event "result".

        Raises:
            DeviceError: the agent says so, the connection was cut, or nothing is heard any more.
            EngineError: the bundle was changed meanwhile.
        """
        self._channel.settimeout(HEARTBEAT)
        try:
            while True:
                event = self._next()
                kind = event["event"]
                if kind == "program" and not self._gave:
                    self._gave = True
                    self._send(self._program.data)
                elif kind == "ready" and not self._asked:
                    self._asked = True
                    self._send(_line({"protocol": PROTOCOL, **request}))
                elif kind == "send":
                    self._send_file(event)
                elif kind == "result":
                    if not _can_be_kept(event):
                        raise self._nonsense()
                    return event
                elif kind == "error":
                    raise self._error(event)
                else:
                    self._note(event)
        finally:
            self._read_messages()
            self._keep(self._messages.decode("utf-8", "replace"))
            with suppress(OSError, EOFError):
                self._channel.close()

    def _note(self, event: Event) -> None:
        if event["event"] == "step":
            self._step = text_of(event, "step")
            self._keep(f"{self._step}: {text_of(event, 'state')} {text_of(event, 'text')}")
        self._tell(event)

    def _next(self) -> Event:
        """The next event. Lines that are none go to the log: a shell's greeting, a library's."""
        while True:
            end = self._received.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._received)
                if self._searched > MAX_LINE:
                    raise self._nonsense()
                self._received += self._receive()
                continue
            line = bytes(self._received[:end])
            del self._received[: end + 1]
            self._searched = 0
            if line.count(b"{") + line.count(b"[") > MAX_CONTAINERS:
                raise self._nonsense()
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
            self._keep(line.decode("utf-8", "replace"))

    def _keep(self, text: str) -> None:
        """Log a line of the device, if it says something, and has not said too much already."""
        text = _shortened(text)
        if text and self._logged + len(text) <= MAX_LOGGED:
            self._logged += len(text)
            self._log(text)

    def _nonsense(self) -> DeviceError:
        text = f"it says what no device program says; {self._state()}"
        return DeviceError(text, self._step, known=not self._switching)

    def _receive(self) -> bytes:
        """Some bytes of what the device says; meanwhile it hears that the host is there."""
        while True:
            self._read_messages()
            self._lose_patience()
            self._beat()
            try:
                piece = self._channel.recv(PIECE)
            except TimeoutError:
                continue
            except (OSError, EOFError):
                piece = b""
            if not piece:
                raise self._ended()
            self._heard = time.monotonic()
            return piece

    def _beat(self) -> None:
        if self._asked and time.monotonic() - self._spoke >= HEARTBEAT:
            self._spoke = time.monotonic()
            with suppress(OSError, EOFError):  # among them TimeoutError: it has enough to read
                self._channel.send(b"\n")

    def _send(self, data: bytes) -> None:
        """Send it all. Where nobody reads any more, what was said before is still to be heard."""
        start = 0
        while start < len(data) and not self._deaf:
            self._lose_patience()
            try:
                start += self._channel.send(data[start : start + PIECE])
                self._spoke = self._heard = time.monotonic()
            except TimeoutError:
                self._read_messages()
            except (OSError, EOFError):
                self._deaf = True

    def _send_file(self, event: Event) -> None:
        wanted, offset = event.get("sha256"), event.get("offset")
        if self._bundle is None:
            raise DeviceError("it asks for a file, where there is none to send", self._step)
        files = self._bundle.manifest.files
        file = next((file for file in files if file.sha256 == wanted), None)
        if file is None or type(offset) is not int or not 0 <= offset <= file.size:
            raise DeviceError("it asks for a file that the bundle has not", self._step)
        self._log(f"sends {file.path}, {file.size - offset} of {file.size} bytes")
        header = {"sha256": wanted, "offset": offset, "length": file.size - offset}
        self._send(_line(header))
        with self._bundle.open(file.path) as stream:
            _skip(stream, offset)
            while not self._deaf and (piece := stream.read(PIECE)):
                self._send(piece)

    def _read_messages(self) -> None:
        """Log what the device wrote to stderr: unread, it would stop there in the end."""
        with suppress(OSError, EOFError):
            while self._channel.recv_stderr_ready():
                piece = self._channel.recv_stderr(PIECE)
                if not piece:
                    break
                *lines, rest = (self._messages + piece).split(b"\n")
                self._messages = rest[:PIECE]
                for line in lines:
                    text = line.decode("utf-8", "replace")
                    self._last_words = _shortened(text) or self._last_words
                    self._keep(text)

    def _lose_patience(self) -> None:
        now = time.monotonic()
        if now - self._heard > SILENCE:
            text = f"nothing was heard of it for {SILENCE / 60:.0f} minutes"
        elif now - self._began > LONGEST:
            text = f"it is not through after {LONGEST / 3600:.0f} hours"
        else:
            return
        raise DeviceError(f"{text}; {self._state()}", self._step, known=not self._switching)

    def _ended(self) -> DeviceError:
        """Why there is nothing more to hear."""
        status = -1
        deadline = time.monotonic() + 1
        # The exit code, or the news that the connection is cut, may come a moment later.
        while time.monotonic() < deadline and self._channel.get_transport().is_active():
            if self._channel.exit_status_ready():
                status = self._channel.recv_exit_status()
                if status >= 0:
                    break
            time.sleep(0.02)
        self._read_messages()
        if status < 0 and not self._channel.get_transport().is_active():
            return self._unfinished("the connection was cut")
        if not self._asked:
            if status in NO_PROGRAM:
                return DeviceError("it has no Python 3 of that name; --python names one", "program")
            return DeviceError(f"the device program does not start there (exit code {status}); "
                               "the log says more", "program")  # fmt: skip
        if status < 0 or status >= 128:
            return self._unfinished("the device program was killed")
        return self._unfinished(f"the device program ended with code {status}", self._last_words)

    def _unfinished(self, what: str, said: str = "") -> DeviceError:
        told = f' ("{said}")' if said else ""
        text = f"{what} during {self._step}{told}; {self._state()}"
        return DeviceError(text, self._step, known=not self._switching)

    @property
    def _switching(self) -> bool:
        return self._step in SWITCHED

    def _state(self) -> str:
        if self._switching:
            return "it finishes the switch or undoes it by itself: --status tells"
        return "it serves what it did before; the same command goes on where it stopped"

    def _error(self, event: Event) -> DeviceError:
        step = text_of(event, "step") or self._step
        back = event.get("rolled_back") is True
        text = text_of(event, "text") or "it says that it failed, and not why"
        self._log(f"{step}: failed: {text}")
        return DeviceError(text, step, rolled_back=back)


def _can_be_kept(result: Event) -> bool:
    """Whether a result can be written as JSON, and is not too long."""
    deeper: Any = result
    for _ in range(200):  # whoever writes it may have less of the stack left
        deeper = [deeper]
    short = {key: value for key, value in result.items() if key != "report"}
    try:
        json.dumps(deeper, allow_nan=False)
        return len(json.dumps(short)) <= MAX_RESULT
    except (ValueError, RecursionError):
        return False


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _skip(stream: BinaryIO, count: int) -> None:
    while count:
        count -= len(stream.read(min(count, PIECE)))


def text_of(event: Event, key: str) -> str:
    """What a device calls something, fit to be shown."""
    value = event.get(key)
    return _shortened(value) if isinstance(value, str) else ""


def _shortened(text: str) -> str:
    whole = printable(text.rstrip())
    return whole if len(whole) <= LONGEST_TEXT else whole[: LONGEST_TEXT - 1] + "…"
