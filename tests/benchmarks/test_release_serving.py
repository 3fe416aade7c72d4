"""Deploying under a server that answers all the while, and one that is started or proves bad."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from releases import ASKED, ENGINE, Made, bundle, deploy, quick_disk
from serving import expected, pictures

from benchmarks import loadgen
from benchmarks.device.cli import main
from benchmarks.device.release import engines, health
from benchmarks.device.release.here import install_file
from benchmarks.device.release.install import roll_back
from benchmarks.device.release.steps import Steps
from benchmarks.device.release.store import Store
from benchmarks.progress import Console
from benchmarks.scenarios import Effort
from engines.bundle.archive import write
from engines.bundle.golden import Golden
from engines.bundle.manifest import parse
from engines.engine import EngineError
from engines.files import write_json
from engines.serve.client import RemoteEngine, ready
from pipeline.device_package import program

REPOSITORY = Path(__file__).parents[2]
A, B = bundle(0.01), bundle(0.02)
SCALES = {A.id: 0.01, B.id: 0.02}
__all__ = ["quick_disk"]  # a fixture


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "EFFORT", Effort("quick", 2, 0.0, 1, 0.001, 0.01))
    monkeypatch.setattr(loadgen, "compare", lambda *_: {"reason": "not measured"})


@pytest.fixture
def root(quick_disk: Path) -> Iterator[Path]:
    root = quick_disk / "edgetrt"
    yield root
    found = health.server(Store(root))
    if found is not None:  # one that was started
        os.kill(found.word["pid"], signal.SIGTERM)
        end = time.monotonic() + 30
        while health.server(Store(root)) is not None:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture
def served(root: Path) -> Iterator[Path]:
    """A root whose release A is served by the program, started by hand."""
    deploy(root, A)
    process = start(root)
    yield root
    process.terminate()
    process.wait(30)


def start(root: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.device", "serve", "--root", str(root), "--port", "0"],
        cwd=REPOSITORY,
    )
    end = time.monotonic() + 60
    while state(root).get("state") != "serving":
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


def state(root: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((root / "serve.json").read_text())
    except FileNotFoundError:
        return {}
    return found


class Asking:
    """A client that asks again and again, and counts what was not right."""

    def __init__(self, root: Path) -> None:
        self.port = state(root)["port"]
        self.right: dict[str, int] = {}
        self.wrong: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        asked = pictures(2, seed=4)
        while not self._ended.is_set():
            try:
                engine = RemoteEngine("127.0.0.1", self.port)
                engine._path = "/v2/models/demo/infer"  # of whatever release
                found = engine.infer(asked)
            except EngineError as error:
                self.wrong.append(str(error))
                continue
            fits = [r for r, scale in SCALES.items()
                    if np.abs(found - expected(asked, scale)).max() < 1e-3]  # fmt: skip
            if fits:
                self.right[fits[0]] = self.right.get(fits[0], 0) + 1
            else:
                self.wrong.append(f"{found}")


def test_nobody_notices_a_deployment_but_by_its_answers(served: Path) -> None:
    with Asking(served) as asking:
        deploy(served, B)
        assert state(served)["release"] == B.id  # the deployment waits for it
        time.sleep(0.5)
        roll_back(Store(served), Steps(lambda _: None), Console(quiet=True), lambda: None)
        assert state(served)["release"] == A.id
        time.sleep(0.5)
    assert not asking.wrong
    assert set(asking.right) == {A.id, B.id}
    assert not deploy(served, A)["changed"]


def test_newer_program_takes_up_serving_of_the_same_bundle(quick_disk: Path, root: Path) -> None:
    file = quick_disk / "model.edgetrt"
    members = {"manifest.json": A.manifest, **dict(sorted(A.files.items()))}
    with file.open("wb") as out:
        write(out, [(name, io.BytesIO(data)) for name, data in members.items()])
    for name in ("older.pyz", "newer.pyz"):
        (quick_disk / name).write_bytes(f"#!{name}\n".encode() + program())

    def install(name: str) -> None:
        command = ["install", str(file), "--root", str(root), "--engine", "onnxruntime"]
        subprocess.run(
            [sys.executable, str(quick_disk / name), *command, "--allow-unsigned", "--port", "0"],
            check=True, timeout=120, capture_output=True,
        )  # fmt: skip

    def run_by(pid: int) -> Path:
        return Path(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[1])

    install("older.pyz")
    older, before = (root / "current" / "program.pyz").resolve(), state(root)
    assert run_by(before["pid"]) == run_by(before["worker"]) == older
    os.utime(older, (0, 0))
    with Asking(root) as asking:
        install("newer.pyz")
        newer, after = (root / "current" / "program.pyz").resolve(), state(root)
        assert (after["pid"], run_by(after["worker"])) == (before["pid"], newer)
        assert not older.exists()
        os.kill(after["worker"], signal.SIGKILL)
        end = time.monotonic() + 30
        while state(root)["worker"] in (None, after["worker"]):
            assert time.monotonic() < end
            time.sleep(0.05)
    assert run_by(state(root)["worker"]) == newer
    assert asking.right
    assert (quick_disk / "newer.pyz").read_bytes() == newer.read_bytes()


def spoil(root: Path, made: Made) -> Any:
    """Between self-test and switch something happens to the engine."""

    def alone() -> None:
        file = root / "releases" / made.id / "engines" / f"{ENGINE}.onnx"
        file.chmod(0o600)
        file.write_bytes(b"spoilt")

    return alone


def test_what_the_server_can_not_take_up_is_undone(served: Path) -> None:
    with Asking(served) as asking:
        with pytest.raises(
            EngineError, match=r"the server does not take it up: .*spoilt|build"
        ) as e:
            deploy(served, B, alone=spoil(served, B))
        assert state(served)["release"] == A.id
        assert state(served)["state"] == "serving"
    assert e.value.steps.rolled_back  # type: ignore[attr-defined]
    assert not asking.wrong
    assert set(asking.right) == {A.id}
    assert Store(served).current() == A.id
    assert deploy(served, B)["changed"]  # what was spoilt is built again
    assert state(served)["release"] == B.id


def test_server_that_answers_wrong_is_undone(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Golden(False, 0.5, 0.005, "blue of golden/0.png: 0.5000")
    monkeypatch.setattr(health.client, "golden", lambda *_: wrong)
    with pytest.raises(EngineError, match=r"the server answers wrong: blue of golden/0.png"):
        deploy(served, B)
    assert Store(served).current() == A.id
    assert state(served)["release"] == A.id


def test_server_that_dies_of_it_is_noticed(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.switch

    def switch(store: Store, *given: Any) -> None:
        real(store, *given)
        os.kill(state(served)["pid"], signal.SIGKILL)

    monkeypatch.setattr(Store, "switch", switch)
    monkeypatch.setattr(health, "RESTART", 0.5)
    with pytest.raises(EngineError, match="the server ended when it was to take up release"):
        deploy(served, B)
    assert Store(served).current() == A.id


def test_server_is_started_if_none_runs(root: Path) -> None:
    deploy(root, A, port=0)
    word = state(root)
    assert (word["release"], word["engine"], word["state"]) == (A.id, ENGINE, "serving")
    found = ready("127.0.0.1", word["port"])
    assert found
    assert found["release"] == A.id
    assert not deploy(root, A, port=0)["changed"]
    assert state(root)["pid"] == word["pid"]  # one server is enough
    deploy(root, B, port=0)
    assert (state(root)["release"], state(root)["pid"]) == (B.id, word["pid"])
    os.kill(word["pid"], signal.SIGKILL)  # and after a reboot there is none
    end = time.monotonic() + 30
    while health.server(Store(root)) is not None:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not deploy(root, B, port=0)["changed"]
    assert state(root)["pid"] != word["pid"]


def test_server_that_was_started_in_vain_is_ended(root: Path) -> None:
    with pytest.raises(EngineError, match="the server ended as soon as it was started"):
        deploy(root, A, port=0, alone=spoil(root, A))
    assert Store(root).current() is None
    assert health.server(Store(root)) is None


def test_port_that_is_taken(served: Path, root: Path, tmp_path: Path) -> None:
    port = state(served)["port"]
    with pytest.raises(EngineError, match=r"can't listen at 127.0.0.1 port \d+"):
        deploy(tmp_path / "other", A, port=port)
    assert Store(tmp_path / "other").current() is None


def test_server_with_a_token(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(root, A)
    monkeypatch.setenv("EDGETRT_TOKEN", "not-to-be-seen-by-anyone")
    process = start(root)
    monkeypatch.delenv("EDGETRT_TOKEN")
    try:
        assert state(root)["token"]
        deploy(root, B)
        assert state(root)["release"] == B.id
        with pytest.raises(EngineError, match="does not take it up"):
            deploy(root, A, alone=spoil(root, A))
        assert state(root)["release"] == B.id
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(
    "program", [["sleep", "60"], [sys.executable, "-c", "input()", "serve", "--root", "elsewhere"]]
)
def test_pid_of_another_program_is_no_server(root: Path, program: list[str]) -> None:
    deploy(root, A)
    (root / "serve.lock").touch()
    with subprocess.Popen(program, stdin=subprocess.PIPE) as other:
        word = {"pid": other.pid, "host": "127.0.0.1", "port": 1, "state": "serving"}
        (root / "serve.json").write_text(json.dumps(word))
        assert health.server(Store(root)) is None
        deploy(root, B)
        other.kill()


def test_failure_of_the_release_before_is_not_the_new_one_s(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server tried the old one once more before it saw the switch."""
    deploy(root, A)
    word = {"pid": os.getpid(), "state": "failed", "wanted": A.id, "reason": "it is old"}
    taken_up = {"state": "serving", "wanted": B.id, "release": B.id, "engine": None}
    write_json(root / "serve.json", word)
    monkeypatch.setattr(
        health.time, "sleep", lambda _: write_json(root / "serve.json", {**word, **taken_up})
    )
    with (root / "serve.lock").open("w"):
        before = health.Server(word, "earlier")
        found = health._wait(Store(root), B.id, before, None, switched=True)
    assert found["release"] == B.id


