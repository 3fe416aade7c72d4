"""Connections: accepted, read and answered within limits of number, size and time.

A thread for each, as many as `options.connections`. To stop, a server answers all that it has
accepted; a connection that is kept open is closed after its next answer, or when none comes.
"""

import select
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any, Callable, ContextManager, Optional

from engines.serve.http import (
    CONTINUE,
    END_OF_HEAD,
    LONGEST_HEAD,
    Buffer,
    Head,
    HttpError,
    Response,
    busy,
    encode,
    parse_head,
    refusal,
    too_large,
    unpack,
)
from engines.serve.options import ServeOptions

BACKLOG = 128  # connections that may wait to be accepted
IDLE = 60.0  # seconds that a kept connection waits for its next request
LAST_CALL = 3.0  # the same, while the server stops
LINGER = 2.0  # seconds to let a client read its refusal, before what it still sends resets it
BODIES = 8  # requests of the largest size that may be held in memory at once
NOTHING_YET = 0.02  # seconds; nothing tells when a file descriptor becomes free

# Given a head: refuses by HttpError, or gives what makes an answer of the body.
Exchange = Callable[[Head], ContextManager[Callable[[Buffer], Response]]]


class Server:
    """Serves a listening socket, which other processes may serve as well.

    Args:
        listener: bound and listening; not blocking.
        exchange: what makes the answers, in many threads at once.
        observe: told each status that was answered.
    """

    def __init__(
        self,
        listener: socket.socket,
        options: ServeOptions,
        exchange: Exchange,
        observe: Callable[[int], None],
    ) -> None:
        self.options, self.exchange, self.observe = options, exchange, observe
        self.largest = options.max_request_mb << 20
        self._listener = listener
        self._lock = threading.Condition()
        self._open = 0
        self._held = 0
        self._stopped, self._stopper = socket.socketpair()
        self.stopping = False

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return self._open

    def stop(self) -> None:
        """Let `run` come to its end; may be called from anywhere, a signal handler among it."""
        self.stopping = True
        self._stopper.close()

    def run(self, look: Callable[[], None]) -> None:
        """Accept and serve connections, until `stop` is called.

        Args:
            look: called about once a second.
        """
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        while not self.stopping:
            poll.poll(1000)
            look()
            self._accept()
        # Who waits by now is answered; who comes later is another's, or nobody's.
        for _ in range(BACKLOG + 1):
            if not self._accept():
                break
        self._listener.close()

    def wait(self, seconds: float) -> bool:
        """Wait until no connection is open; whether that came to be."""
        end = time.monotonic() + seconds
        with self._lock:
            return bool(self._lock.wait_for(lambda: not self._open, end - time.monotonic()))

    def waits(self, connection: socket.socket, seconds: float) -> bool:
        """Wait for a connection's next bytes; less long once the server stops."""
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if not self.stopping:
            poll.register(self._stopped, select.POLLIN)
            ready = [number for number, _ in poll.poll(seconds * 1000)]
            if connection.fileno() in ready or not ready:
                return bool(ready)
            poll.unregister(self._stopped)
        return bool(poll.poll(max(0.0, min(LAST_CALL, end - time.monotonic())) * 1000))

    def hold(self, size: int) -> None:
        """Take memory for a body, to be released.

        Raises:
            HttpError: 503, too much is taken.
        """
        with self._lock:
            if self._held + size > BODIES * self.largest:
                raise busy("too many large requests at once")
            self._held += size

    def release(self, size: int) -> None:
        """Give back what `hold` took."""
        with self._lock:
            self._held -= size

    def _accept(self) -> bool:
        """Let one connection in; False where there is none, or no room."""
        if self._open >= 2 * self.options.connections:
            time.sleep(NOTHING_YET)  # it waits in the listener's backlog
            return False
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return False
        except OSError:  # no file descriptors are left
            time.sleep(NOTHING_YET)
            return False
        with self._lock:
            self._open += 1
            full = self._open > self.options.connections
        try:
            threading.Thread(target=self._serve, args=(accepted, full), daemon=True).start()
        except RuntimeError:  # no threads are left
            accepted.close()
            self._closed()
            time.sleep(NOTHING_YET)
        return True

    def _serve(self, accepted: socket.socket, full: bool) -> None:
        try:
            with accepted:
                Connection(self, accepted, full).serve()
        except OSError:
            pass  # the client is gone, and nobody is left to be told
        finally:
            self._closed()

    def _closed(self) -> None:
        with self._lock:
            self._open -= 1
            self._lock.notify_all()


