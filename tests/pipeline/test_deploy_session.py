"""The host's end of the protocol, against agents that do and don't keep to it."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripted_agent import program, start

from pipeline.deploy import session
from pipeline.deploy.bootstrap import LAUNCH
from pipeline.deploy.errors import DeviceError
from pipeline.deploy.inventory import Device
from pipeline.deploy.session import Session

SERVES_OLD = "it serves what it did before; the same command goes on where it stopped"


class Played:
    """One request to an agent on this machine."""

    def __init__(self, root: Path) -> None:
        self.device = Device("board", "127.0.0.1", root=str(root))
        self.events: list[Mapping[str, Any]] = []
        self.log: list[str] = []

    def __call__(self, script: str, bundle: Any = None, cut_after: int | None = None,
                 **more: Any) -> Mapping[str, Any]:  # fmt: skip
        agent = program(script)
        channel = start(self.device, agent, **more)
        channel.cut_after = cut_after
        talk = Session(channel, agent, bundle, self.events.append, self.log.append)
        return talk.perform({"do": "status"})


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    monkeypatch.setattr(session, "SILENCE", 20)  # no test waits for an hour
    return Played(tmp_path / "edgetrt")


def test_program_is_sent_once(play: Played, tmp_path: Path) -> None:
    script = 'say(event="result", request=request, root=root, argv=sys.argv[1:])'
    first, second = play(script), play(script)
    root = str(tmp_path / "edgetrt")
    assert first == second
    assert first["request"] == {"protocol": 1, "do": "status"}
    assert first["argv"] == ["agent", "--root", root]
    assert [file.name for file in (tmp_path / "edgetrt" / "files").iterdir()] == [
        program(script).sha256
    ]


def test_damaged_program_is_sent_again(play: Played, tmp_path: Path) -> None:
    script = 'say(event="result")'
    play(script)
    file = tmp_path / "edgetrt" / "files" / program(script).sha256
    file.write_bytes(b"#!/bin/sh\n")
    play(script)
    assert file.read_bytes() == program(script).data


def test_home_of_the_device(tmp_path: Path) -> None:
    play = Played(tmp_path)
    play.device = Device("board", "127.0.0.1", root="~/of its own")
    result = play('say(event="result", root=root)', env={**os.environ, "HOME": str(tmp_path)})
    assert result["root"] == str(tmp_path / "of its own")


def test_no_python_of_that_name(play: Played) -> None:
    play.device = Device("board", "127.0.0.1", root=play.device.root, python="python3.0")
    with pytest.raises(DeviceError, match="no Python 3 of that name; --python names one"):
        play("")


def test_full_disk_of_the_device(play: Played, tmp_path: Path) -> None:
    (tmp_path / "edgetrt").write_text("a file, where a folder must be made")
    with pytest.raises(DeviceError, match=f"{tmp_path}/edgetrt.*: (Not a directory|File exists)"):
        play("")


def test_what_a_killed_launcher_left_goes_with_the_next(play: Played, tmp_path: Path) -> None:
    root = tmp_path / "edgetrt"
    words = [sys.executable, "-c", LAUNCH.read_text(), str(root), "0" * 64, "1000", "agent"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as killed, subprocess.Popen(words, **pipes) as working:
        for launcher in (killed, working):
            assert launcher.stdout is not None
            assert b"program" in launcher.stdout.readline()
        while len(list(root.glob("files/*"))) < 2:
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        script = 'say(event="result")'
        play(script)
        left = {file.name for file in (root / "files").iterdir()}
        assert left == {program(script).sha256, f".tmp-program-{working.pid}"}
    assert [file.name for file in (root / "files").iterdir()] == [program(script).sha256]


def test_launcher_may_have_python_3_6() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("vermin"), "-t=3.6-", "--no-tips", "--eval-annotations",
         "--violations", str(LAUNCH)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", ["3.5.0", "3.4.10"])
def test_launcher_says_that_python_is_too_old(version: str) -> None:
    """Its own words are run by this Python, which takes itself for an older one."""
    text = f"import sys; sys.version_info = ({version.replace('.', ',')}, 'final', 0)\n"
    done = subprocess.run(
        [sys.executable, "-c", text + LAUNCH.read_text(), "/nowhere", "0", "0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    shown = ".".join(version.split(".")[:2])
    assert f"Python {shown} is too old; --python names one from 3.6 on" in done.stdout


def test_launcher_says_that_numpy_is_missing(tmp_path: Path) -> None:
    program = tmp_path / "files" / hashlib.sha256(b"").hexdigest()
    program.parent.mkdir()
    program.touch()
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCH.read_text(), tmp_path, program.name, "0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{sys.executable} has no numpy" in done.stdout


class _File:
    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data, self.size = path, data, len(data)
        self.sha256 = hashlib.sha256(data).hexdigest()


class _Bundle:
    """What is used of `engines.bundle.archive.Bundle`."""

    def __init__(self, files: list[_File]) -> None:
        self.manifest, self.files = self, files

    def open(self, path: str) -> Any:
        import io

        return io.BytesIO(next(file.data for file in self.files if file.path == path))


@pytest.fixture
def files() -> list[_File]:
    """Two files of a bundle; the first is all line breaks, as heartbeats are."""
    return [_File("breaks", b"\n" * 100_000), _File("graph", os.urandom(3_000_000))]


def test_files_arrive_whole_between_heartbeats(
    play: Played, files: list[_File], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HEARTBEAT", 0.002)
    wanted = [(file.sha256, file.size) for file in files] * 3
    script = f"""