def test_nobody_waits_for_a_server_that_says_it_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(root, A)
    monkeypatch.setattr(health, "PATIENCE", 3.0)
    word = {"pid": os.getpid(), "state": "failed", "wanted": A.id, "release": B.id}
    write_json(root / "serve.json", word)
    begun = time.monotonic()
    with (root / "serve.lock").open("w"):
        health.wait_for_return(Store(root), A.id, health.Server({}, None))
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("seconds", [0.5, 60])
def test_server_that_is_started_again_at_once_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """As by systemd."""
    deploy(root, A)
    monkeypatch.setattr(health, "RESTART", 2.0, raising=False)
    word = {"state": "serving", "wanted": A.id, "release": A.id, "engine": ENGINE}
    again = time.monotonic() + seconds
    before = health.Server(word, "earlier")
    with monkeypatch.context() as patch:
        patch.setattr(
            health, "server",
            lambda _: health.Server(word, "later") if time.monotonic() > again else None,
        )  # fmt: skip
        if seconds < health.RESTART:
            assert health._wait(Store(root), A.id, before, None, switched=True) == word
        else:
            with pytest.raises(EngineError, match="the server ended when it was to take up"):
                health._wait(Store(root), A.id, before, None, switched=True)


@pytest.mark.parametrize("state_", ["failed", "serving"])
def test_server_that_waits_before_it_tries_again_is_told_of_what_was_mended(
    root: Path, monkeypatch: pytest.MonkeyPatch, state_: str
) -> None:
    deploy(root, A)
    monkeypatch.setattr(health, "prove", lambda *_, **__: None)
    write_json(root / "serve.json", {"pid": os.getpid(), "state": state_, "release": A.id})
    link = (root / "current").lstat()
    with (root / "serve.lock").open("w"):
        assert not deploy(root, A)["changed"]
    assert ((root / "current").lstat().st_ino != link.st_ino) == (state_ == "failed")