class Connection:
    """One client's connection.

    Args:
        full: there are too many; this one is answered 503.
    """

    def __init__(self, server: Server, connection: socket.socket, full: bool) -> None:
        self._server, self._socket, self._full = server, connection, full
        self._seconds = server.options.timeout_s
        self._received = bytearray()
        self._whole = False  # whether the request at hand was read to its end
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        """Answer one request after the other."""
        patience = self._seconds
        while self._received or self._server.waits(self._socket, patience):
            if not self._answer():
                return
            patience = IDLE

    def _answer(self) -> bool:
        """Answer a request; whether there may be another one."""
        head: Optional[Head] = None
        self._whole = False
        try:
            end = time.monotonic() + self._seconds
            data = self._read_head(end)
            if data is None:
                return False
            head = parse_head(data)
            if self._full:
                raise busy("too many connections")
            with self._server.exchange(head) as make:
                response = self._carry_out(head, make, end)
        except HttpError as error:
            response = refusal(error)
        except MemoryError:
            response = refusal(busy("there is not enough memory for this request"))
        except OSError:
            raise
        except Exception:
            with suppress(OSError):  # a full disk
                traceback.print_exc(file=sys.stderr)
            response = refusal(HttpError(500, "unexpected error; the server's log says which"))
        keep = bool(head and head.keeps and self._whole and not self._server.stopping)
        self._server.observe(response.status)
        self._socket.settimeout(self._seconds)
        self._socket.sendall(encode(response, keep, not head or head.method != "HEAD"))
        if not keep:
            self._part()
        return keep

    def _carry_out(self, head: Head, make: Callable[[Buffer], Response], end: float) -> Response:
        length = head.length or 0
        if length > self._server.largest:
            raise too_large(self._server.largest)
        encoding = head.headers.get("content-encoding", "")
        size = self._server.largest if encoding else length
        self._server.hold(size)
        try:
            if head.waits and length > len(self._received):
                self._socket.sendall(CONTINUE)
            body = self._read(length, end)
            self._whole = True
            try:
                return make(unpack(body, encoding, self._server.largest))
            except OSError as error:  # not of the connection: such as a full disk
                raise RuntimeError("the answer can't be made") from error
        finally:
            self._server.release(size)

    def _read_head(self, end: float) -> Optional[bytes]:
        """What comes before END_OF_HEAD; None if the client leaves before it said anything."""
        seen = 0
        while True:
            found = self._received.find(END_OF_HEAD, max(0, seen - len(END_OF_HEAD) + 1))
            if 0 <= found <= LONGEST_HEAD:
                data = bytes(self._received[:found])
                del self._received[: found + len(END_OF_HEAD)]
                return data
            if len(self._received) > LONGEST_HEAD:
                raise HttpError(431, "the head is longer than {} bytes".format(LONGEST_HEAD))
            seen = len(self._received)
            piece = self._in_time(end, self._socket.recv, LONGEST_HEAD)
            if not piece:
                if seen:
                    raise HttpError(400, "the request is cut off")
                return None
            self._received += piece

    def _read(self, length: int, end: float) -> Buffer:
        early = min(length, len(self._received))
        if early == length:
            body = bytes(self._received[:length])
            del self._received[:length]
            return body
        whole = bytearray(length)
        whole[:early] = self._received[:early]
        del self._received[:early]
        with memoryview(whole) as view:
            while early < length:
                count = self._in_time(end, self._socket.recv_into, view[early:])
                if not count:
                    raise HttpError(400, "the body is cut off")
                early += count
        return whole

    def _in_time(self, end: float, receive: Callable[[Any], Any], what: Any) -> Any:
        left = end - time.monotonic()
        try:
            if left <= 0:
                raise socket.timeout
            self._socket.settimeout(left)
            return receive(what)
        except socket.timeout:
            raise HttpError(408, "the request takes too long to arrive") from None

    def _part(self) -> None:
        """Close so that the client can read the answer, though it may be sending still."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            end = time.monotonic() + LINGER
            while time.monotonic() < end:
                self._socket.settimeout(max(0.01, end - time.monotonic()))
                if not self._socket.recv(1 << 16):
                    return