for sha256, size in {wanted!r}:
    time.sleep(0.05)
    assert hashlib.sha256(fetch(sha256, size)).hexdigest() == sha256
time.sleep(0.05)
beats = lines.read1(100)
say(event="result", beats=len(beats), odd=len(beats.strip()))
"""
    result = play(script, _Bundle(files))
    assert result["beats"] > 2
    assert result["odd"] == 0


def test_cut_transfer_goes_on_where_it_stopped(play: Played, files: list[_File]) -> None:
    graph = files[1]
    script = f"""
step("transfer")
store = os.path.join(root, "graph")
offset = os.path.getsize(store) if os.path.exists(store) else 0
say(event="send", sha256={graph.sha256!r}, size={graph.size}, offset=offset)
left = line()["length"]
with open(store, "ab") as file:
    while left:
        piece = lines.read1(min(left, 65536))
        if not piece:
            sys.exit(1)
        left -= len(piece)
        file.write(piece)
with open(store, "rb") as file:
    say(event="result", whole=hashlib.sha256(file.read()).hexdigest(), began=offset)
"""
    with pytest.raises(DeviceError) as caught:
        play(script, _Bundle(files), cut_after=1_000_000)
    assert str(caught.value) == f"the connection was cut during transfer; {SERVES_OLD}"
    assert caught.value.known
    result = play(script, _Bundle(files))
    assert result["whole"] == graph.sha256
    assert 0 < result["began"] <= 1_000_000


@pytest.mark.parametrize(
    "event",
    [
        {"sha256": "0" * 64, "size": 1, "offset": 0},
        {"sha256": None, "size": 1, "offset": 0},
        {"offset": -1},
        {"offset": 3_000_001},
        {"offset": True},
        {"offset": "0"},
    ],
)
def test_only_what_is_in_the_bundle_is_sent(
    play: Played, files: list[_File], event: dict[str, Any]
) -> None:
    wanted = {"sha256": files[1].sha256, "size": files[1].size, **event}
    with pytest.raises(DeviceError, match="it asks for a file that the bundle has not"):
        play(f'say(event="send", **{wanted!r}); line()', _Bundle(files))


def test_nothing_is_sent_where_there_is_no_bundle(play: Played) -> None:
    with pytest.raises(DeviceError, match="where there is none to send"):
        play('say(event="send", sha256="0", size=1, offset=0); line()')


def test_error_of_an_agent_that_stopped_reading(play: Played, files: list[_File]) -> None:
    """As on a full disk: it says why, and ends while the host still sends."""
    script = f"""
step("transfer")
say(event="send", sha256={files[1].sha256!r}, size={files[1].size}, offset=0)
say(event="error", step="transfer", kind="failed", text="no space left", current=None,
    rolled_back=False)
"""
    with pytest.raises(DeviceError, match="^no space left$") as caught:
        play(script, _Bundle(files))
    assert caught.value.step == "transfer"


def test_steps_are_told_and_logged(play: Played) -> None:
    play("""
step("check")
step("check", "done", "Jetson TX2")
say(event="progress", step="build", done=1, total=2)
sys.stderr.write("TensorRT: a warning\\n\\x1b[31mred\\n"); sys.stderr.flush()
print("a library that prints")
print('{"no": "event"}')
say(event="result")
""")
    assert [(e["event"], e["step"]) for e in play.events] == [
        ("step", "check"), ("step", "check"), ("progress", "build")
    ]  # fmt: skip
    assert "check: done Jetson TX2" in play.log
    assert "a library that prints" in play.log
    assert '{"no": "event"}' in play.log
    assert "\\x1b[31mred" in play.log
    assert "TensorRT: a warning" in play.log


def test_much_on_stderr_does_not_stop_the_agent(
    play: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HEARTBEAT", 0.01)
    play("""
for _ in range(3000):
    sys.stderr.write("x" * 999 + "\\n")
