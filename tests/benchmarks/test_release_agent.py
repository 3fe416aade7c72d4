"""The device's end of a deployment, as a process: what a host sends it, and when it is gone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from releases import ENGINE, Key, Made, bundle, quick_disk

from benchmarks.device.release.root import locked
from benchmarks.device.release.store import Store

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 60.0  # seconds
# The agent with less patience, and with a step that takes as long as the test likes.
START = """
import sys, time
from pathlib import Path
from benchmarks import loadgen
from benchmarks.device.release import channel, engines, health, install
from benchmarks.scenarios import Effort
loadgen.compare = lambda *_: {"reason": "not measured"}
engines.EFFORT = Effort("quick", 2, 0.0, 1, 0.001, 0.01)
channel.SILENCE, channel.HEARTBEAT = float(sys.argv[3]), 0.1
module, name = {"build": (engines, "make"), "health": (health, "prove")}.get(sys.argv[2], (0, 0))
if module:
    real = getattr(module, name)
    def slow(*given, **options):
        Path(sys.argv[1], "waits").write_text("")
        while not Path(sys.argv[1], "go").exists():
            time.sleep(0.01)
        return real(*given, **options)
    setattr(module, name, slow)
from benchmarks.device.cli import main
sys.exit(main(["agent", "--root", sys.argv[1]]))
"""
A, B = bundle(0.01), bundle(0.02)
__all__ = ["quick_disk"]  # a fixture


@pytest.fixture
def root(quick_disk: Path) -> Path:
    return quick_disk / "edgetrt"


class Agent:
    """The agent, and a host that can do wrong.

    Args:
        waits_in: the step in which it waits until told to go on.
    """

    def __init__(self, root: Path, waits_in: str = "", silence: float = 60.0) -> None:
        self.root = root
        self.events: list[dict[str, Any]] = []
        self.beats = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, str(root), waits_in, str(silence)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY,
            bufsize=0,
        )  # fmt: skip

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file:
                file.close()

    def send(self, data: bytes) -> None:
        assert self.process.stdin
        left = memoryview(data)
        while left:
            left = left[self.process.stdin.write(left) :]

    def ask(self, request: dict[str, Any]) -> None:
        self.send(json.dumps(request).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], TIMEOUT)[0], "it says nothing"
        line = b"\n"
        while line == b"\n":  # a sign of life
            line = self.process.stdout.readline()
            self.beats += line == b"\n"
        assert line, self.process.stderr.read().decode()  # type: ignore[union-attr]
        self.events.append(json.loads(line))
        return self.events[-1]

    def until(self, event: str, step: str | None = None) -> dict[str, Any]:
        while True:
            heard = self.hear()
            if heard["event"] == event and step in (None, heard.get("step")):
                return heard
            assert heard["event"] not in ("result", "error"), heard

    def deploy(self, made: Made, **options: Any) -> dict[str, Any]:
        """Ask for it, send what is asked for; gives the last event."""
        self.ask(made.request(**options))
        return self.follow(made)

    def follow(self, made: Made) -> dict[str, Any]:
        while True:
            heard = self.hear()
            if heard["event"] == "send":
                self.answer(made, heard)
            if heard["event"] in ("result", "error"):
                return heard

    def answer(self, made: Made, asked: dict[str, Any]) -> None:
        data = made.by_hash()[asked["sha256"]][asked["offset"] :]
        head = {"sha256": asked["sha256"], "offset": asked["offset"], "length": len(data)}
        # Signs of life may come at any moment before.
        self.send(b"\n\n" + json.dumps(head).encode() + b"\n" + data + b"\n")

    def wait(self) -> int:
        return self.process.wait(TIMEOUT)

    def waiting(self) -> None:
        """Until it waits in the step that it shall wait in."""
        end = time.monotonic() + TIMEOUT
        while not (self.root / "waits").exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    def go(self) -> None:
        (self.root / "go").write_text("")

    def said(self) -> str:
        return self.process.stderr.read().decode()  # type: ignore[union-attr]


def deployed(root: Path, made: Made, **options: Any) -> dict[str, Any]:
    with Agent(root) as agent:
        found = agent.deploy(made, **options)
        assert agent.wait() == (0 if found["event"] == "result" else 1)
    return found


def test_it_lives_while_it_builds(root: Path) -> None:
    with Agent(root, waits_in="build") as agent:
        agent.ask(A.request())
        while True:
            heard = agent.hear()
            if heard["event"] == "send":
                agent.answer(A, heard)
            elif heard.get("step") == "build":
                break
        agent.waiting()
        before = agent.beats
        time.sleep(1)
        agent.go()
        assert agent.follow(A)["event"] == "result"
        assert agent.beats - before >= 5


def test_whole_way(root: Path) -> None:
    first = deployed(root, A)
    assert (first["event"], first["release"], first["changed"]) == ("result", A.id, True)
    assert first["engine"] == ENGINE
    assert first["report"]["engines"][0]["name"] == ENGINE
    assert not deployed(root, A)["changed"]
    deployed(root, B)
    with Agent(root) as agent:
        agent.ask({"protocol": 1, "do": "status"})
        status = agent.hear()
    assert (status["event"], status["current"], status["previous"]) == ("result", B.id, A.id)
    with Agent(root) as agent:
        agent.ask({"protocol": 1, "do": "rollback"})
        assert agent.follow(A)["release"] == A.id
        assert agent.wait() == 0
    assert Store(root).current() == A.id
    modes = {p.name: p.stat().st_mode & 0o077 for p in root.rglob("*") if not p.is_symlink()}
    assert not any(modes.values()), modes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"garbage \xff\xfe\n", "this program speaks with `edgetrt deploy` on its stdin"),
        (b"[" * 100_000 + b"\n", "this program speaks with"),
        (b"[1]\n", "this program speaks with"),
        (b'{"do": "deploy"}\n', "the host speaks protocol None, this program 1"),
        (b'{"protocol": 2, "do": "deploy"}\n', "the host speaks protocol 2, this program 1"),
        (b'{"protocol": 1, "do": "explode"}\n', "there is no 'explode' to do"),
        (b'{"protocol": 1, "do": "deploy"}\n', "the host's request can't be read"),
        (b'{"protocol": 1, "do": "deploy", "manifest": "%"}\n', "request can't be read"),
        (b'{"protocol": 1, "do": "deploy", "manifest": "", "trust": 1}\n', "can't be read"),
        (b'{"protocol": 1, "do": "deploy", "manifest": "", "keep": 0}\n', "keep 0"),
        (b'{"protocol": 1, "do": "deploy", "manifest": "", "serve": {"port": 70000}}\n', "70000"),
    ],
)
def test_nonsense_is_wrong_use(root: Path, line: bytes, words: str) -> None:
    with Agent(root) as agent:
        agent.send(line)
        error = agent.until("error")
        assert agent.wait() == 2
        assert agent.said() == f"edgetrt-device: {error['text']}\n"
    assert words in error["text"]
    assert error["kind"] == "wrong-use"
    assert not root.exists()


def test_line_without_end(root: Path) -> None:
    with Agent(root) as agent:
        try:
            for _ in range(70):
                agent.send(b"x" * (1 << 20))
        except BrokenPipeError:
            pass
        assert "a line without end" in agent.until("error")["text"]
        assert agent.wait() == 2


def test_damaged_manifest_and_signature(root: Path) -> None:
    key = Key()
    signed = bundle(0.01, key)
    with Agent(root) as agent:
        changed = signed._replace(manifest=signed.manifest.replace(b"demo", b"dema"))
        error = agent.deploy(changed, trust=key.public.decode(), allow_unsigned=False)
        assert agent.wait() == 1
    assert (error["step"], error["kind"], error["current"]) == ("check", "failed", None)
    assert "the signature is not by the key" in error["text"]
    assert "manifest is damaged" in deployed(root, A._replace(manifest=b"{}"))["text"]


def test_something_else_than_what_was_asked_for(root: Path) -> None:
    with Agent(root) as agent:
        agent.ask(A.request())
        asked = agent.until("send")
        agent.answer(A, {**asked, "sha256": next(h for h in A.by_hash() if h != asked["sha256"])})
        assert "the host announced" in agent.until("error")["text"]
        assert agent.wait() == 2


@pytest.mark.parametrize("lost", ["closed", "silent"])
@pytest.mark.parametrize("when", ["request", "header", "bytes", "build"])
def test_host_that_is_gone_before_the_switch(root: Path, when: str, lost: str) -> None:
    deployed(root, A)
    large = bundle(0.02, padding=300_000)
    with Agent(root, "build", 2.0 if lost == "silent" else 60.0) as agent:
        if when == "request":
            agent.send(json.dumps(large.request()).encode()[:500])
        else:
            agent.ask(large.request())
        while when in ("header", "bytes"):
            asked = agent.until("send")
            if asked["size"] == 300_000:
                head = {"sha256": asked["sha256"], "offset": 0, "length": 300_000}
                line = json.dumps(head).encode() + b"\n"
                data = large.by_hash()[asked["sha256"]]
                agent.send(line[:20] if when == "header" else line + data[:100_000])
                break
            agent.answer(large, asked)
        if when == "build":
            while agent.hear().get("step") != "build":
                if agent.events[-1]["event"] == "send":
                    agent.answer(large, agent.events[-1])
            agent.waiting()
        if lost == "closed":
            agent.process.stdin.close()  # type: ignore[union-attr]
        start = time.monotonic()
        assert agent.wait() == 1
        assert time.monotonic() - start < 10
        words = "the host is gone" if lost == "closed" else "the host said nothing for 2 s"
        assert words in agent.until("error")["text"]
        assert agent.said().endswith(f"edgetrt-device: {words}; nothing was switched\n")
    assert Store(root).current() == A.id
    (root / "waits").unlink(missing_ok=True)
    with Agent(root) as agent:
        assert agent.deploy(large)["release"] == large.id  # the lock fell with the process
    offsets = {e["size"]: e["offset"] for e in agent.events if e["event"] == "send"}
    assert offsets.get(300_000) == {"bytes": 100_000, "build": None}.get(when, 0)


def test_what_arrived_of_a_file_is_kept(root: Path) -> None:
    """Also what nobody had looked at yet when both directions were cut."""
    large = bundle(0.02, padding=3_000_000)
    with Agent(root) as agent:
        agent.ask(large.request())
        while (asked := agent.until("send"))["size"] != 3_000_000:
            agent.answer(large, asked)
        head = {"sha256": asked["sha256"], "offset": 0, "length": 3_000_000}
        agent.process.stdout.close()  # type: ignore[union-attr]
        data = large.by_hash()[asked["sha256"]][:2_000_000]
        agent.send(json.dumps(head).encode() + b"\n" + data)
        agent.process.stdin.close()  # type: ignore[union-attr]
        assert agent.wait() == 1
    assert (root / "files" / f".tmp-{asked['sha256']}").read_bytes() == data


def test_host_that_does_not_listen(root: Path) -> None:
    with Agent(root, "build") as agent:
        agent.ask(A.request())
        while agent.hear().get("step") != "build":
            if agent.events[-1]["event"] == "send":
                agent.answer(A, agent.events[-1])
        agent.waiting()
        agent.process.stdout.close()  # type: ignore[union-attr]
        agent.go()
        assert agent.wait() == 1
        assert "the host does not listen; nothing was switched" in agent.said()
    assert Store(root).current() is None


def test_signs_of_life_keep_it_going(root: Path) -> None:
    with Agent(root, "build", 1.0) as agent:
        agent.ask(A.request())
        while agent.hear().get("step") != "build":
            if agent.events[-1]["event"] == "send":
                agent.answer(A, agent.events[-1])
        for _ in range(10):
            agent.send(b"\n")
            time.sleep(0.3)
        agent.go()
        assert agent.follow(A)["release"] == A.id


@pytest.mark.parametrize("lost", ["closed", "stopped listening", "hung up"])
def test_host_that_is_gone_after_the_switch(root: Path, lost: str) -> None:
    deployed(root, A)
    with Agent(root, "health", 1.0) as agent:
        agent.ask(B.request())
        while agent.hear().get("step") != "health":
            if agent.events[-1]["event"] == "send":
                agent.answer(B, agent.events[-1])
        agent.waiting()
        if lost == "hung up":
            agent.process.send_signal(signal.SIGHUP)
            agent.process.send_signal(signal.SIGTERM)
        if lost != "stopped listening":
            for file in (agent.process.stdin, agent.process.stdout, agent.process.stderr):
                file.close()  # type: ignore[union-attr]
        agent.go()
        assert agent.wait() == 0
    store = Store(root)
    assert store.current() == B.id
    assert store.pending() is None
    assert [entry["event"] for entry in store.history()] == ["deployed"] * 2


def test_agent_that_is_killed_after_the_switch(root: Path) -> None:
    deployed(root, A)
    with Agent(root, "health") as agent:
        agent.ask(B.request())
        while agent.hear().get("step") != "health":
            if agent.events[-1]["event"] == "send":
                agent.answer(B, agent.events[-1])
        agent.waiting()
        agent.process.kill()
        agent.wait()
    store = Store(root)
    assert store.current() == B.id
    with Agent(root) as agent:  # asking changes nothing
        agent.ask({"protocol": 1, "do": "status"})
        assert agent.hear()["pending"]["to"] == B.id
    assert store.current() == B.id
    error = deployed(root, A._replace(manifest=b"{}"))
    assert error["current"] == A.id
    assert store.pending() is None


def test_two_at_once(root: Path) -> None:
    with Agent(root, "build") as first:
        first.ask(A.request())
        while first.hear().get("step") != "build":
            if first.events[-1]["event"] == "send":
                first.answer(A, first.events[-1])
        with Agent(root) as second:
            error = second.deploy(B)
            assert second.wait() == 1
            assert second.said() == f"edgetrt-device: {error['text']}\n"
        assert error["text"] == (
            f"another deployment is at work in {root} (process {first.process.pid}); "
            "wait for it to end"
        )
        assert error["kind"] == "failed"
        first.go()
        assert first.follow(A)["release"] == A.id
    assert Store(root).current() == A.id


def test_no_tensorrt(root: Path) -> None:
    error = deployed(root, A, engines=None)
    assert (error["event"], error["step"]) == ("error", "check")
    assert "tensorrt engines can't run here: TensorRT is not installed" in error["text"]


def test_rollback_where_there_is_nothing(root: Path) -> None:
    with Agent(root) as agent:
        agent.ask({"protocol": 1, "do": "rollback"})
        assert "there is no release before this one" in agent.until("error")["text"]
        assert agent.wait() == 1


def test_lock_is_not_inherited(root: Path) -> None:
    with locked(root):
        other = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with locked(root):
            pass
    finally:
        other.kill()
        other.wait()
    assert os.path.isfile(root / "lock")
