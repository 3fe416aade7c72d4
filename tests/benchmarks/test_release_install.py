"""From a bundle to the release that is current: what is sent, checked, refused, kept and undone."""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from releases import ASKED, ENGINE, GRAPH, Key, Made, bundle, deploy, quick_disk

from benchmarks import loadgen
from benchmarks.device.release import content, engines, health, install, store
from benchmarks.device.release.content import Missing
from benchmarks.device.release.engines import Asked
from benchmarks.device.release.install import roll_back
from benchmarks.device.release.status import status
from benchmarks.device.release.steps import Steps
from benchmarks.device.release.store import Store
from benchmarks.progress import Console
from benchmarks.scenarios import Effort
from engines import onnx_runtime
from engines.bundle.manifest import BundleError
from engines.engine import EngineError
from engines.tensorrt import standard

A, B, C, D = (bundle(scale) for scale in (0.01, 0.02, 0.03, 0.04))
QUIET = Console(quiet=True)
__all__ = ["quick_disk"]  # a fixture


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time engines no longer than to see that they are timed; load them in this process."""
    monkeypatch.setattr(engines, "EFFORT", Effort("quick", 2, 0.0, 1, 0.001, 0.01))
    monkeypatch.setattr(loadgen, "compare", lambda *_: {"reason": "not measured"})

    def prove(store: Store) -> None:
        try:
            health.main(str(store.root / "current"))
        except SystemExit as error:
            raise EngineError(str(error)) from error

    monkeypatch.setattr(health, "_prove_without_server", prove)


@pytest.fixture
def root(quick_disk: Path) -> Path:
    return quick_disk / "edgetrt"


def everything(root: Path) -> dict[str, Any]:
    """What is in a folder: of files the bytes, of links where they lead."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file() and path.name not in ("lock",):
            found[str(path)] = path.read_bytes()
    return found


def back(root: Path) -> Any:
    return roll_back(Store(root), Steps(lambda _: None), QUIET, lambda: None)


def counting(made: Made, sent: list[Missing]) -> Any:
    def source(missing: Missing) -> Any:
        sent.append(missing)
        return made.source(missing)

    return source


def test_whole_way(root: Path) -> None:
    events: list[dict[str, Any]] = []
    result = deploy(root, A, events)
    assert result["release"] == A.id
    assert result["changed"]
    assert result["engine"] == ENGINE
    assert result["engines"][ENGINE]["golden"]["ok"]
    assert result["engines"][ENGINE]["p90_ms"] > 0
    assert result["report"]["engines"][0]["name"] == ENGINE
    assert result["versions"]["numpy"]
    steps = ["check", "space", "transfer", "verify", "build", "self-test", "benchmark", "switch",
             "health", "tidy"]  # fmt: skip
    assert [event["step"] for event in events if event.get("state") == "done"] == steps
    assert list(result["seconds"]) == steps
    assert os.readlink(root / "current") == f"releases/{A.id}"
    for path, data in A.files.items():
        assert (root / "current" / path).read_bytes() == data
    assert not (root / "pending.json").exists()
    assert root.stat().st_mode & 0o777 == 0o700
    found = status(Store(root))
    assert found["releases"] == [
        {"release": A.id, "name": "demo", "engine": ENGINE, "complete": True}
    ]
    assert (found["current"], found["previous"], found["key"]) == (A.id, None, None)
    assert [entry["event"] for entry in found["history"]] == ["deployed"]


def test_second_time_nothing_happens(root: Path) -> None:
    deploy(root, A)
    before = everything(root)
    sent: list[Missing] = []
    events: list[dict[str, Any]] = []
    result = deploy(root, A, events, source=counting(A, sent))
    assert not result["changed"]
    assert result["engine"] == ENGINE
    assert result["report"]["engines"][0]["name"] == ENGINE  # of the time before
    assert "already deployed" in [event.get("text") for event in events]
    assert everything(root) == before
    assert not sent


def test_port_that_is_taken_is_told_before_any_work(root: Path) -> None:
    events: list[dict[str, Any]] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"can't listen at 127.0.0.1 port {port}: .*--port"):
            deploy(root, A, events, port=port)
    assert {event["step"] for event in events if "step" in event} == {"check"}
    assert not list((root / "releases").iterdir())


