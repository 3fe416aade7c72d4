"""A server and an engine that does as it is told: limits, refusals, batches, a graceful end."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
from serving import CLASSES, HEIGHT, WIDTH, expected, infer_body, pictures, png

from engines.engine import Engine, EngineError, TensorSpec
from engines.serve import client, connections
from engines.serve.application import Application
from engines.serve.batching import Batcher, Job
from engines.serve.connections import Server
from engines.serve.kserve import Model
from engines.serve.metrics import Metrics
from engines.serve.options import ServeOptions

RELEASE = "0123456789abcdef"
INFER = "/v2/models/demo/infer"
TOKEN = "0123456789abcdef-token"


class Obedient(Engine):
    """Answers as `serving.network(0.01)`, once it may.

    Attributes:
        may: waited for by every batch.
        busy: set as soon as a batch waits.
        batches: sizes of those computed so far.
        threads: those that asked.
    """

    backend, precision = "obedient", "fp32"
    input = TensorSpec("pixels", (None, HEIGHT, WIDTH, 3), "uint8")
    output = TensorSpec("probabilities", (None, 3), "float32")

    def __init__(self) -> None:
        self.may, self.busy = threading.Event(), threading.Event()
        self.may.set()
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.fails = ""
        self.wrong: np.ndarray | None = None

    def infer(self, pixels: np.ndarray) -> np.ndarray:
        self.check_pictures(pixels)
        self.batches.append(len(pixels))
        self.threads.add(threading.get_ident())
        self.busy.set()
        assert self.may.wait(20)
        if self.fails:
            raise EngineError(self.fails)
        return expected(pixels, 0.01).astype(np.float32) if self.wrong is None else self.wrong


class Here:
    """A server in this process."""

    def __init__(self, **options: Any) -> None:
        self.options = ServeOptions(**options)
        self.engine = Obedient()
        self.ended: list[EngineError] = []
        self.looks = 0
        self.may_look = threading.Event()
        self.may_look.set()
        self.batcher = Batcher(
            self.options.max_batch, self.options.max_delay_ms / 1000, self.options.queue,
            lambda *what: self.metrics.computed(*what),
        )  # fmt: skip
        model = Model("demo", RELEASE, "onnxruntime-fp32", "onnxruntime", "fp32", "pixels",
                      HEIGHT, WIDTH, tuple(CLASSES))  # fmt: skip
        self.metrics = Metrics({"release": RELEASE}, 2, {"queue": ("Waiting", lambda: 0)})
        application = Application(model, self.batcher, self.metrics, self.options)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.listener.setblocking(False)
        self.server = Server(
            self.listener, self.options, application.exchange, self.metrics.answered
        )
        self.threads = [
            threading.Thread(target=self._compute),
            threading.Thread(target=self.server.run, args=(self._look,)),
        ]

    def _compute(self) -> None:
        try:
            self.batcher.run(self.engine)
        except EngineError as error:
            self.ended.append(error)

    def _look(self) -> None:
        self.looks += 1
        assert self.may_look.wait(20)

    def __enter__(self) -> Here:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.may.set()
        self.server.stop()
        assert self.server.wait(20)
        self.batcher.close()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Any = None
    ) -> tuple[int, bytes, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), response.headers

    def infer(self, count: int = 1, seed: int = 0) -> int:
        """Ask for some pictures; the status. A good answer is the right one."""
        pixels = pictures(count, seed)
        body, headers = infer_body(pixels)
        status, answer, _ = self.ask("POST", INFER, body, headers)
        if status == 200:
            found = np.array(json.loads(answer)["outputs"][0]["data"]).reshape(count, 3)
            np.testing.assert_allclose(found, expected(pixels, 0.01), atol=1e-6)
        return status


@pytest.fixture
def here() -> Iterator[Here]:
    with Here() as found:
        yield found


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def everything(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(1 << 16):
        found += piece
    return found


@contextmanager
def pool(count: int) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(count) as found:
        yield found


def test_answers_are_right_whoever_asks_beside(here: Here) -> None:
    with pool(16) as clients:
        jobs = [clients.submit(here.infer, 1 + n % 11, n) for n in range(200)]
        assert {job.result() for job in jobs} <= {200}
    assert sum(here.engine.batches) == sum(1 + n % 11 for n in range(200))
    assert max(here.engine.batches) <= here.options.max_batch
    assert len(here.engine.threads) == 1


def test_requests_that_wait_are_computed_together(here: Here) -> None:
    here.engine.may.clear()
    with pool(5) as clients:
        first = clients.submit(here.infer)
        assert here.engine.busy.wait(20)
        rest = [clients.submit(here.infer, 3, n) for n in range(4)]
        until(lambda: here.batcher.waiting == 4)
        here.engine.may.set()
        assert {job.result() for job in [first, *rest]} == {200}
    assert here.engine.batches == [1, 6, 6]


def test_a_request_waits_for_one_on_its_way_and_for_none_else() -> None:
    with Here(max_delay_ms=1000) as here:
        begun = time.monotonic()
        assert here.infer() == 200
        assert time.monotonic() - begun < 0.9  # nobody else was on the way
        body, _ = infer_body(pictures(1))
        with here.connect() as slow:
            slow.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                         % (INFER.encode(), len(body)))  # fmt: skip
            until(lambda: here.batcher._coming == 1)
            with pool(1) as clients:
                job = clients.submit(here.infer)
                until(lambda: here.batcher.waiting == 1)
                assert len(here.engine.batches) == 1
                slow.close()  # it will not come
                assert job.result() == 200
        assert here.engine.batches == [1, 1]


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    with Here(queue=2) as here:
        here.engine.may.clear()
        with pool(3) as clients:
            jobs = [clients.submit(here.infer)]
            assert here.engine.busy.wait(20)
            jobs += [clients.submit(here.infer) for _ in range(2)]
            until(lambda: here.batcher.waiting == 2)
            body, headers = infer_body(pictures(1))
            status, answer, about = here.ask("POST", INFER, body, headers)
            assert (status, about["Retry-After"]) == (503, "1")
            assert "wait" in json.loads(answer)["error"]
            here.engine.may.set()
            assert [job.result() for job in jobs] == [200] * 3
        assert here.infer() == 200


def test_an_answer_too_late_is_504_and_its_request_is_not_computed() -> None:
    with Here(timeout_s=0.3) as here:
        here.engine.may.clear()
        with pool(2) as clients:
            jobs = [clients.submit(here.infer)]
            assert here.engine.busy.wait(20)
            jobs.append(clients.submit(here.infer))
            assert [job.result() for job in jobs] == [504, 504]
        here.engine.may.set()
        assert here.infer(2) == 200
        assert here.engine.batches == [1, 2]


def test_an_engine_that_fails_is_told_and_given_up_after_three(here: Here) -> None:
    here.engine.fails = "out of\nmemory"
    body, headers = infer_body(pictures(1))
    for _ in range(2):
        status, answer, _ = here.ask("POST", INFER, body, headers)
        assert (status, json.loads(answer)) == (
            500, {"error": "the engine failed: out of\\nmemory"})  # fmt: skip
    here.engine.fails = ""
    assert here.infer() == 200 and not here.ended
    here.engine.fails = "CUDA"
    assert [here.infer() for _ in range(3)] == [500] * 3
    until(lambda: here.ended)
    assert here.infer() == 503


def test_requests_that_can_not_be_put_together_get_an_answer() -> None:
    batcher = Batcher(8, 0.0, 8, lambda *_: None)
    jobs = [Job(pictures(1)), Job(pictures(1)[:, 1:])]
    batcher._waiting.extend(jobs)
    batcher.close()
    batcher.run(Obedient())
    assert [job.error.status for job in jobs if job.error] == [500, 500]
    assert all(job.done.is_set() for job in jobs)


@pytest.mark.parametrize(
    "wrong", [np.full((1, 3), np.nan, np.float32), np.zeros((2, 3), np.float32)]
)
def test_an_answer_that_is_none_is_not_passed_on(here: Here, wrong: np.ndarray) -> None:
    here.engine.wrong = wrong
    assert here.infer() == 500


def test_sizes_are_limited() -> None:
    with Here(max_request_mb=1) as here:
        status, answer, _ = here.ask("POST", "/classify", bytes((1 << 20) + 1))
        assert (status, json.loads(answer)["error"]) == (413, "a request has at most 1048576 bytes")
        packed = gzip.compress(bytes(1 << 24))
        assert here.ask("POST", INFER, packed, {"Content-Encoding": "gzip"})[0] == 413
        assert here.ask("POST", "/classify", bytes(1 << 20))[0] == 400  # no picture, but no larger
        with here.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000)
            assert everything(connection).startswith(b"HTTP/1.1 431 ")


def test_who_sends_far_too_much_can_read_why_not() -> None:
    with Here(max_request_mb=1) as here:
        for _ in range(5):
            with here.connect() as connection:
                connection.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
                                   b"Content-Length: %d\r\n\r\n" % (16 << 20))  # fmt: skip
                connection.sendall(bytes(16 << 20))
                connection.shutdown(socket.SHUT_WR)
                assert everything(connection).startswith(b"HTTP/1.1 413 ")


def test_all_bodies_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODIES", 2)
    with Here(max_request_mb=1) as here:
        ask = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (
            1 << 20
        )
        with here.connect() as one, here.connect() as two:
            for connection in (one, two):
                connection.sendall(ask)
            until(lambda: here.server._held == 2 << 20)
            assert here.ask("POST", "/classify", b"x")[0] == 503
        until(lambda: here.server._held == 0)
        assert here.ask("POST", "/classify", b"x")[0] == 400


@pytest.mark.parametrize("before", [b"", b"POST /classify HTTP/1.1\r\nHost: localhost\r\n"
                                    b"Content-Length: 1000000\r\n\r\n"])  # fmt: skip
def test_who_sends_too_slowly_is_sent_away(before: bytes) -> None:
    with Here(timeout_s=0.5) as here, here.connect() as connection:
        connection.sendall(before)
        connection.settimeout(0.05)
        begun, found = time.monotonic(), b""
        while not found:  # a byte now and then
            assert time.monotonic() - begun < 10
            connection.sendall(b"G")
            try:
                found = connection.recv(1000)
            except TimeoutError:
                continue
        assert found.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun < 5


def test_who_says_nothing_is_sent_away() -> None:
    with Here(timeout_s=0.3) as here, here.connect() as connection:
        assert everything(connection) == b""
        until(lambda: here.server.open == 0)


def test_connections_are_limited() -> None:
    with Here(connections=3, timeout_s=5) as here:
        idle = [here.connect() for _ in range(3)]
        until(lambda: here.server.open == 3)
        status, _, about = here.ask("GET", "/v2/health/live")
        assert (status, about["Retry-After"], about["Connection"]) == (503, "1", "close")
        for connection in idle:
            connection.close()
        until(lambda: here.server.open == 0)
        assert here.ask("GET", "/v2/health/live")[0] == 200


def test_far_too_many_connections_wait_and_are_served_in_the_end() -> None:
    with Here(connections=2, timeout_s=1) as here:
        idle = [here.connect() for _ in range(20)]
        time.sleep(0.2)
        assert here.server.open <= 4
        for connection in idle:
            connection.close()
        until(lambda: here.ask("GET", "/v2/health/live")[0] == 200)


def test_no_thread_for_a_connection_is_not_the_end(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with here.connect() as connection:
            assert everything(connection) == b""
        until(lambda: here.server.open == 0)
    assert here.ask("GET", "/v2/health/live")[0] == 200


def test_who_comes_after_the_end_does_not_put_it_off() -> None:
    """Of two servers at one socket, the old one leaves the new connections to the new one."""
    accepted = []

    class Endless(socket.socket):
        def accept(self) -> Any:
            accepted.append(0)
            assert len(accepted) < 1000
            ours, theirs = socket.socketpair()
            theirs.close()
            return ours, ""

    def exchange(_: Any) -> Any:
        raise AssertionError("nobody asks")

    server = Server(Endless(), ServeOptions(), exchange, lambda _: None)
    server.stop()
    server.run(lambda: None)
    assert server.wait(20)
    assert connections.BACKLOG <= len(accepted) < 1000


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, b"nonsense\r\n\r\n"),
        (411, b"POST /classify HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (400, b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
              b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        (411, b"POST /classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
              b"0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (400, b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
              b"Content-Length: 50\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (415, b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n"
              b"Content-Encoding: br\r\nConnection: close\r\n\r\nx"),
        (400, b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx"),
        (400, b"GET / HTTP/1.1\r\nHost: lo"),
    ],
)  # fmt: skip
def test_a_bad_request_gets_one_answer_and_the_connection_is_closed(
    here: Here, status: int, request_: bytes
) -> None:
    with here.connect() as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    json.loads(answer.partition(b"\r\n\r\n")[2])


def test_one_connection_carries_many_requests_even_after_an_error(here: Here) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", here.port, timeout=20)) as connection:
        sockets = set()
        good = png(pictures(1)[0])
        for path, body, status in [
            ("/classify", b"x", 400),
            ("/classify", good, 200),
            ("/v2/models/x/infer", b"{}", 404),
        ]:
            connection.request("POST", path, body)
            sockets.add(connection.sock)
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (status, True)
        assert len(sockets) == 1


def test_requests_sent_at_once_are_answered_in_order(here: Here) -> None:
    with here.connect() as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
                           b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                           b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n"
                           b"Connection: close\r\n\r\n")  # fmt: skip
        answer = everything(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"404"]
    assert b"extensions" not in answer  # HEAD


def test_a_body_is_asked_for_only_after_its_head_was_accepted(here: Here) -> None:
    ask = (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    )
    with here.connect() as connection:
        connection.sendall(ask % b"/classify")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"x")
        assert connection.recv(12) == b"HTTP/1.1 400"
    with here.connect() as connection:
        connection.sendall(ask % b"/nowhere")
        assert connection.recv(12) == b"HTTP/1.1 404"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {}),
        (200, {"Host": "localhost:1234"}),
        (200, {"Host": "[::1]:80"}),
        (200, {"Host": "127.0.0.1"}),
        (403, {"Host": "evil.example"}),
        (403, {"Host": "localhost.evil.example"}),
        (403, {"Host": "127.0.0.1.evil.example:80"}),
        (403, {"Host": "127.0.0.1@evil.example"}),
        (403, {"Host": ""}),
        (200, {"Host": "localhost:8000", "Origin": "http://localhost:8000"}),
        (403, {"Host": "localhost:8000", "Origin": "http://localhost:9000"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "https://evil.example"}),
    ],
)
def test_pages_of_others_may_not_ask(here: Here, status: int, headers: dict[str, str]) -> None:
    assert here.ask("POST", "/classify", png(pictures(1)[0]), headers)[0] == status


def test_a_token_is_asked_for_before_anything_else() -> None:
    with Here(token=TOKEN, host="0.0.0.0") as here:
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            assert here.ask("GET", path)[0] == 200
        for wrong in ("", TOKEN, "Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Basic {TOKEN}",
                      f"Bearer {TOKEN[:-1]}\xe9"):  # fmt: skip
            for method, path in [("GET", "/metrics"), ("POST", INFER), ("GET", "/nowhere")]:
                status, answer, about = here.ask(method, path, b"x", {"Authorization": wrong})
                assert (status, about["WWW-Authenticate"]) == (401, "Bearer")
                assert TOKEN.encode() not in answer
        for right in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
            headers = {"Authorization": right, "Host": "device.example"}
            assert here.ask("GET", "/metrics", None, headers)[0] == 200


def test_figures_for_prometheus_and_triton(here: Here) -> None:
    assert [here.infer(3), here.infer(2), here.ask("GET", "/nowhere")[0]] == [200, 200, 404]
    status, answer, about = here.ask("GET", "/metrics")
    assert status == 200 and about["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = answer.decode().splitlines()
    for line in [f'edgetrt_release_info{{release="{RELEASE}"}} 1',
                 "edgetrt_worker_restarts_total 2", 'edgetrt_responses_total{code="200"} 2',
                 'edgetrt_responses_total{code="404"} 1', "edgetrt_pictures_total 5",
                 'edgetrt_batch_pictures_bucket{le="2"} 1', "edgetrt_batch_pictures_count 2",
                 "edgetrt_queue 0"]:  # fmt: skip
        assert line in lines
    sample = re.compile(r"[a-z_]+(\{[a-z]+=\"[^\"]*\"(,[a-z]+=\"[^\"]*\")*\})? [0-9.e+-]+")
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)
    found = json.loads(here.ask("GET", "/v2/models/stats")[1])["model_stats"][0]
    assert (found["inference_count"], found["execution_count"]) == (5, 2)
    assert found["inference_stats"]["success"]["count"] == 2


def test_what_is_in_hand_is_answered_before_the_end() -> None:
    with Here() as here:
        here.engine.may.clear()
        kept = http.client.HTTPConnection("127.0.0.1", here.port, timeout=20)
        kept.request("GET", "/v2")
        assert kept.getresponse().read()
        with pool(4) as clients:
            jobs = [clients.submit(here.infer)]
            assert here.engine.busy.wait(20)
            jobs += [clients.submit(here.infer, 1, n) for n in range(3)]
            until(lambda: here.batcher.waiting == 3)
            here.server.stop()
            until(lambda: not here.threads[1].is_alive())
            kept.request("GET", "/v2")  # on a connection that was open before
            response = kept.getresponse()
            assert (response.status, response.headers["Connection"]) == (200, "close")
            with pytest.raises(ConnectionRefusedError):
                here.connect()
            here.engine.may.set()
            assert [job.result() for job in jobs] == [200] * 4
        kept.close()


def test_who_came_before_the_end_is_let_in_still() -> None:
    with Here() as here:
        looks = here.looks
        here.may_look.clear()
        until(lambda: here.looks > looks)
        with pool(4) as clients:
            jobs = [clients.submit(here.infer, 1, n) for n in range(4)]
            time.sleep(0.2)  # they wait in the backlog
            assert here.server.open == 0
            here.server.stop()
            here.may_look.set()
            assert [job.result() for job in jobs] == [200] * 4


def test_the_client_asks_for_no_more_at_a_time_than_servers_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = pictures(20)
    with Here(max_batch=64) as here:
        engine = client.RemoteEngine("127.0.0.1", here.port)
        np.testing.assert_allclose(engine.infer(pixels), expected(pixels, 0.01), atol=1e-6)
        assert here.engine.batches == [8, 8, 4]
        monkeypatch.setattr(client, "BODY", 3 * pixels[0].nbytes)
        engine.infer(pixels[:7])
        assert here.engine.batches[3:] == [3, 3, 1]


def test_an_engine_that_does_not_come_back_is_seen() -> None:
    with Here(timeout_s=0.2) as here:
        assert here.ask("GET", "/v2/health/ready")[0] == 200
        here.engine.may.clear()
        assert here.infer() == 504
        until(lambda: here.ask("GET", "/v2/health/ready")[0] == 503)
        assert here.ask("GET", "/v2/models/demo/ready")[0] == 503
        assert here.ask("GET", "/v2/health/live")[0] == 200
        looks = here.looks
        until(lambda: here.looks > looks + 1)  # though nobody asks
        here.engine.may.set()
        until(lambda: here.ask("GET", "/v2/health/ready")[0] == 200)
