"""Deploying: what is given, what is written down, what is shown, and what can't be connected to."""

import argparse
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import bundles
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.progress import Console
from pipeline import keys, publish
from pipeline.cli import main
from pipeline.deploy import command, inventory
from pipeline.deploy.flags import add_flags, batch_size
from pipeline.deploy.inventory import Device
from pipeline.deploy.record import DONE, FAILED, Record
from pipeline.deploy.table import status_table, table
from pipeline.deploy.telling import Teller
from pipeline.errors import PipelineError, UsageError
from pipeline.report import read

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("tx2", None, "tx2", None),
        ("nvidia@192.168.1.7", "nvidia", "192.168.1.7", None),
        ("nvidia@tx2.local:2222", "nvidia", "tx2.local", 2222),
        ("nvidia@[fe80::1]:22", "nvidia", "fe80::1", 22),
        ("[::1]", None, "::1", None),
    ],
)
def test_address(text: str, user: str | None, host: str, port: int | None) -> None:
    assert inventory.parse(text) == Device(text, host, user, port)


@pytest.mark.parametrize(
    "text",
    ["", "@tx2", "tx2:", "tx2:0", "tx2:65536", "tx2:-1", "-oProxyCommand=x", "a@b@c", "tx2/..",
     "a b@tx2", "tx2\n", "[tx2", "[tx2]", "fe80::1", "user@", "tx2:22:22", "../tx2"],
)  # fmt: skip
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is no device; give user@host or user@host:port"):
        inventory.parse(text)


INVENTORY = """
[defaults]
user = "nvidia"
engine = "tensorrt,onnxruntime"
root = "/opt/edgetrt"

[devices.tx2-1]
host = "10.0.0.1"
groups = ["line-3", "old"]
precision = "fp16"
root = "~/models"

[devices.orin]
host = "10.0.0.2"
port = 2222
identity = "keys/orin"
engine = ["tensorrt"]
"""