def test_only_what_is_missing_is_sent(root: Path) -> None:
    deploy(root, A)
    sent: list[Missing] = []
    deploy(root, B, source=counting(B, sent))
    assert [missing.file.path for missing in sent] == [GRAPH]


def test_goes_on_where_the_line_was_cut(root: Path) -> None:
    made = bundle(padding=5_000_000)

    def cut(missing: Missing) -> Any:
        data = made.source(missing).read()
        return io.BytesIO(data[:3_000_000])

    with pytest.raises(EngineError, match="padding.txt is cut off"):
        deploy(root, made, source=cut)
    assert Store(root).current() is None
    sent: list[Missing] = []
    deploy(root, made, source=counting(made, sent))
    offsets = {missing.file.path: missing.offset for missing in sent}
    assert offsets["licences/padding.txt"] == 3_000_000
    assert Store(root).current() == made.id


def test_what_was_received_and_damaged_is_asked_for_anew(root: Path) -> None:
    made = bundle(padding=2_000_000)
    with pytest.raises(EngineError, match="cut off"):
        deploy(root, made, source=lambda m: io.BytesIO(made.source(m).read()[:1_500_000]))
    [partial] = (root / "files").glob(".tmp-*")
    data = bytearray(partial.read_bytes())
    data[1_000_000] ^= 1  # as after a power cut, where the size was on the disk before the bytes
    partial.write_bytes(data)
    sent: list[Missing] = []
    deploy(root, made, source=counting(made, sent))
    padding = [m.offset for m in sent if m.file.path == "licences/padding.txt"]
    assert padding == [1_500_000, 0]
    assert Store(root).current() == made.id


def test_damaged_on_its_way(root: Path) -> None:
    deploy(root, A)
    before = everything(root / "releases" / A.id)
    with pytest.raises(content.DamagedError, match=r"model.fp32.onnx was damaged on its way"):
        deploy(root, B, source=lambda m: io.BytesIO(b"x" * m.file.size))
    assert Store(root).current() == A.id
    assert everything(root / "releases" / A.id) == before
    assert not list((root / "files").glob(".tmp-*"))


@pytest.mark.parametrize("where", ["files", "release", "engine", "sidecar"])
def test_what_is_damaged_is_mended(root: Path, where: str) -> None:
    deploy(root, A)
    release = root / "releases" / A.id
    victims = {
        "files": next(p for p in (root / "files").iterdir() if p.read_bytes() == A.files[GRAPH]),
        "release": release / "golden" / "0.png",
        "engine": release / "engines" / f"{ENGINE}.onnx",
        "sidecar": release / "engines" / f"{ENGINE}.json",
    }
    victim = victims[where]
    good = victim.read_bytes()
    victim.chmod(0o600)
    victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    result = deploy(root, A)
    assert result["changed"]
    if where != "sidecar":
        assert victim.read_bytes() == good
    assert (release / GRAPH).read_bytes() == A.files[GRAPH]
    assert (release / "golden" / "0.png").read_bytes() == A.files["golden/0.png"]
    assert engines.usable(release, ENGINE) is None
    assert not deploy(root, A)["changed"]


def test_manifest_that_was_changed_in_place_is_mended(root: Path) -> None:
    deploy(root, A)
    manifest = root / "releases" / A.id / "manifest.json"
    manifest.write_bytes(A.manifest.replace(b"demo", b"evil"))
    deploy(root, A)
    assert manifest.read_bytes() == A.manifest


def test_wrong_answers_are_not_deployed(root: Path) -> None:
    deploy(root, A)
    with pytest.raises(EngineError, match=r"no engine answers the golden cases right: .*expected"):
        deploy(root, bundle(0.02, wrong=True))
    assert Store(root).current() == A.id
    assert Store(root).previous() is None


def test_build_that_is_killed_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(root, A)

    def killed(*_: object, **__: object) -> None:
        raise EngineError("the build was killed, most likely for want of memory")

    with monkeypatch.context() as patch:
        patch.setattr(onnx_runtime, "build", killed)
        with pytest.raises(EngineError, match="killed") as caught:
            deploy(root, B)
    assert caught.value.steps.now == "build"  # type: ignore[attr-defined]
    assert Store(root).current() == A.id
    assert deploy(root, B)["release"] == B.id


