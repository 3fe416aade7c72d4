"""A release that is served: Triton's own client, many at once; switches, deaths and ends."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from serving import (
    CLASSES,
    HEIGHT,
    WIDTH,
    Served,
    add_release,
    alive,
    expected,
    infer_body,
    network,
    pictures,
    png,
    point,
    program,
)

from engines.bundle.manifest import parse
from engines.engine import EngineError
from engines.serve import client
from engines.serve.options import ServeOptions
from engines.serve.supervisor import Supervisor, serve

TOKEN = "0123456789abcdef-token"
SCALE = 0.01
CUT_OFF = re.compile(
    "Reset|Disconnected|IncompleteRead|BrokenPipe|ConnectionClosed"
)  # how clients say it


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of one release, which no test changes."""
    root = tmp_path_factory.mktemp("root")
    point(root, add_release(root, SCALE))
    with Served(root) as found:
        yield found


def release_of(served: Served) -> str:
    return str(served.state()["release"])


def tensor(pixels: np.ndarray, binary: bool) -> triton.InferInput:
    found = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    found.set_data_from_numpy(pixels, binary_data=binary)
    return found


def test_triton_client_learns_what_is_served(served: Served) -> None:
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{served.port}")) as asking:
        assert asking.is_server_live() and asking.is_server_ready()
        release = release_of(served)
        assert asking.is_model_ready("demo") and asking.is_model_ready("demo", release)
        assert not asking.is_model_ready("other") and not asking.is_model_ready("demo", "1")
        assert asking.get_server_metadata()["name"] == "edgetrt"
        about = asking.get_model_metadata("demo")
        assert about["versions"] == [release]
        assert about["inputs"] == [
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, HEIGHT, WIDTH, 3]}
        ]
        assert about["outputs"] == [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(CLASSES)]}
        ]
        index = asking.get_model_repository_index()
        assert index == [{"name": "demo", "version": release, "state": "READY", "reason": ""}]
        stats = asking.get_inference_statistics("demo")["model_stats"]
        assert asking.get_inference_statistics()["model_stats"][0]["name"] == stats[0]["name"]
        with pytest.raises(triton.InferenceServerException, match="the version here is"):
            asking.infer("demo", [tensor(pictures(1), True)], "1")
        with pytest.raises(triton.InferenceServerException, match="has shape"):
            asking.infer("demo", [tensor(pictures(1)[:, 1:], True)])


@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_output", [True, False, None])
@pytest.mark.parametrize("binary_input", [True, False])
def test_triton_client_gets_right_answers(
    served: Served, binary_input: bool, binary_output: bool | None, packed: str | None
) -> None:
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{served.port}")) as asking:
        outputs = None
        if binary_output is not None:
            outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary_output)]
        for count in (1, 2, 20):
            pixels = pictures(count, count)
            answer = asking.infer(
                "demo", [tensor(pixels, binary_input)], outputs=outputs, request_id=f"n{count}",
                request_compression_algorithm=packed, response_compression_algorithm=packed,
            )  # fmt: skip
            found = answer.as_numpy("probabilities")
            assert found.dtype == np.float32 and found.shape == (count, 3)
            np.testing.assert_allclose(found, expected(pixels, SCALE), atol=1e-6)
            about = answer.get_response()
            assert (about["id"], about["model_version"]) == (f"n{count}", release_of(served))


@pytest.mark.parametrize("binary", [True, False])
def test_triton_client_gets_classes_by_name(served: Served, binary: bool) -> None:
    pixels = pictures(3)
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)
    with contextlib.closing(triton.InferenceServerClient(f"127.0.0.1:{served.port}")) as asking:
        answer = asking.infer("demo", [tensor(pixels, True)], outputs=[wanted])
    found = answer.as_numpy("probabilities")
    assert found.shape == (3, 2)
    for row, probabilities in zip(found, expected(pixels, SCALE), strict=True):
        for text, place in zip(row, np.argsort(-probabilities), strict=False):
            text = text.decode() if isinstance(text, bytes) else text
            value, number, label = text.split(":")
            assert (int(number), label) == (place, CLASSES[place])
            assert float(value) == pytest.approx(probabilities[place], abs=2e-6)