def test_inventory(tmp_path: Path) -> None:
    file = tmp_path / "devices.toml"
    file.write_text(INVENTORY)
    both = ("tensorrt", "onnxruntime")
    tx2 = Device("tx2-1", "10.0.0.1", "nvidia", root="~/models", engine=both, precision=("fp16",),
                 groups=("line-3", "old"))  # fmt: skip
    orin = Device("orin", "10.0.0.2", "nvidia", 2222, tmp_path / "keys/orin", "/opt/edgetrt",
                  engine=("tensorrt",))  # fmt: skip
    assert inventory.read(file) == [tx2, orin]
    assert inventory.read(file, "line-3") == [tx2]
    with pytest.raises(UsageError, match="no device in group 'line-4'; groups there: line-3, old"):
        inventory.read(file, "line-4")
    changed = inventory.with_overrides([tx2], identity=Path("k"), root="/r", python="python3.8")
    assert (changed[0].identity, changed[0].root, changed[0].python) == (
        Path("k"), "/r", "python3.8"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("devices = 3", r"\[devices\] is no table"),
        ("[devices.a]\nuser = 'x'", r"\[devices.a\] has no host"),
        ("[devices.a]\nhost = 3", r"\[devices.a\]: host = 3: text is expected"),
        ("[devices.a]\nhost = 'h'\nport = true", "port = True: a number is expected"),
        ("[devices.a]\nhost = 'h'\nport = 70000", "no good port 70000"),
        ("[devices.a]\nhost = 'h'\nusr = 'x'", r"'usr' is not known; there may be user, port"),
        ("[devices.a]\nhost = '-h'", "no good host '-h'"),
        ("[devices.a]\nhost = 'h'\nuser = 'a b'", "no good user 'a b'"),
        ("[devices.a]\nhost = 'h'\nroot = 'relative'", "no good root 'relative'"),
        ("[devices.a]\nhost = 'h'\nroot = '/a\\nb'\npython = 'a b'", "no good python 'a b'"),
        ("[devices.a]\nhost = 'h'\ngroups = ['a', 3]", "names are expected"),
        ("[devices.a]\nhost = 'h'\nengine = ''", "names are expected"),
        ("[devices.'../a']\nhost = 'h'", "a name has letters"),
        ("[devices.state]\nhost = 'h'", "no good name 'state'"),
        ("[devices.a]\nhost = 'h'\nengine = []", "names are expected"),
        ("[devices.a]\nhost = 'h'\nidentity = '~nobody-of-that-name/key'", "identity = '~nobody"),
        ("[defaults]\nhost = 'h'", r"\[defaults\]: 'host' is not known"),
        ("[default]\nuser = 'h'", "'default' is not known; there may be defaults, devices"),
        ("[defaults]\nuser = 'h'", r"has no \[devices.NAME\]"),
        ("[devices.a\n", "is no inventory: .*line 1"),
        ("\udcff", "is no inventory"),
    ],
)
def test_no_inventory(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "devices.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=words) as caught:
        inventory.read(file)
    assert str(file) in str(caught.value)


def test_device_of_two_names() -> None:
    first, second = (replace(inventory.parse("a@b"), name=name) for name in ("first", "second"))
    with pytest.raises(UsageError, match="devices first and second are the same"):
        inventory.with_overrides([first, second], identity=None, root=None, python=None)
    other = replace(second, port=23)
    assert len(inventory.with_overrides([first, other], identity=None, root=None, python=None)) == 2


def test_device_given_twice() -> None:
    twice = [inventory.parse("a@b"), inventory.parse("a@b")]
    with pytest.raises(UsageError, match="a@b is given twice"):
        inventory.with_overrides(twice, identity=None, root=None, python=None)


@pytest.mark.parametrize(
    ("text", "devices", "size"),
    [("25%", 8, 2), ("25%", 9, 3), ("1%", 3, 1), ("100%", 7, 7), ("4", 100, 4), ("10%", 500, 50)],
)
def test_batch(text: str, devices: int, size: int) -> None:
    assert batch_size(text, devices) == size


@pytest.mark.parametrize(
    "flags",
    [["--batch", "0"], ["--batch", "101%"], ["--batch", "0%"], ["--keep", "0"], ["--port", "0"],
     ["--parallel", "0"], ["--canary", "-1"], ["--max-failures", "x"], ["--port", "65536"]],
)  # fmt: skip
def test_no_good_number(flags: list[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser)
    with pytest.raises(argparse.ArgumentError, match="is expected"):
        parser.parse_args(flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--device", "tx2"], "give a BUNDLE, or --rollback, or --status"),
        (["--status", "--rollback", "--device", "tx2"], "give a BUNDLE, or --rollback"),
        (["--status"], "give --device, once or several times, or --inventory"),
        (["--status", "--device", "tx2", "--inventory", "x"], "give --device, .*or --inventory"),
        (["--status", "--device", "tx2", "--group", "x"], "--group is one of an --inventory"),
        (["--status", "--device", "tx2", "--dry-run"], "--dry-run is for a BUNDLE"),
        (["--rollback", "--device", "tx2", "--report", "x"], "--report is of benchmarks"),
        (["none.edgetrt", "--device", "tx2"], "none.edgetrt is no file"),
        (["--status", "--device", "tx2", "--identity", "none"], "none is no file"),
        (["--status", "--device", "tx2", "--root", "here"], "no good root 'here'"),
        (["--status", "--inventory", "none"], "cannot read none"),
    ],
)
def test_wrong_use(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", *flags]) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trust", "binary", "--allow-unsigned"], "the key is no public EC key on P-256"),
        (["--trust", "text", "--allow-unsigned"], "the key is no public EC key on P-256"),
        (["--trust", "key.pub.pem", "--replace-trust", "--allow-unsigned"], "--replace-trust needs "
         "a signed bundle and its key"),
        (["--allow-unsigned", "--precision", "fp12"], "--precision of 127.0.0.1:1 takes fp32, "
         "fp16, int8, with commas between them"),
        (["--allow-unsigned", "--engine", "none"], "--engine of 127.0.0.1:1 takes onnxruntime, "),
        (["--allow-unsigned", "--engine", ""], "--engine of 127.0.0.1:1 takes onnxruntime, "),
        ([], "small.edgetrt is not signed"),
    ],
)  # fmt: skip
def test_what_is_wrong_before_any_device_is_touched(
    tmp_path: Path, flags: list[str], words: str
) -> None:
    (tmp_path / "small.edgetrt").write_bytes(bundles.small())
    (tmp_path / "binary").write_bytes(b"\xff\0")
    (tmp_path / "text").write_text("no key")
    keys.generate(tmp_path / "key.pem")
    done = edgetrt("small.edgetrt", "--device", "127.0.0.1:1", *flags, cwd=tmp_path)
    assert done.stderr.startswith("edgetrt: ")
    assert words in done.stderr
    assert "unexpected" not in done.stderr
    assert not (tmp_path / "deployments").exists()


