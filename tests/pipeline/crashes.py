"""Kills a command about releases at its n-th change of the disk, for every n; looks what is left.

    PYTHONPATH=.:tests/pipeline python tests/pipeline/crashes.py SCENARIO FOLDER

Each try is a process of its own that starts from a copy of the same device. What comes after the
kill is another process, as after a reboot. Prints how many moments there were.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from releases import ASKED, ENGINE, Made, bundle, deploy
from serving import expected, pictures

from benchmarks.device.release import engines, health, install, store
from benchmarks.device.release.engines import Asked
from benchmarks.device.release.steps import Steps
from benchmarks.device.release.store import Store
from benchmarks.progress import Console
from engines.bundle.golden import check
from engines.catalogue import load_engine, read_sidecar
from engines.engine import EngineError

CHANGES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate",
           "os.chmod")  # fmt: skip
QUIET = Console(quiet=True)
A, B, C = bundle(0.01), bundle(0.02), bundle(0.03)
SCALES = {A.id: 0.01, B.id: 0.02, C.id: 0.03}
real_sync = os.fsync


class Scenario(NamedTuple):
    """What is on the device before, what is done, and what must be so in the end.

    allowed: what may be current in between; None: nothing.
    finish: what is done after the kill; the release that must be current then.
    """

    before: Callable[[Path], object]
    act: Callable[[Path], object]
    allowed: set[str | None]
    finish: Callable[[Path], str | None]


def simplified() -> None:
    """Leave out what takes long and changes nothing on the disk that the tests look at."""

    def benchmark(run: Any, *_: Any) -> dict[str, Any]:
        from engines.files import write_json

        name = _[-1][0]
        report = {"engines": [{"name": name, "scenarios": {"single-stream": {"p90": 1.0}}}]}
        write_json(run.report, report)
        return report

    engines.benchmark = benchmark  # type: ignore[assignment]
    health._prove_without_server = lambda store: health.main(str(store.root / "current"))


def ill(root: Path, made: Made, **options: Any) -> None:
    """Deploy what proves bad once it is current."""

    def prove(_: object) -> None:
        raise EngineError("it is ill")

    health._prove_without_server = prove  # type: ignore[assignment]
    try:
        deploy(root, made, **options)
    except EngineError as error:
        assert "it is ill" in str(error)
    else:
        raise AssertionError("it was deployed")


def back(root: Path) -> None:
    install.roll_back(Store(root), Steps(lambda _: None), QUIET, lambda: None)


def finished(root: Path, made: Made, **options: Any) -> str:
    deploy(root, made, **options)
    return made.id


def after_back(root: Path) -> str:
    store = Store(root)
    with store.locked():
        store.recover()
    if store.current() == B.id:
        back(root)
    return A.id


def after_illness(root: Path) -> str:
    ill(root, B)
    return A.id


def after_other_engines(root: Path) -> str:
    ill(root, A, asked=OTHER)
    assert (Store(root).about(A.id) or {})["asked"] == ASKED.as_dict()
    return A.id


def run_by(root: Path, program: bytes) -> None:
    """Be a device program of one file from now on."""
    path = root.parent / program.decode()
    path.write_bytes(program)
    store.HOME = install.HOME = path


def with_program(root: Path, program: bytes) -> str:
    run_by(root, program)
    deploy(root, A)
    assert (Store(root).about(A.id) or {})["program"] == hashlib.sha256(program).hexdigest()
    return A.id


OTHER = Asked(["onnxruntime"])
KEEP: dict[str, Any] = {"keep": 2}
SCENARIOS = {
    "first": Scenario(
        lambda root: None, lambda root: deploy(root, A), {None, A.id}, lambda r: finished(r, A)
    ),
    "next": Scenario(
        lambda root: (deploy(root, A), deploy(root, B)),
        lambda root: deploy(root, C, **KEEP),
        {B.id, C.id},
        lambda root: finished(root, C, **KEEP),
    ),
    "back": Scenario(
        lambda root: (deploy(root, A), deploy(root, B)), back, {A.id, B.id}, after_back
    ),
    "ill": Scenario(
        lambda root: deploy(root, A), lambda root: ill(root, B), {A.id, B.id}, after_illness
    ),
    "other-engines": Scenario(
        lambda root: deploy(root, A),
        lambda root: ill(root, A, asked=OTHER),
        {A.id},
        after_other_engines,
    ),
    "other-program": Scenario(
        lambda root: with_program(root, b"first"),
        lambda root: with_program(root, b"second"),
        {A.id},
        lambda root: with_program(root, b"second"),
    ),
}


def arm(number: int, root: Path) -> None:
    """Die right before the `number`-th change below `root`."""
    left = [number]

    def count(path: object) -> None:
        if str(path).startswith(str(root)):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    def hook(name: str, given: tuple[Any, ...]) -> None:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
        opens = name == "open" and isinstance(given[2], int) and given[2] & writes
        if opens or name in CHANGES:
            count(given[0])

    def sync(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        count(os.readlink(f"/proc/self/fd/{number}"))
        real_sync(number)

    os.fsync = sync  # type: ignore[assignment]
    sys.addaudithook(hook)


def assert_whole(root: Path, release: str) -> None:
    """The release is all there, and answers right."""
    store = Store(root)
    about = store.check(release)
    manifest, folder = store.manifest(release), store.folder(release)
    assert about["engine"] == ENGINE
    assert about["program"] is None or store.program(release)
    with load_engine(folder / "engines", read_sidecar(folder / f"engines/{ENGINE}.json")) as engine:
        assert check(engine, "fp32", manifest, folder).ok
        asked = pictures(3, seed=9)
        assert np.abs(engine.infer(asked) - expected(asked, SCALES[release])).max() < 1e-3


def look(root: Path, scenario: Scenario) -> None:
    """What a process finds after the kill, and whether the next command comes to a good end."""
    store = Store(root)
    current = store.current()
    assert current in scenario.allowed, current
    assert current is not None or not (root / "current").is_symlink()
    for release in store.releases():
        if store.about(release) is not None:  # whatever calls itself complete is so
            assert_whole(root, release)
    assert current is None or store.about(current) is not None
    wanted = scenario.finish(root)
    assert store.current() == wanted
    assert_whole(root, str(wanted))
    assert store.pending() is None
    assert not list(root.rglob(".tmp-*")), list(root.rglob(".tmp-*"))
    assert store._stack()[-1] == wanted
    for release in store.releases():
        link, program = store.folder(release) / "program.pyz", store.program(release)
        assert program == (link.resolve() if link.is_symlink() else None)


def child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; gives its status."""
    pid = os.fork()
    if not pid:
        try:
            simplified()
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def act_until(number: int, root: Path, scenario: Scenario) -> None:
    arm(number, root)
    scenario.act(root)


def main(name: str, folder: Path) -> None:
    import onnxruntime  # noqa: F401 - once, before all the forks

    scenario, start = SCENARIOS[name], folder / "start"
    assert child(lambda: scenario.before(start)) == 0
    number, killed = 0, True
    while killed:
        number += 1
        root = folder / f"try-{number}"
        if start.exists():
            shutil.copytree(start, root, symlinks=True)

        status = child(partial(act_until, number, root, scenario))
        killed = status == signal.SIGKILL
        assert killed or status == 0, f"{name}, change {number}: status {status}"
        assert child(partial(look, root, scenario)) == 0, f"{name}, change {number}"
        shutil.rmtree(root)
    print(number - 1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
