"""Deploying on this very machine, without a host: from a bundle's file."""

import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Dict, Optional, Sequence

from benchmarks.device.release.content import Missing
from benchmarks.device.release.engines import Asked
from benchmarks.device.release.install import Means, Request, install, roll_back
from benchmarks.device.release.steps import Steps
from benchmarks.device.release.store import Store
from benchmarks.device.release.trust import Offer
from benchmarks.progress import Console
from engines.bundle.archive import Bundle
from engines.catalogue import MODULES, none_runs
from engines.engine import EngineError
from engines.serve.options import ServeOptions
from engines.serve.supervisor import serve


def install_file(
    root: Path,
    bundle: Path,
    backends: Optional[Sequence[str]],
    precisions: Optional[Sequence[str]],
    console: Console,
    trust: Optional[bytes] = None,
    replace_trust: bool = False,
    allow_unsigned: bool = False,
    keep: int = 3,
    port: Optional[int] = None,
    dry_run: bool = False,
) -> Dict[str, Any]:
    """Make the bundle in a file the current release; see `install.install`.

    Args:
        backends: None for TensorRT.
    """
    with Bundle(bundle) as opened:

        def source(missing: Missing) -> BinaryIO:
            stream = opened.open(missing.file.path)
            skipped = 0
            while skipped < missing.offset:
                piece = stream.read(min(1 << 20, missing.offset - skipped))
                if not piece:
                    break
                skipped += len(piece)
            return stream

        offer = Offer(opened.manifest_bytes, opened.signature, trust, replace_trust, allow_unsigned)
        asked = Asked(backends or Asked().engines, precisions)
        request = Request(offer, asked, keep, port, dry_run)
        means = Means(source, _steps(console), console, _finish)
        return install(Store(root), request, means)


def roll_back_here(root: Path, console: Console) -> Dict[str, Any]:
    """Make the release before the current one current again; see `install.roll_back`."""
    return roll_back(Store(root), _steps(console), console, _finish)


def serve_bundle(
    bundle: Path,
    backends: Optional[Sequence[str]],
    precisions: Optional[Sequence[str]],
    options: ServeOptions,
    console: Console,
) -> int:
    """Serve a bundle that is deployed nowhere, until told to stop; see `supervisor.serve`.

    Its signature is not looked at: the person chose the file.

    Args:
        backends: None for the last of the catalogue that runs here: TensorRT before others.
    """
    if backends is None:
        running = [backend for backend in MODULES if none_runs(backend) is None]
        if not running:
            raise EngineError("nothing is installed that runs engines")
        backends = running[-1:]
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="edgetrt-") as folder:
        root = Path(folder)
        install_file(root, bundle, backends, precisions, console, allow_unsigned=True, keep=1)
        return serve(root, options, console.say)


def _steps(console: Console) -> Steps:
    def tell(event: Dict[str, Any]) -> None:
        if event.get("state") != "done":
            return
        with suppress(OSError):  # whoever listened is gone, which is no reason to go back
            console.say("{step}: {text}".format(**event))

    return Steps(tell)


def _leave(number: int, _frame: Any) -> None:
    """End as by an error: what is temporary is removed."""
    raise SystemExit(128 + number)


def _finish() -> None:
    """From the switch on it is seconds: they are not to be cut off."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