def test_several_triton_clients_at_once(served: Served) -> None:
    def many(seed: int) -> int:
        address = f"127.0.0.1:{served.port}"
        with contextlib.closing(triton.InferenceServerClient(address)) as asking:
            for step in range(25):
                pixels = pictures(1 + (seed + step) % 4, 1000 * seed + step)
                answer = asking.infer("demo", [tensor(pixels, step % 2 == 0)])
                np.testing.assert_allclose(
                    answer.as_numpy("probabilities"), expected(pixels, SCALE), atol=1e-6
                )
        return 25

    with ThreadPoolExecutor(8) as clients:
        assert sum(clients.map(many, range(8))) == 200


def test_a_picture_file_is_classified(served: Served) -> None:
    pixels = pictures(1, 5)
    status, answer, _ = served.ask("POST", "/classify", png(pixels[0]))
    found = json.loads(answer)
    assert (status, found["release"]) == (200, release_of(served))
    assert found["engine"] == "onnxruntime-fp32"
    wanted = sorted(zip(expected(pixels, SCALE)[0], CLASSES, strict=True), reverse=True)
    assert [top["label"] for top in found["top"]] == [label for _, label in wanted]
    assert [top["probability"] for top in found["top"]] == pytest.approx([p for p, _ in wanted])


def test_client_asks_as_the_health_check_does(served: Served) -> None:
    found = client.ready("127.0.0.1", served.port)
    assert found is not None
    assert (found["name"], found["release"]) == ("demo", release_of(served))
    assert (found["engine"], found["precision"]) == ("onnxruntime-fp32", "fp32")
    folder = served.root / "releases" / found["release"]
    manifest = parse((folder / "manifest.json").read_bytes())
    assert client.golden("127.0.0.1", served.port, manifest, folder).ok
    other = manifest._replace(id="f" * 16)
    with pytest.raises(EngineError, match="serves release"):
        client.golden("127.0.0.1", served.port, other, folder)
    manifest.data["golden"]["cases"][0]["probabilities"]["fp32"] = [0, 0, 1]
    assert not client.golden("127.0.0.1", served.port, manifest, folder).ok
    assert client.ready("127.0.0.1", 1) is None


def test_server_with_a_token_tells_it_to_nobody(tmp_path: Path) -> None:
    point(tmp_path, add_release(tmp_path, SCALE))
    with Served(tmp_path, token=TOKEN) as served:
        pids = [served.process.pid, served.state()["worker"]]
        for pid in pids:
            assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            assert TOKEN.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert served.ask("GET", "/metrics", None, {"Authorization": "Bearer no"})[0] == 401
        assert served.ask("GET", "/metrics")[0] == 200
        found = client.ready("127.0.0.1", served.port, TOKEN)
        assert found is not None and found["release"] == release_of(served)
        with pytest.raises(EngineError, match="another token"):
            client.ready("127.0.0.1", served.port)
        assert served.state()["token"] is True
        assert TOKEN not in (tmp_path / "serve.json").read_text()
    assert TOKEN not in served.said()