def test_names_may_have_spaces(tmp_path: Path) -> None:
    (tmp_path / "small.edgetrt").write_bytes(bundles.small())
    done = edgetrt("small.edgetrt", "--device", f"127.0.0.1:{closed_port()}", "--allow-unsigned",
                   "--precision", "fp32, fp16", "--engine", "tensorrt, onnxruntime", "--log", "log",
                   cwd=tmp_path)  # fmt: skip
    assert "refuses connections" in done.stderr
    (entry,) = json.loads((tmp_path / "log" / "state.json").read_text()).values()
    assert entry["asked"]["precisions"] == ["fp32", "fp16"]
    assert entry["asked"]["engines"] == ["tensorrt", "onnxruntime"]


def test_other_device_of_the_same_name_is_not_done_before(tmp_path: Path) -> None:
    (tmp_path / "small.edgetrt").write_bytes(bundles.small())

    def deploy(first: str) -> str:
        (tmp_path / "devices.toml").write_text(
            f"[defaults]\nport = {closed_port()}\n[devices.one]\n{first}\n"
            "[devices.two]\nhost = '127.0.0.1'\n"
        )
        return edgetrt(
            *["small.edgetrt", "--inventory", "devices.toml", "--allow-unsigned"],
            *["--log", "log", "--canary", "0", "--max-failures", "9"],
            cwd=tmp_path,
        ).stdout

    deploy("host = '127.0.0.1'\nport = 1")
    state = tmp_path / "log" / "state.json"
    entries = json.loads(state.read_text())
    entries["one"] |= {"state": DONE, "text": ""}
    state.write_text(json.dumps(entries))
    assert re.search("one +done .*done before", deploy("host = '127.0.0.1'\nport = 1"))
    for other in ("host = '127.0.0.2'\nport = 1", "host = '127.0.0.1'\nport = 2",
                  "host = '127.0.0.1'\nport = 1\nroot = '/opt/edgetrt'"):  # fmt: skip
        assert "done before" not in deploy(other)
        state.write_text(json.dumps(entries))


