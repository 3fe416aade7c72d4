"""The wire to the host that deploys: what it sends on stdin, what it is told on stdout.

The host sends lines of JSON, each file's bytes after a line that announces them; both send empty
lines as signs of life. As long as nothing was switched, a host that is gone ends this process:
whatever is on the disk then is what the next deployment goes on from.
"""

import io
import json
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, BinaryIO, Dict, cast

from benchmarks.device.release.content import Missing
from engines.engine import EngineError
from engines.files import remove_temporaries

SILENCE = 60.0  # seconds without a sign of life, after which a host counts as gone
HEARTBEAT = 15.0  # seconds between two signs of life for the host
LONGEST_LINE = 64 << 20  # bytes; the request holds a manifest
HELD = 4 << 20  # bytes that are read ahead
PIECE = 1 << 16
WRITTEN_AT_ONCE = 4096  # bytes; so many go without waiting into a pipe that has room (PIPE_BUF)
LAST_BYTES = 10.0  # seconds in which the last bytes of a host that is gone are written
GONE = 1  # exit code


class ProtocolError(EngineError):
    """What the host sent is none of the protocol."""


class Channel:
    """Both directions, on numbers of open files; a thread reads, and knows if the host is gone."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._held, self._ended = bytearray(), False
        self._arrived = threading.Condition()
        self._in_line = False  # whether a line is waited for, however long it is
        # Whether a file is being fetched, and whether its bytes ran out when the host was gone.
        self._fetching, self._starved = False, False
        self._alone, self._deaf = False, False
        self._deciding, self._writing = threading.Lock(), threading.Lock()
        for work in (self._read, self._live):
            threading.Thread(target=work, daemon=True).start()

    def tell(self, **event: Any) -> None:
        """Tell the host something, in one line."""
        with self._writing:
            self._write(json.dumps(event).encode() + b"\n")

    def line(self) -> bytes:
        """The next line that is not empty.

        Raises:
            ProtocolError: it is too long.
        """
        found = b""
        while not found:
            with self._arrived:
                self._in_line = True
                self._arrived.notify_all()
                end = searched = 0
                while True:
                    end = self._held.find(b"\n", searched)
                    if end >= 0:
                        break
                    searched = len(self._held)
                    if searched > LONGEST_LINE:
                        raise ProtocolError("the host sent a line without end")
                    self._wait()
                self._in_line = False
                found = bytes(self._held[:end]).strip()
                del self._held[: end + 1]
        return found

    def document(self) -> Dict[str, Any]:
        """The next line, which must be an object of JSON.

        Raises:
            ProtocolError: it is none.
        """
        line = self.line()
        try:
            document = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise ProtocolError(
                "this program speaks with `edgetrt deploy` on its stdin; it received: {!r}".format(
                    line[:40]
                )
            )
        return document

    def fetch(self, missing: Missing) -> BinaryIO:
        """Ask the host for what is missing of a file; its bytes, as they come.

        Raises:
            ProtocolError: something else was announced.
        """
        file, offset = missing
        self._fetching = True
        self.tell(event="send", sha256=file.sha256, size=file.size, offset=offset)
        length = file.size - offset
        wanted = {"sha256": file.sha256, "offset": offset, "length": length}
        announced = self.document()
        if announced != wanted:
            raise ProtocolError("the host announced {!r:.200}, not {!r}".format(announced, wanted))
        return cast(BinaryIO, _Bytes(self, length))

    def take(self, most: int) -> bytes:
        """Some of the bytes that come next, at least one."""
        with self._arrived:
            while not self._held:
                self._wait()
            found = bytes(self._held[:most])
            del self._held[:most]
            self._arrived.notify_all()
            return found

    def fetched(self) -> None:
        """The last byte of a file was taken."""
        self._fetching = False

    def alone(self) -> None:
        """From now on finish without the host, whatever becomes of it."""
        with self._deciding:
            self._alone = True
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            # No SIG_IGN: a server that is started from here would inherit that.
            signal.signal(number, lambda *_: None)
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)  # nobody may be reading any more
        os.close(nowhere)

    def _wait(self) -> None:
        """Wait for more, within `_arrived`."""
        if self._ended:
            self._starved = True
            self._arrived.notify_all()
            self._arrived.wait(SILENCE)  # meanwhile the thread that reads ends this process
            raise ProtocolError("the host is gone")
        self._arrived.wait()

    def _read(self) -> None:
        """What the thread does: read, and end the process if there is no host any more."""
        heard = time.monotonic()
        while True:
            ready, _, _ = select.select([self._source], [], [], min(SILENCE / 4, 1.0))
            if not ready and time.monotonic() - heard > SILENCE:
                return self._end("the host said nothing for {:.0f} s".format(SILENCE))
            if not ready:
                continue
            try:
                piece = os.read(self._source, PIECE)
            except OSError:
                piece = b""
            if not piece:
                return self._end("the host is gone")
            with self._arrived:
                self._held += piece
                self._arrived.notify_all()
                while len(self._held) > HELD and not self._in_line:
                    self._arrived.wait()
            heard = time.monotonic()

    def _live(self) -> None:
        """What another thread does: a build says nothing for minutes, and the host waits for it."""
        while True:
            time.sleep(HEARTBEAT)
            with self._writing:
                self._write(b"\n")

    def _end(self, reason: str) -> None:
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()
            # What has arrived of a file is to be on the disk: the next deployment goes on there.
            self._arrived.wait_for(lambda: self._starved or not self._fetching, LAST_BYTES)
        with self._deciding:
            if not self._alone:
                self._leave(reason)

    def _leave(self, reason: str) -> None:
        """End this process, whatever it is at; the process of a build ends with it."""
        text = reason + "; nothing was switched"
        event = {"event": "error", "step": None, "text": text, "kind": "failed"}
        line = json.dumps(dict(event, current=None, rolled_back=False)).encode() + b"\n"
        for file, words in ((self._sink, line), (2, "edgetrt-device: {}\n".format(text).encode())):
            with suppress(OSError):
                if select.select([], [file], [], 1.0)[1]:
                    os.write(file, words)
        remove_temporaries()
        os._exit(GONE)

    def _write(self, data: bytes) -> None:
        try:
            while data and not self._deaf:
                if not select.select([], [self._sink], [], SILENCE)[1]:
                    raise BlockingIOError("the host does not listen")
                data = data[os.write(self._sink, data[:WRITTEN_AT_ONCE]) :]
        except OSError:
            self._deaf = True
        # While a file is fetched, what has arrived of it is taken first.
        if self._deaf and not self._fetching:
            with self._deciding:
                if not self._alone:
                    self._leave("the host does not listen")


class _Bytes(io.RawIOBase):
    """So many bytes of what the host sends."""

    def __init__(self, channel: Channel, count: int) -> None:
        self._channel, self._left = channel, count

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        if not self._left:
            return 0
        piece = self._channel.take(min(len(buffer), self._left))
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        if not self._left:
            self._channel.fetched()
        return len(piece)
