"""A line between host and device that is cut after so many bytes."""

import socket
import struct
import threading
import time
from typing import Literal

from sshd import free_port

Direction = Literal["up", "down"]
RATE = 4e6  # bytes a second: what is on its way when the line is cut shall be little
RESET = struct.pack("ii", 1, 0)


class Line:
    """A TCP proxy in front of a port of this machine.

    Attributes:
        port: where it listens, on 127.0.0.1.
        passed: bytes that came through so far, "up" from host to device and "down" back.
        was_cut: set once the cut has happened.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", free_port()), backlog=50)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.passed: dict[Direction, int] = {}
        self._limit: int | None = None
        self._direction: Direction = "up"
        self._silently = False
        self.was_cut = threading.Event()
        self.mend()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count: int, direction: Direction = "up", silently: bool = False) -> None:
        """Let `count` more bytes through in a direction, and then nothing in either.

        Args:
            silently: both ends are not told, as when a cable is pulled.
        """
        with self._lock:
            self.passed = {"up": 0, "down": 0}
            self._limit, self._direction, self._silently = count, direction, silently

    def mend(self) -> None:
        """Let everything through that connects from now on."""
        with self._lock:
            self.passed = {"up": 0, "down": 0}
            self._limit, self._direction, self._silently = None, "up", False
            self.was_cut.clear()

    def close(self) -> None:
        """Cut everything, and listen no more."""
        self._listener.close()
        self._cut()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.was_cut.is_set():
                if self._silently:
                    self._open.append(near)  # it is never answered
                else:
                    _reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                _reset(near)
                continue
            with self._lock:
                self._open += [near, far]
            for ends in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, to: socket.socket, direction: Direction) -> None:
        try:
            while data := source.recv(16384):
                allowed, cut = self._allowed(data, direction)
                to.sendall(allowed)
                time.sleep(len(allowed) / RATE)
                if cut:
                    self._cut()
                    return
            to.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, to):
                if not self._silently:
                    _reset(end)

    def _allowed(self, data: bytes, direction: Direction) -> tuple[bytes, bool]:
        """What of these bytes may pass, and whether the line is to be cut behind them."""
        with self._lock:
            if self.was_cut.is_set():
                return b"", True
            if self._limit is not None and direction == self._direction:
                left = self._limit - self.passed[direction]
                if len(data) >= left:
                    data = data[:left]
                    self.passed[direction] += left
                    self.was_cut.set()
                    return data, True
            self.passed[direction] += len(data)
            return data, False

    def _cut(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            if self._silently:
                self._open.append(end)
            else:
                _reset(end)


def _reset(end: socket.socket) -> None:
    """Close a connection the hard way: what was not yet sent is thrown away."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