def test_page_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes last, and its failure must not be all that is told."""
    monkeypatch.setattr(read, "read", lambda _file: {})
    (tmp_path / "one.json").write_text("{}")
    (tmp_path / "page").write_text("a file")
    for error, words in (
        (OSError(28, "No space left on device", "page/x"), "page/x: No space left on device"),
        (PipelineError("it is damaged"), "it is damaged"),
    ):

        def merge(_files: Any, _out: Path, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(publish, "merge", merge)
        found = command._merge([tmp_path / "one.json"], tmp_path / "page", Console())
        assert found == (None, f"no page: {words}")


def test_no_page_without_reports(tmp_path: Path) -> None:
    (tmp_path / "small.edgetrt").write_bytes(bundles.small())
    done = edgetrt("small.edgetrt", "--device", f"127.0.0.1:{closed_port()}", "--allow-unsigned",
                   "--report", "page", "--json", cwd=tmp_path)  # fmt: skip
    results = json.loads(done.stdout)
    assert results["report"] is None
    assert "warning: no device has a report, so there is no page of them" in done.stderr


def edgetrt(*words: str, cwd: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline.cli", "deploy", *words]
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(cwd)}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**environment, **more},
        stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def closed_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return port


def test_devices_that_are_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as no_ssh:
        threading.Thread(target=lambda: no_ssh.accept()[0].close(), daemon=True).start()
        other, closed = no_ssh.getsockname()[1], closed_port()
        names = [f"a@127.0.0.1:{closed}", "a@no-such-host.invalid", f"a@127.0.0.1:{other}"]
        done = edgetrt("--status", "--json", *(w for n in names for w in ("--device", n)),
                       cwd=tmp_path, EDGETRT_SSH_PASSWORD="secret")  # fmt: skip
    assert done.returncode == 1
    entries = json.loads(done.stdout)["devices"]
    assert [entries[name]["state"] for name in names] == [FAILED] * 3
    refused, unknown, mute = (entries[name]["text"] for name in names)
    assert refused == (f"127.0.0.1:{closed} refuses connections; is it on, and does its SSH server "
                       "run there?")  # fmt: skip
    assert unknown == "no host is called 'no-such-host.invalid'; check its name"
    assert mute == (f"what answers at 127.0.0.1:{other} is no SSH server, or hangs up; is it too "
                    "busy?")  # fmt: skip
    assert sorted(done.stderr.splitlines()) == sorted(
        [f"warning: {name}: connect: {entries[name]['text']}" for name in names]
        + ["status: 3/3 devices" + next(line for line in done.stderr.splitlines()
                                        if line.startswith("status"))[19:]]
        + ["edgetrt: 3 of 3 devices failed"]
    )  # fmt: skip
    assert "secret" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", [[], ["--debug"]])
def test_identity_that_is_none(tmp_path: Path, flag: list[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    locked = tmp_path / "locked"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.BestAvailableEncryption(b"open"),
        )
    )
    (tmp_path / "none").write_text("no key")
    to = ["--status", "--device", f"127.0.0.1:{closed_port()}", *flag, "--identity"]
    said = edgetrt(*to, "locked", cwd=tmp_path).stderr
    assert "locked is locked by a password; give it to --ask-password" in said
    said = edgetrt(*to, "locked", cwd=tmp_path, EDGETRT_SSH_PASSWORD="shut").stderr
    assert "locked is no private key that can be used" in said or "locked by a password" in said
    assert "shut" not in said
    said = edgetrt(*to, "locked", cwd=tmp_path, EDGETRT_SSH_PASSWORD="open").stderr
    assert "refuses connections" in said
    assert "none is no private key that can be used" in edgetrt(*to, "none", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tx2 ssh-ed25519 AAAAB\n", "hosts has a damaged line: tx2 ssh-ed25519 AAAAB"),
        ("@revoked * ssh-ed25519 AAAA\n", "hosts has lines with @, which can't be heeded here"),
    ],
)
def test_known_hosts_that_would_not_be_heeded(tmp_path: Path, text: str, words: str) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(text)
    for more in ([], ["--accept-new-host-key"]):
        done = edgetrt("--status", "--device", "tx2", "--known-hosts", "hosts", *more, cwd=tmp_path)
        assert done.returncode == 1
        assert words in done.stderr
        assert hosts.read_text() == text


@pytest.mark.parametrize("text", ["Host *\n Port x\n", "Match nothing\n", "Host\n"])
def test_damaged_ssh_config(tmp_path: Path, text: str) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(text)
    done = edgetrt("--status", "--device", "tx2", cwd=tmp_path)
    assert done.returncode == 1
    assert "edgetrt: ~/.ssh/config can't be used: " in done.stderr


def test_files_for_new_host_keys(tmp_path: Path) -> None:
    """The folder is made as OpenSSH makes it, and a last line gets its end."""
    to = ["--status", "--device", f"127.0.0.1:{closed_port()}", "--accept-new-host-key"]
    edgetrt(*to, cwd=tmp_path)
    hosts = tmp_path / ".ssh" / "known_hosts"
    assert hosts.read_bytes() == b""
    assert hosts.parent.stat().st_mode & 0o777 == 0o700
    hosts.write_text("# mine")
    edgetrt(*to, cwd=tmp_path)
    assert hosts.read_text() == "# mine\n"


def test_interrupted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "deploy", "--status", "--device",
             f"127.0.0.1:{port}"],
            cwd=REPOSITORY, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        held, _ = silent.accept()  # else it hangs up
        with held:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said == "edgetrt: interrupted; the same command goes on where it can\n"


ASKED = {"release": "0123", "do": "deploy"}


def entry(**more: Any) -> dict[str, Any]:
    return {"state": DONE, "text": "", "asked": ASKED, "seconds": 1.25, **more}


def test_record_goes_on(tmp_path: Path) -> None:
    one, two = Device("one", "h"), Device("two", "h")
    with Record(tmp_path / "log") as record:
        assert record.done_before(one, ASKED) is None
        with record.log(one) as log:
            log("it says \x1b[2J\nnothing")
        record.keep(one, entry(), {"schema": 2})
        record.keep(two, entry(state=FAILED, text="no"), None)
    with Record(tmp_path / "log") as record:
        assert record.done_before(one, ASKED) == entry()
        assert record.done_before(one, {**ASKED, "release": "4567"}) is None
        assert record.done_before(two, ASKED) is None
        refused = pytest.raises(UsageError, match="another deployment is at work with")
        with refused, Record(tmp_path / "log"):
            pass
    state = json.loads((tmp_path / "log" / "state.json").read_text())
    assert {name: value["state"] for name, value in state.items()} == {"one": DONE, "two": FAILED}
    assert json.loads((tmp_path / "log" / "one.json").read_text()) == {"schema": 2}
    (line,) = (tmp_path / "log" / "one.log").read_text().splitlines()
    assert line.endswith("Z it says \\x1b[2J\\nnothing")


def test_record_grows_no_worse_than_linearly(tmp_path: Path) -> None:
    """Of a whole file for each device, the last hundred would be most of what is written."""
    written = []

    class Counting(Record):
        def _write(self, folder: Path) -> None:
            super()._write(folder)
            written.append((folder / "state.json").stat().st_size)

    with Counting(tmp_path) as record:
        for number in range(500):
            record.keep(Device(f"d{number}", "h"), entry(text="x" * 1000), None)
    assert len(json.loads((tmp_path / "state.json").read_text())) == 500
    assert sum(written) < 50 * written[-1]


def test_record_that_is_none_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(PipelineError), Record(tmp_path):
        pass
    (tmp_path / "state.json").unlink()
    with Record(tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is damaged .*remove it"), ("[]", "is no record"), ('{"a": 1}', "is no record")],
)
def test_record_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(PipelineError, match=words), Record(tmp_path):
        pass


def test_nothing_is_written_without_a_folder() -> None:
    with Record(None) as record, record.log(Device("one", "h")) as log:
        log("nothing")
        record.keep(Device("one", "h"), entry(), {"schema": 2})


def test_table() -> None:
    served = {"engine": "tensorrt-fp16", "engines": {"tensorrt-fp16": {"p90_ms": 3.14159}}}
    shown = table({
        "one": entry(result={**served, "changed": True}),
        "two": entry(result={**served, "changed": False}),
        "three": entry(state=FAILED, step="build", text="out of memory\nmore", rolled_back=True),
        "four": {"state": "not started", "text": "too many others failed"},
        "five": entry(result={"dry_run": True, "changed": True, "missing_bytes": 2_500_000}),
    })  # fmt: skip
    assert shown.splitlines() == [
        "device  state        engine         p90 ms  seconds",
        "one     done         tensorrt-fp16  3.14    1.2",
        "two     done         tensorrt-fp16  3.14    1.2      already deployed",
        "three   failed                              1.2      build: out of memory; rolled back",
        "four    not started                                  too many others failed",
        "five    done                                1.2      would be deployed, 2.5 MB to send",
    ]


def test_status_table() -> None:
    releases = [{"release": "0123", "engine": "tensorrt-fp16"}]
    server = {"state": "failed", "engine": "tensorrt-int8", "reason": "it answers wrong"}
    shown = status_table({
        "one": entry(result={"current": "0123", "releases": releases, "server": None}),
        "two": entry(result={"current": "0123", "releases": releases, "server": server}),
        "three": entry(result={"current": None, "releases": [], "server": None}),
        "four": entry(state=FAILED, step="connect", text="it refuses", result=None),
    })  # fmt: skip
    assert shown.splitlines() == [
        "device  release  engine         server  releases",
        "one     0123     tensorrt-fp16  off     1",
        "two     0123     tensorrt-int8  failed  1         it answers wrong",
        "three   none                    off     0",
        "four                                              connect: it refuses",
    ]


@pytest.mark.parametrize(
    "value", [None, 3, 10**400, -1, True, [], "x" * 999, "a\nb\x1b[2J", {"a": 1}]
)
def test_table_of_a_device_that_lies(value: Any) -> None:
    keys = ("engine", "engines", "current", "server", "releases", "missing_bytes", "changed")
    result = dict.fromkeys(keys, value)
    nested = {"engine": "e", "engines": {"e": {"p90_ms": value}}, "server": {"state": value}}
    for lie in (value, result, nested, {"dry_run": True, **result}):
        for show in (table, status_table):
            lines = show({"one": entry(result=lie)}).splitlines()
            assert len(lines) == 2
            assert "\x1b" not in lines[1]
            assert len(lines[1]) < 400


def test_steps_of_one_device(capsys: pytest.CaptureFixture[str]) -> None:
    one = Device("one", "h")
    with Teller(Console(), "deploy", 1) as teller:
        teller.said(one, {"event": "step", "step": "check", "state": "start", "text": ""})
        teller.said(one, {"event": "step", "step": "check", "state": "done", "text": "a TX2\x07"})
        for done in (2_000_000, 3_999_999, 5_000_000):
            event = {"event": "progress", "step": "transfer", "done": done, "total": 5_000_000}
            teller.said(one, event)
        teller.said(one, {"event": "progress", "step": "transfer", "done": "x", "total": None})
        teller.said(one, {"event": "step", "step": "transfer", "state": "done", "text": ""})
        teller.finished(one, entry(state=FAILED, step="build", text="first\nsecond"))
    check, sent, transfer, *failed = capsys.readouterr().err.splitlines()
    assert check == "one: check: a TX2\\x07"
    assert re.fullmatch(r"transfer: 5/5 MB, [0-9.]+ MB/s", sent)
    assert transfer == "one: transfer: done"
    assert failed == ["warning: one: build: first", "warning: one: second"]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "lie", [{"done": 10**400, "total": 10**400}, {"step": "[/x]"}, {"step": "x" * 999}]
)
def test_progress_of_a_device_that_lies(
    lie: dict[str, Any], terminal: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    one = Device("one", "h")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with Teller(Console(), "deploy", 1) as teller:
        teller.said(one, {"event": "progress", "step": "build", "done": 1, "total": 2, **lie})
        teller.finished(one, entry())
    assert capsys.readouterr().err == ""


def test_many_devices_are_told_when_they_are_through(capsys: pytest.CaptureFixture[str]) -> None:
    served = {"engine": "tensorrt-fp16", "engines": {"tensorrt-fp16": {"p90_ms": 3.14159}}}
    one, two = Device("one", "h"), Device("two", "h")
    with Teller(Console(), "deploy", 2) as teller:
        teller.said(one, {"event": "step", "step": "check", "state": "done", "text": "a TX2"})
        teller.finished(one, entry(result=served))
        teller.finished(two, {"state": "not started", "text": "too many others failed"})
    told, bar = capsys.readouterr().err.splitlines()
    assert told == "one: done, tensorrt-fp16, 3.14 ms"
    assert bar.startswith("deploy: 2/2 devices")