class Asking:
    """Clients that ask one server in a loop, each on a connection that it keeps or on new ones."""

    def __init__(self, served: Served, scales: dict[str, float], clients: int = 4) -> None:
        self.served, self.scales = served, scales
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.missing: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        ways = (self._ask_anew, self._ask_on, self._ask_as_triton)
        self._threads = [
            threading.Thread(target=ways[n % len(ways)], args=(n,)) for n in range(clients)
        ]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def until(self, release: str, count: int) -> None:
        """Wait for so many more answers of a release."""
        wanted, end = self.answers[release] + count, time.monotonic() + 30
        while self.answers[release] < wanted:
            assert time.monotonic() < end, (self.answers, self.missing[:3])
            time.sleep(0.01)

    def _ask_anew(self, seed: int) -> None:
        while not self._stop.is_set():
            seed += 100
            self._see(seed, lambda body, headers: self._post(self._connect(), body, headers))

    def _ask_on(self, seed: int) -> None:
        """On one connection for as long as the server keeps it."""
        connection = self._connect()
        while not self._stop.is_set():
            seed += 100
            self._see(seed, lambda body, headers: self._post(connection, body, headers))
        connection.close()

    def _ask_as_triton(self, seed: int) -> None:
        address = f"127.0.0.1:{self.served.port}"
        with contextlib.closing(triton.InferenceServerClient(address)) as asking:
            while not self._stop.is_set():
                seed += 100
                asked = [tensor(pictures(1, seed), True)]
                wanted = [triton.InferRequestedOutput("probabilities", binary_data=False)]
                self._see(seed, lambda *_, a=asked, w=wanted: (
                    asking.infer("demo", a, outputs=w).get_response()
                ))  # fmt: skip

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=30)

    def _post(self, connection: http.client.HTTPConnection, body: bytes, headers: Any) -> Any:
        try:
            connection.request("POST", "/v2/models/demo/infer", body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            assert response.status == 200, answer
        except BaseException:
            connection.close()
            raise
        return answer

    def _see(self, seed: int, ask: Any) -> None:
        """Ask, and see what comes."""
        pixels = pictures(1, seed)
        try:
            answer = ask(*infer_body(pixels))
        except Exception as error:  # whatever way there is to get no answer
            self.missing.append(repr(error))
            return
        release = answer["model_version"]
        with self._lock:
            self.answers[release] += 1
        right = expected(pixels, self.scales[release])[0]
        if not np.allclose(answer["outputs"][0]["data"], right, atol=1e-6):
            self.wrong.append(answer)


def test_switches_under_load_lose_nothing_and_mix_nothing(tmp_path: Path) -> None:
    """Each release is run by its own program."""
    one = add_release(tmp_path, 0.01, program=program("1.1"))
    two = add_release(tmp_path, -0.01, program=program("2.2"))
    point(tmp_path, one)
    with Served(tmp_path) as served, Asking(served, {one: 0.01, two: -0.01}) as asking:
        for release, version in [(two, "2.2"), (one, "1.1"), (two, "2.2")]:
            asking.until(release_of(served), 50)
            point(tmp_path, release)
            state = served.until(
                lambda s, wanted=release: (s["release"], s["state"]) == (wanted, "serving")
            )
            assert state["engine"] == "onnxruntime-fp32"
            asking.until(release, 50)
            about = json.loads(served.ask("GET", "/v2")[1])
            assert about["version"] == version
    assert asking.wrong == [] and asking.missing == []
    assert asking.answers[one] >= 100 and asking.answers[two] >= 100


def test_the_same_release_put_in_place_again_is_loaded_again(tmp_path: Path) -> None:
    release = add_release(tmp_path, SCALE)
    point(tmp_path, release)
    with Served(tmp_path) as served, Asking(served, {release: SCALE}) as asking:
        worker = served.state()["worker"]
        point(tmp_path, release)
        served.until(lambda s: s["worker"] not in (None, worker) and s["state"] == "serving")
        asking.until(release, 50)
    assert asking.wrong == [] and asking.missing == []


@pytest.mark.parametrize(
    "fault", ["golden", "engine", "graph", "program", "named program", "gone", "unfinished"]
)
def test_a_release_that_does_not_work_leaves_the_old_one_serving(
    tmp_path: Path, fault: str
) -> None:
    good = add_release(tmp_path, 0.01)
    bad = add_release(tmp_path, 0.02, wrong=fault == "golden")
    folder = tmp_path / "releases" / bad
    if fault == "engine":
        file = folder / "engines" / "onnxruntime-fp32.onnx"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    elif fault == "graph":
        (folder / "onnx" / "model.fp32.onnx").write_bytes(network(0.03))
    elif fault == "program":
        (folder / "program.pyz").write_bytes(b"raise SystemExit(7)")
    elif fault == "named program":  # that of release.json goes before any other
        (folder / "program.pyz").write_bytes(b"raise SystemExit(7)")
        about = json.loads((folder / "release.json").read_text())
        (folder / "release.json").write_text(json.dumps({**about, "program": "5" * 64}))
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / ("5" * 64)).write_bytes(b"raise SystemExit(8)")
    elif fault == "gone":
        folder.rename(tmp_path / "elsewhere")
    elif fault == "unfinished":
        (folder / "release.json").write_text('{"engine": "onnxruntime-fp32", "complete": false}')
    reason = {"golden": "answers wrong", "engine": "not the file that was built",
              "graph": "not built from this release", "program": "ended with exit code 7",
              "named program": "ended with exit code 8",
              "gone": "is gone", "unfinished": "unfinished"}[fault]  # fmt: skip
    point(tmp_path, good)
    with Served(tmp_path) as served, Asking(served, {good: 0.01, bad: 0.02}, 2) as asking:
        worker = served.state()["worker"]
        point(tmp_path, bad)
        state = served.until(lambda s: s["state"] == "failed")
        assert reason in state["reason"] and reason in served.said()
        assert (state["release"], state["worker"], state["wanted"]) == (good, worker, bad)
        asking.until(good, 50)
        point(tmp_path, good)  # as a rollback does
        served.until(lambda s: (s["release"], s["state"]) == (good, "serving"))
        asking.until(good, 20)
    assert asking.wrong == [] and asking.missing == []
    assert set(asking.answers) == {good}


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    release = add_release(tmp_path, SCALE)
    point(tmp_path, release)
    with Served(tmp_path) as served:
        for target in ("../elsewhere", "releases/../../x", "/etc", "releases/.tmp-staging"):
            (tmp_path / ".tmp-current").symlink_to(target)
            (tmp_path / ".tmp-current").replace(tmp_path / "current")
            served.until(lambda s: s["wanted"] is None)
            assert served.ask("GET", "/v2/health/ready")[0] == 200
        point(tmp_path, release)
        served.until(lambda s: s["state"] == "serving")