def test_server_that_has_much_to_do_is_asked_again(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = health.client.golden, []

    def golden(*given: Any) -> Golden:
        asked.append(given)
        if len(asked) < 3:
            raise EngineError("it answers 503: 64 requests wait already")
        return real(*given)

    monkeypatch.setattr(health.client, "golden", golden)
    deploy(served, B)
    assert state(served)["release"] == B.id
    assert len(asked) == 3


def test_server_with_a_token_must_at_least_be_ready(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own word is not enough."""
    manifest = parse(A.manifest)
    with socket.create_server(("127.0.0.1", 0)) as other:
        word = {"host": "127.0.0.1", "port": other.getsockname()[1], "token": True}
    monkeypatch.setattr(health, "BUSY", 0.2)
    with pytest.raises(EngineError, match="no server is ready at 127.0.0.1"):
        health._ask(Store(root), manifest, word)


def test_server_stays_if_only_the_telling_fails(root: Path) -> None:
    class Gone(list):
        def append(self, event: Any) -> None:
            if (event.get("step"), event.get("state")) == ("health", "done"):
                raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        deploy(root, A, Gone(), port=0)
    assert Store(root).current() == A.id
    assert health.server(Store(root)) is not None


def test_install_ends_well_though_its_terminal_is_gone(quick_disk: Path, root: Path) -> None:
    class Gone(Console):
        def say(self, text: str) -> None:
            if text.startswith(("switch:", "health:")):
                raise OSError(5, "Input/output error")

    file = quick_disk / "model.edgetrt"
    members = {"manifest.json": A.manifest, **dict(sorted(A.files.items()))}
    with file.open("wb") as out:
        write(out, [(name, io.BytesIO(data)) for name, data in members.items()])
    handlers = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    try:
        install_file(root, file, ["onnxruntime"], ["fp32"], Gone(), allow_unsigned=True)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert Store(root).current() == A.id


def test_bundle_that_is_served_leaves_nothing_where_it_was_ended_early(quick_disk: Path) -> None:
    file, temporary = quick_disk / "model.edgetrt", quick_disk / "temporary"
    temporary.mkdir()
    members = {"manifest.json": A.manifest, **dict(sorted(A.files.items()))}
    with file.open("wb") as out:
        write(out, [(name, io.BytesIO(data)) for name, data in members.items()])
    command = ["serve", "--bundle", str(file), "--engine", "onnxruntime", "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.device", *command],
        cwd=REPOSITORY, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr
        assert any(b"build:" in line for line in process.stderr)
        assert list(temporary.iterdir())
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(temporary.iterdir())


def test_commands_on_the_device(
    quick_disk: Path, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = quick_disk / "model.edgetrt"
    members = {"manifest.json": A.manifest, **dict(sorted(A.files.items()))}
    with file.open("wb") as out:
        write(out, [(name, io.BytesIO(data)) for name, data in members.items()])
    install = ["install", str(file), "--root", str(root), "--engine", "onnxruntime", "--quiet"]
    handlers = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
    mask = os.umask(0o022)
    try:
        assert main(install) == 1
        assert "--allow-unsigned" in capfd.readouterr().err
        assert main([*install, "--allow-unsigned", "--dry-run"]) == 0
        assert main([*install, "--allow-unsigned", "--precision", "fp32"]) == 0
        assert capfd.readouterr().out.splitlines() == [
            f"release {A.id} can be deployed: not built", f"release {A.id} is current: {ENGINE}",
        ]  # fmt: skip
        deploy(root, B)
        assert main(["rollback", "--root", str(root), "--quiet"]) == 0
        assert main(["status", "--root", str(root)]) == 0
    finally:
        os.umask(mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    told = capfd.readouterr().out.splitlines()
    assert told[0] == f"release {A.id} is current"
    assert f"{A.id}  demo  {ENGINE}  current" in told
    assert "no server" in told
    assert main(["rollback", "--root", str(root), "--quiet"]) == 1
    assert ASKED.as_dict() == (Store(root).about(A.id) or {})["asked"]