say(event="result")
""")
    logged = sum(len(line) for line in play.log)
    assert logged <= session.MAX_LOGGED < 3000 * 599


@pytest.mark.parametrize(
    ("steps", "known", "text"),
    [
        ('step("build")', True, f"the device program was killed during build; {SERVES_OLD}"),
        (
            'step("build", "done"); step("switch")',
            False,
            "the device program was killed during switch; it finishes the switch or undoes it by "
            "itself: --status tells",
        ),
    ],
)
def test_killed_agent(play: Played, steps: str, known: bool, text: str) -> None:
    with pytest.raises(DeviceError) as caught:
        play(f"{steps}; os.kill(os.getpid(), signal.SIGKILL)")
    assert str(caught.value) == text
    assert caught.value.known == known


def test_ended_agent(play: Played) -> None:
    with pytest.raises(DeviceError, match="the device program ended with code 3 during check"):
        play('step("check"); sys.exit(3)')


def test_last_words_of_an_ended_agent(play: Played) -> None:
    words = r'ended with code 3 during check \("numpy is broken"\); it serves what it did before'
    with pytest.raises(DeviceError, match=words):
        play('step("check"); print("a\\nnumpy is broken\\n", file=sys.stderr); sys.exit(3)')


def test_device_that_says_nothing(play: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "HEARTBEAT", 0.01)
    monkeypatch.setattr(session, "SILENCE", 0.3)
    with pytest.raises(DeviceError, match=f"nothing was heard of it .*{SERVES_OLD}"):
        play('step("build"); time.sleep(60)')


def test_device_that_builds_for_long_and_lives(
    play: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HEARTBEAT", 0.01)
    monkeypatch.setattr(session, "SILENCE", 1.5)
    alive = "for _ in range(8): time.sleep(0.3); print(flush=True)"
    assert play(f'step("build")\n{alive}\nsay(event="result", built=1)')["built"] == 1
    assert not [line for line in play.log if not line.strip()]


@pytest.mark.parametrize("says", ['step("build"); time.sleep(0.01)', 'say(event="program")'])
def test_device_that_never_ends(play: Played, monkeypatch: pytest.MonkeyPatch, says: str) -> None:
    """A fleet would never be through."""
    monkeypatch.setattr(session, "LONGEST", 1.0)
    with pytest.raises(DeviceError, match=f"it is not through after .* hours; {SERVES_OLD}"):
        play(f"signal.alarm(10)\nwhile True:\n  {says}")


def test_endless_line(play: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_LINE", 1 << 20)
    with pytest.raises(DeviceError, match="it says what no device program says"):
        play('signal.alarm(10)\nwhile True: sys.stdout.write("x" * 65536)')


def test_what_a_device_says_is_fit_to_be_shown(play: Played) -> None:
    with pytest.raises(DeviceError) as caught:
        play('say(event="error", step="\\x1b[2J", text="a\\nb" + "c" * 5000, rolled_back=1)')
    assert str(caught.value).startswith("a\\nb")
    assert len(str(caught.value)) == session.LONGEST_TEXT
    assert caught.value.step == "\\x1b[2J"
    assert not caught.value.rolled_back


@pytest.mark.parametrize(
    "value",
    ["NaN", "1e999", "[" * 900 + "]" * 900, '"' + "x" * session.MAX_RESULT + '"',
     "[" + "[]," * session.MAX_CONTAINERS + "0]"],
    ids=["NaN", "infinite", "deep", "long", "many lists"],
)  # fmt: skip
def test_answer_that_can_not_be_kept(play: Played, value: str) -> None:
    """Other devices' results are written with it: one that can't be would be the end of all."""
    with pytest.raises(DeviceError, match="it says what no device program says"):
        play(f'print(\'{{"event": "result", "x": \' + {value!r} + \'}}\')')


def test_long_report_is_kept(play: Played) -> None:
    count = session.MAX_RESULT // 2
    assert len(play(f'say(event="result", report=[1.0] * {count})')["report"]) == count


def test_last_words_on_stderr(play: Played) -> None:
    play('sys.stderr.write("no line\'s end"); sys.stderr.flush(); say(event="result")')
    assert "no line's end" in play.log


@pytest.mark.parametrize(
    "words",
    ['print("x" * 999)', 'step("build", "start", "x" * 999)', 'print("{}" * 999)',
     'sys.stderr.write("x" * 999)'],
)  # fmt: skip
def test_log_of_a_device_that_says_much(
    play: Played, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "HEARTBEAT", 0.01)
    play(f"""
for _ in range(4000):
    {words}
say(event="result")
""")
    assert sum(len(line) for line in play.log) <= session.MAX_LOGGED < 4000 * 599


@pytest.mark.parametrize("event", ['{"event": "error"}', '{"event": "error", "text": [1]}'])
def test_error_without_reason(play: Played, event: str) -> None:
    with pytest.raises(DeviceError, match="it says that it failed, and not why"):
        play(f"print({event!r})")