def test_at_the_start_a_broken_release_gives_way_to_the_one_before(tmp_path: Path) -> None:
    good = add_release(tmp_path, 0.01)
    bad = add_release(tmp_path, 0.02, wrong=True)
    history = [{"release": good, "event": "deployed"}, {"release": bad, "event": "deployed"}]
    (tmp_path / "history.json").write_text(json.dumps(history))
    point(tmp_path, bad)
    with Served(tmp_path) as served:
        state = served.until(lambda s: s["release"] == good)
        assert state["state"] == "failed" and "answers wrong" in state["reason"]
        assert served.ask("GET", "/v2/health/ready")[0] == 200


def test_a_worker_killed_is_started_again(tmp_path: Path) -> None:
    release = add_release(tmp_path, SCALE)
    earlier = add_release(tmp_path, 0.02)
    (tmp_path / "history.json").write_text(json.dumps([{"release": earlier}, {"release": release}]))
    point(tmp_path, release)
    with Served(tmp_path) as served, Asking(served, {release: SCALE}) as asking:
        for times in (1, 2):
            asking.until(release, 30)
            worker = served.state()["worker"]
            os.kill(worker, signal.SIGKILL)
            state = served.until(
                lambda s, dead=worker: s["state"] == "serving" and s["worker"] not in (None, dead)
            )
            assert state["release"] == release
            asking.until(release, 30)
            metrics = served.ask("GET", "/metrics")[1].decode()
            assert f"\nedgetrt_worker_restarts_total {times}\n" in metrics
    assert asking.wrong == []
    # At most what each client had in hand at the two moments; whoever came later has waited.
    assert len(asking.missing) <= 8
    assert [text for text in asking.missing if not CUT_OFF.search(text)] == []
    assert "signal 9" in served.said()


FAILING = """
import time
from engines.engine import EngineError
from engines.serve import worker
load, worker.HANGS = worker.load_engine, 0.5
def failing(*arguments):
    engine = load(*arguments)
    infer, asked = engine.infer, []
    def once_too_often(pixels):
        asked.append(pixels)
        if len(asked) > 10:
            FAULT
        return infer(pixels)
    engine.infer = once_too_often
    return engine
worker.load_engine = failing
"""


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("raise EngineError('CUDA')", 500, "3 batches failed one after the other"),
        ("time.sleep(1000)", 504, "does not come back"),
    ],
)
def test_an_engine_that_fails_for_good_is_loaded_anew(
    tmp_path: Path, fault: str, status: int, reason: str
) -> None:
    own = program("1.1", FAILING.replace("FAULT", fault))
    point(tmp_path, add_release(tmp_path, SCALE, program=own))
    with Served(tmp_path, timeout_s=0.4) as served:
        worker, found = served.state()["worker"], Counter[int]()
        for seed in range(11):
            pixels = pictures(1, seed)
            found[served.ask("POST", "/v2/models/demo/infer", *infer_body(pixels))[0]] += 1
            if status in found:
                break
        assert found[status] == 1 and found[200] >= 5
        while status == 500 and served.state()["worker"] == worker:
            with contextlib.suppress(OSError, http.client.HTTPException):
                served.ask("POST", "/v2/models/demo/infer", *infer_body(pictures(1)))
        served.until(lambda s: s["worker"] not in (None, worker) and s["state"] == "serving")
        assert served.ask("POST", "/v2/models/demo/infer", *infer_body(pictures(1)))[0] == 200
        assert b"\nedgetrt_worker_restarts_total 1\n" in served.ask("GET", "/metrics")[1]
        assert reason in served.said()