def test_what_does_not_prove_good_is_undone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(root, A)

    def prove(_: Store) -> None:
        raise EngineError("it is ill")

    with monkeypatch.context() as patch:
        patch.setattr(health, "_prove_without_server", prove)
        with pytest.raises(EngineError, match="it is ill") as caught:
            deploy(root, B)
        with pytest.raises(EngineError, match="it is ill"):
            deploy(root.with_name("fresh"), B)
    assert caught.value.steps.rolled_back  # type: ignore[attr-defined]
    assert Store(root).current() == A.id
    assert not (root / "pending.json").exists()
    last = Store(root).history()[-1]
    assert (last["event"], last["release"], last["from"]) == ("rolled back", A.id, B.id)
    assert last["text"] == "it is ill"
    assert not (root.with_name("fresh") / "current").is_symlink()
    assert deploy(root, B)["release"] == B.id


def test_other_engines_of_the_same_bundle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(root, A)
    link = (root / "current").lstat()
    asked = Asked(["onnxruntime"])
    assert deploy(root, A, asked=asked)["changed"]
    assert (root / "current").lstat().st_ino != link.st_ino  # so the server looks again
    assert not deploy(root, A, asked=asked)["changed"]
    assert deploy(root, A)["changed"]


def test_slower_engines_are_not_served() -> None:
    found: Any = {name: {"p90_ms": ms} for name, ms in
                  {"fp32": 3.0, "fp16": 1.0, "int8": 1.1, "failed": None}.items()}  # fmt: skip
    assert engines.fastest(found) == "fp16"
    with pytest.raises(EngineError, match="no engine ran"):
        engines.fastest({"failed": found["failed"]})


def test_engines_of_the_same_graph_are_not_built_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(root, A)

    def rename(manifest: dict[str, Any]) -> None:
        manifest["name"] = "other"

    def build(*_: object) -> None:
        raise AssertionError("it was built again")

    monkeypatch.setattr(onnx_runtime, "build", build)
    renamed = bundle(0.01, change=rename)
    assert renamed.id != A.id
    assert deploy(root, renamed)["release"] == renamed.id


def test_keeps_the_last_releases(root: Path) -> None:
    for made in (A, B, C, D):
        deploy(root, made, keep=2)
    store = Store(root)
    assert set(store.releases()) == {C.id, D.id}
    assert store.previous() == C.id
    shared = {path: data for path, data in D.files.items() if path != GRAPH}
    kept = {file.read_bytes() for file in (root / "files").iterdir()}
    assert kept == {*shared.values(), C.files[GRAPH], D.files[GRAPH]}


@pytest.mark.parametrize("keep", [1, 2, 4, 6])
def test_keeps_as_many_as_were_asked_for(quick_disk: Path, keep: int) -> None:
    store, made = Store(quick_disk / "edgetrt"), [f"{number:016x}" for number in range(8)]
    with store.locked():
        for count, release in enumerate(made, 1):
            store.folder(release).mkdir()
            store.switch(release, {"schema": 1, "id": release, "complete": True})
            store.confirm("deployed")
            store.tidy(keep)
            assert store.releases() == made[max(0, count - keep) : count]


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": 7}', '{"files": [7, {"sha256": []}]}'])
def test_damaged_manifest_of_an_old_release_is_removed_as_any(root: Path, manifest: str) -> None:
    deploy(root, A)
    (root / "releases" / A.id / "manifest.json").write_text(manifest)
    assert deploy(root, B, keep=1)["release"] == B.id
    assert Store(root).releases() == [B.id]


def test_old_release_that_can_not_be_removed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(root, A)

    real = shutil.rmtree

    def rmtree(path: Any, *given: Any, **options: Any) -> None:
        if str(path).startswith(str(root)):
            raise OSError(5, "Input/output error")
        real(path, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", rmtree)
        assert deploy(root, B, keep=1)["release"] == B.id
    store = Store(root)
    assert store.releases() == sorted([A.id, B.id])
    assert store.about(A.id) is None  # whatever is left of it, nobody goes back to it
    assert store.previous() is None
    deploy(root, C, keep=2)
    assert store.releases() == sorted([B.id, C.id])


def test_goes_back_step_by_step(root: Path) -> None:
    for made in (A, B, C):
        deploy(root, made)
    assert back(root)["release"] == B.id
    assert back(root)["release"] == A.id
    with pytest.raises(EngineError, match="there is no release before this one"):
        back(root)
    assert Store(root).current() == A.id
    deploy(root, C)
    assert Store(root).previous() == A.id
    assert [entry["event"] for entry in Store(root).history()] == (
        ["deployed"] * 3 + ["rolled back"] * 2 + ["deployed"]
    )


def test_way_back_from_what_was_never_confirmed_is_one_release(root: Path) -> None:
    for made in (A, B, C):
        deploy(root, made)
    back(root)
    there = Store(root)
    with there.locked():
        there.switch(C.id, there.about(C.id) or {})  # and the power is cut
    result = back(root)
    assert (result["release"], there.current()) == (B.id, B.id)
    assert list(result["seconds"]) == ["health"]
    with there.locked():
        there.switch(A.id, there.about(A.id) or {}, "rolled back")  # that one was on its way back
    assert back(root)["release"] == A.id


def test_way_back_from_the_only_release(root: Path) -> None:
    deploy(root, A)
    there = Store(root)
    (root / "current").unlink()
    (root / "history.json").unlink()
    with there.locked():
        there.switch(A.id, there.about(A.id) or {})
    with pytest.raises(EngineError, match="there is no release before this one"):
        back(root)
    assert there.current() is None


class TestProgram:
    """The device program, where it is one file."""

    @pytest.fixture
    def run_by(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        def run_by(data: bytes) -> str:
            path = tmp_path / hashlib.sha256(data).hexdigest()
            path.write_bytes(data)
            monkeypatch.setattr(store, "HOME", path)
            monkeypatch.setattr(install, "HOME", path, raising=False)
            return path.name

        return run_by

    @staticmethod
    def programs(root: Path) -> tuple[str, str]:
        """What release.json names, and where program.pyz leads."""
        about = Store(root).about(A.id) or {}
        return about["program"], (root / "current" / "program.pyz").resolve().name

    def test_newer_one_takes_over_the_same_bundle(
        self, root: Path, run_by: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run_by(b"first")
        deploy(root, A)
        assert self.programs(root) == (first, first)
        assert not deploy(root, A)["changed"]
        second = run_by(b"second")
        monkeypatch.setattr(onnx_runtime, "build", lambda *_: pytest.fail("it was built again"))
        assert deploy(root, A, dry_run=True)["changed"]
        assert deploy(root, A)["changed"]
        assert self.programs(root) == (second, second)
        assert (root / "files" / second).read_bytes() == b"second"
        assert not deploy(root, A)["changed"]

    def test_goes_back_with_its_release(
        self, root: Path, run_by: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run_by(b"first")
        deploy(root, A)
        run_by(b"second")

        def prove(_: Store) -> None:
            raise EngineError("it is ill")

        monkeypatch.setattr(health, "_prove_without_server", prove)
        with pytest.raises(EngineError, match="it is ill"):
            deploy(root, A)
        assert self.programs(root) == (first, first)
        assert (root / "files" / first).read_bytes() == b"first"

    def test_damaged_one_is_mended(self, root: Path, run_by: Any) -> None:
        first = run_by(b"first")
        deploy(root, A)
        (root / "files" / first).write_bytes(b"ftsir")
        (root / "current" / "program.pyz").unlink()
        deploy(root, A)
        assert (root / "files" / first).read_bytes() == b"first"
        assert self.programs(root) == (first, first)

    def test_what_no_release_needs_goes(self, root: Path, run_by: Any) -> None:
        first = run_by(b"first")
        deploy(root, A)
        files = root / "files"
        for path in (files / "00", files / ".tmp-program-cut", files / ".tmp-program-now"):
            path.touch()
        second = run_by(b"second")
        for path in files.iterdir():
            if path.name != ".tmp-program-now":
                os.utime(path, (0, 0))
        deploy(root, B)
        there = {path.name for path in files.iterdir()}
        assert there == {*A.by_hash(), *B.by_hash(), first, second, ".tmp-program-now"}
        deploy(root, B, keep=1)
        assert first not in {path.name for path in files.iterdir()}


def test_first_error_is_told_where_the_way_back_is_barred(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: a server that was started is ended all the same."""
    deploy(root, A)
    done: list[Any] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise EngineError("the first error")

    with monkeypatch.context() as patch:
        patch.setattr(health, "prove", lambda *_, **__: "a server")
        patch.setattr(health, "stop", done.append)
        patch.setattr(health, "wait_for_return", lambda *_: done.append("waited"))
        patch.setattr(Store, "_record", refuse)
        patch.setattr(Store, "recover", full)
        with monkeypatch.context() as inner:
            inner.setattr(Store, "recover", lambda *_: None)  # of the beginning
            real = Store.switch

            def switch(*given: Any) -> None:
                real(*given)
                patch.setattr(Store, "recover", full)

            inner.setattr(Store, "switch", switch)
            with pytest.raises(EngineError, match="the first error") as caught:
                deploy(root, B)
    assert done == ["a server"]  # nobody waits for a return that did not come about
    assert not caught.value.steps.rolled_back  # type: ignore[attr-defined]
    assert back(root)["release"] == A.id


@pytest.mark.parametrize("place", ["current", "files/.tmp-00", "files/00"])
def test_folder_where_none_belongs(root: Path, place: str) -> None:
    (root / place).mkdir(parents=True)
    with pytest.raises(EngineError, match=f"{place} is .*; move it away"):
        deploy(root, A)
    (root / place).rmdir()
    assert deploy(root, A)["changed"]


def test_does_not_go_back_to_what_is_damaged(root: Path) -> None:
    deploy(root, A)
    deploy(root, B)
    (root / "releases" / A.id / "golden" / "0.png").unlink()
    with pytest.raises(EngineError, match=rf"release {A.id} is damaged: golden/0.png"):
        back(root)
    assert Store(root).current() == B.id


@pytest.mark.parametrize("seconds", [-20 * 365 * 86400, 20 * 365 * 86400])
def test_clock_may_be_years_off(
    root: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    deploy(root, A)
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + seconds)
        deploy(root, B)
    os.utime(root / "releases" / A.id / "manifest.json", (0, 0))
    deploy(root, C)
    assert Store(root).previous() == B.id
    assert back(root)["release"] == B.id
    assert back(root)["release"] == A.id


def test_dry_run_changes_nothing(root: Path) -> None:
    result = deploy(root, A, dry_run=True)
    assert not root.exists()
    assert (result["dry_run"], result["changed"]) == (True, True)
    assert result["missing_bytes"] == sum(map(len, A.files.values()))
    deploy(root, A)
    before = everything(root)
    assert not deploy(root, A, dry_run=True)["changed"]
    assert deploy(root, B, dry_run=True)["missing_bytes"] == len(B.files[GRAPH])
    assert everything(root) == before


# What is refused


def test_no_tensorrt(root: Path) -> None:
    with pytest.raises(EngineError, match=r"tensorrt engines can't run here: TensorRT is not inst"):
        deploy(root, A, asked=Asked())
    with pytest.raises(EngineError, match="there is no engine tpu; there are: onnxruntime"):
        deploy(root, A, asked=Asked(["tpu"]))


def test_precision_that_the_bundle_has_not(root: Path) -> None:
    with pytest.raises(EngineError, match="the bundle has no int8; it has fp32"):
        deploy(root, A, asked=Asked(["onnxruntime"], ["int8"]))


def test_precision_that_the_gpu_is_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.bundle.manifest import parse
    from engines.targets import Gpu

    def all_precisions(manifest: dict[str, Any]) -> None:
        manifest["precisions"] = ["fp32", "fp16", "int8"]

    document = json.loads(A.manifest)
    manifest = parse(A.manifest)
    all_precisions(document)
    manifest = manifest._replace(data=document)
    monkeypatch.setattr(engines, "gpu_here", lambda: Gpu("TX2", (6, 2)))
    monkeypatch.setattr(engines, "none_runs", lambda _: None)
    machine, notes = engines.examine(manifest, Asked())
    assert machine.name.startswith("TX2")
    [note] = notes
    assert note.startswith("int8 is left out: sm62")
    with pytest.raises(EngineError, match=r"int8 can't be used: .*use --precision fp16"):
        engines.examine(manifest, Asked(["tensorrt"], ["int8"]))
    assert engines.examine(manifest, Asked(["onnxruntime"]))[1] == []
    document["targets"] = ["sm87"]
    with pytest.raises(EngineError, match="the bundle is for sm87; this is TX2"):
        engines.examine(manifest, Asked())
    document["targets"] = ["sm87", "sm62"]
    assert engines.examine(manifest, Asked())


def test_board_that_the_bundle_is_not_for(root: Path) -> None:
    made = bundle(change=lambda manifest: manifest.update(targets=["TX2"]))
    with pytest.raises(EngineError, match="the bundle is for TX2; this is"):
        deploy(root, made)


@pytest.mark.parametrize(("schema", "words"), [(0, "older edgetrt"), (2, "newer edgetrt")])
def test_bundle_of_another_schema(root: Path, schema: int, words: str) -> None:
    deploy(root, A)
    made = bundle(0.02, change=lambda manifest: manifest.update(schema=schema))
    with pytest.raises(BundleError, match=words):
        deploy(root, made)
    assert Store(root).current() == A.id


class TestTrust:
    ours, other = Key(), Key()

    def test_first_key_is_pinned(self, root: Path) -> None:
        signed = bundle(0.01, self.ours)
        deploy(root, signed, offer=signed.offer(trust=self.ours.public, allow_unsigned=False))
        assert (root / "key.pem").read_bytes() == self.ours.public
        again = bundle(0.02, self.ours)
        deploy(root, again, offer=again.offer(allow_unsigned=False))
        assert Store(root).current() == again.id

    def refused(self, root: Path, made: Made, words: str, **options: Any) -> None:
        before = everything(root)
        sent: list[Missing] = []
        with pytest.raises(EngineError, match=words):
            deploy(root, made, source=counting(made, sent), offer=made.offer(**options))
        assert everything(root) == before
        assert not sent

    def test_other_keys(self, root: Path) -> None:
        signed = bundle(0.01, self.ours)
        deploy(root, signed, offer=signed.offer(trust=self.ours.public))
        foreign = bundle(0.02, self.other)
        self.refused(root, foreign, "the signature is not by the key")
        self.refused(root, foreign, "--replace-trust", trust=self.other.public)
        self.refused(root, bundle(0.02), "the bundle is not signed, and this device accepts")
        self.refused(root, foreign, "no public EC key", trust=b"nonsense")
        deploy(root, foreign, offer=foreign.offer(trust=self.other.public, replace_trust=True))
        assert (root / "key.pem").read_bytes() == self.other.public

    def test_key_of_a_deployment_that_failed_is_not_pinned(self, root: Path) -> None:
        wrong = bundle(0.01, self.ours, wrong=True)
        with pytest.raises(EngineError, match="golden"):
            deploy(root, wrong, offer=wrong.offer(trust=self.ours.public))
        assert not (root / "key.pem").exists()

    @pytest.mark.parametrize("what", ["manifest", "signature", "cut"])
    def test_tampered(self, root: Path, what: str) -> None:
        signed = bundle(0.01, self.ours)
        assert signed.signature
        changed = {
            "manifest": signed._replace(manifest=signed.manifest.replace(b"demo", b"dema")),
            "signature": signed._replace(signature=self.ours.sign(b"something else")),
            "cut": signed._replace(signature=signed.signature[:-3]),
        }[what]
        with pytest.raises(EngineError, match="signature"):
            deploy(root, changed, offer=changed.offer(trust=self.ours.public))
        assert Store(root).current() is None

    def test_unsigned(self, root: Path) -> None:
        with pytest.raises(EngineError, match="not signed: make it with --key, or allow it"):
            deploy(root, A, offer=A.offer(allow_unsigned=False))
        signed = bundle(0.01, self.ours)
        with pytest.raises(EngineError, match="give the public one with --trust"):
            deploy(root, signed, offer=signed.offer(allow_unsigned=False))


# Where there is no room, or no right


def test_too_little_space(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(root, A)
    with pytest.raises(EngineError, match="cut off"):
        deploy(root, B, source=lambda m: io.BytesIO(b""))
    real = os.statvfs

    def little(path: str) -> Any:
        found = real(path)
        return type("Statvfs", (), {"f_bavail": 1000, "f_frsize": found.f_frsize})

    monkeypatch.setattr(os, "statvfs", little)
    with pytest.raises(EngineError, match=r"34 MB are needed in .* and 4 MB are free"):
        deploy(root, C)
    store = Store(root)
    assert store.current() == A.id
    assert B.id not in store.releases()  # what a cut-off deployment left was cleared away first


def test_no_room_while_receiving(root: Path) -> None:
    large = bundle(0.02, padding=2_000_000)
    deploy(root, A)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            deploy(root, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value.filename).startswith(str(root / "files"))
    assert Store(root).current() == A.id
    sent: list[Missing] = []
    assert deploy(root, large, source=counting(large, sent))["release"] == large.id
    assert 0 < {m.file.path: m.offset for m in sent}["licences/padding.txt"] <= 1_500_000


@pytest.mark.parametrize("failing", range(1, 12))
def test_full_disk_at_the_switch(root: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """From the moment of the switch on, the `failing`-th file that is written finds no room."""
    import engines.files as files

    deploy(root, A)
    real, count = files.write_bytes, [0]
    full = [False]

    def write(path: Path, data: bytes) -> None:
        count[0] += full[0]
        if count[0] >= failing:
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    def alone() -> None:
        full[0] = True

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", write)
        try:
            deploy(root, B, alone=alone)
        except OSError as error:
            assert error.errno == 28
            wanted = A.id
        else:
            wanted = B.id
    store = Store(root)
    assert store.current() == wanted
    assert store.check(wanted)
    assert store.pending() is None
    assert deploy(root, B)["release"] == B.id


def test_root_of_another_user(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    link = tmp_path / "link"
    link.symlink_to(theirs)
    for root in (theirs, link):
        with pytest.raises(EngineError, match=r"belongs to another user \(uid 12345\)"):
            deploy(root, A)
    mine = tmp_path / "mine"
    mine.mkdir()
    link.unlink()
    link.symlink_to(mine)
    os.lchown(link, 12345, 12345)
    with pytest.raises(EngineError, match="belongs to another user"):
        deploy(link, A)
    assert not list(theirs.iterdir()) + list(mine.iterdir())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EngineError, match="is no folder; choose another --root"):
        deploy(tmp_path / "file", A)


def test_root_that_others_could_read_is_closed(root: Path) -> None:
    root.mkdir(mode=0o755)
    deploy(root, A)
    assert root.stat().st_mode & 0o777 == 0o700


def test_disk_without_hard_links(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    deploy(root, A)
    deploy(root, B)
    assert Store(root).check(B.id)
    assert not deploy(root, B)["changed"]


def test_everything_is_on_the_disk_before_the_switch(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut right after the link was renamed finds nothing behind it that was not synced."""
    deploy(root, A)
    synced: set[int] = set()
    moments: list[set[int]] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(file: Any) -> None:
        synced.add(os.fstat(file).st_ino)
        real_sync(file)

    def replace(self: Path, target: Any) -> Any:
        if Path(target) == root / "current":
            moments.append(set(synced))
        synced.discard(Path(target).parent.stat().st_ino)  # it has other names in it now
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    deploy(root, B)
    [before] = moments
    release = root / "releases" / B.id
    for path in [release, *release.rglob("*"), root / "releases"]:
        assert path.stat().st_ino in before, path
    assert root.stat().st_ino in synced  # and the link itself after it


@pytest.mark.parametrize("names", [["pending.json"], ["history.json", "serve.json"]])
@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", '{"from": 1}', "\0", "[" * 100_000])
def test_nonsense_in_its_own_files(root: Path, text: str, names: list[str]) -> None:
    deploy(root, A)
    for name in names:
        (root / name).write_text(text)
    deploy(root, B)
    store = Store(root)
    assert store.current() == B.id
    assert store.pending() is None
    status(store)


def test_tensorrt_is_what_is_built_if_nothing_is_said() -> None:
    assert Asked().engines == (standard.BACKEND,)
    assert ASKED.as_dict() == {"engines": ["onnxruntime"], "precisions": ["fp32"]}