@pytest.mark.parametrize("moment", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_end_answers_what_it_has(tmp_path: Path, moment: signal.Signals) -> None:
    graph = network(SCALE, work=1500)  # takes a while
    release = add_release(tmp_path, SCALE, graph=graph)
    point(tmp_path, release)
    with Served(tmp_path, max_batch=1) as served:
        worker = served.state()["worker"]

        def ask(seed: int) -> int:
            pixels = pictures(1, seed)
            status, answer, _ = served.ask("POST", "/v2/models/demo/infer", *infer_body(pixels))
            found = json.loads(answer)["outputs"][0]["data"]
            np.testing.assert_allclose(found, expected(pixels, SCALE)[0], atol=1e-6)
            return status

        with ThreadPoolExecutor(8) as clients:
            jobs = [clients.submit(ask, n) for n in range(8)]
            end = time.monotonic() + 20
            while b"\nedgetrt_connections 9\n" not in served.ask("GET", "/metrics")[1]:
                assert time.monotonic() < end
            assert not any(job.done() for job in jobs[4:])
            served.process.send_signal(moment)
            assert [job.result() for job in jobs] == [200] * 8
        assert served.process.wait(20) == 0
        assert not alive(worker)
        assert not (tmp_path / "serve.json").exists()
        with pytest.raises(ConnectionRefusedError):
            served.ask("GET", "/v2")


def test_a_worker_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    point(tmp_path, add_release(tmp_path, SCALE))
    with Served(tmp_path) as served:
        worker = served.state()["worker"]
        served.process.kill()
        served.process.wait()
        end = time.monotonic() + 20
        while alive(worker):
            assert time.monotonic() < end
            time.sleep(0.02)
    with Served(tmp_path, port=served.port) as again:  # and left nothing in its way
        assert again.ask("GET", "/v2/health/ready")[0] == 200


def test_a_full_disk_does_not_end_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = add_release(tmp_path, 0.01), add_release(tmp_path, 0.02)
    point(tmp_path, one)
    tried: list[str] = []

    def full(file: Path, value: dict[str, Any]) -> None:
        tried.append(value["release"])
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    def say(text: str) -> None:
        said.append(text)
        raise OSError(errno.ENOSPC, "No space left on device")

    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        supervisor = Supervisor(tmp_path, ServeOptions(port=port), listener, say)
        monkeypatch.setattr("engines.serve.supervisor.write_json", full)
        try:
            while tried[-1:] != [one]:
                supervisor.look()
            point(tmp_path, two)
            while tried[-1:] != [two]:
                supervisor.look()
            monkeypatch.undo()
            while not (tmp_path / "serve.json").exists():
                supervisor.look()
            found = client.ready("127.0.0.1", port)
            assert found is not None and found["release"] == two
        finally:
            supervisor.end()
    assert sum("No space left" in text for text in said) == 1


def test_one_server_for_a_folder(tmp_path: Path) -> None:
    point(tmp_path, add_release(tmp_path, SCALE))
    with Served(tmp_path) as served:
        with pytest.raises(EngineError, match="another server is at work"):
            serve(tmp_path, ServeOptions(port=0), print)
        other = tmp_path / "other"
        point(other, add_release(other, SCALE))
        with pytest.raises(EngineError, match="choose another --port"):
            serve(other, ServeOptions(port=served.port), print)


def test_what_can_not_be_served_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no release is deployed"):
        serve(tmp_path, ServeOptions(port=0), print)
    with pytest.raises(EngineError, match="token"):
        serve(tmp_path, ServeOptions(port=0, host="0.0.0.0"), print)
    said: list[str] = []
    point(tmp_path, add_release(tmp_path, SCALE, wrong=True))
    with pytest.raises(EngineError, match="nothing can be served: .* answers wrong"):
        serve(tmp_path, ServeOptions(port=0), said.append)
    assert not (tmp_path / "serve.json").exists()
