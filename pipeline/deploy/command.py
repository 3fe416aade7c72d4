"""`edgetrt deploy`: from flags to devices, and what is shown in the end."""

import argparse
import base64
import getpass
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.progress import Console
from pipeline.deploy import greenlets, inventory
from pipeline.deploy.flags import PASSWORD, batch_size
from pipeline.deploy.inventory import Device
from pipeline.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from engines.bundle.archive import Bundle

HOME = Path("deployments")  # where logs go, below the current folder
Request = Callable[[Device], Mapping[str, Any]]


def deploy(args: argparse.Namespace, console: Console) -> tuple[dict[str, Any], str, str]:
    """Deploy, or roll back, or ask for the state, as the flags say.

    Returns:
        The results for programs, the table for people, and in words what failed ("": nothing).

    Raises:
        UsageError: the flags don't go together, or a file or the bundle's key is missing.
        PipelineError: the known hosts, or the record of a deployment before, can't be used.
        EngineError: the bundle is damaged or not by the key that is trusted.
    """
    kind = _kind(args)
    devices = _devices(args)
    password = _password(args)
    greenlets.start()
    # Only now what uses sockets and threads.
    from engines.bundle.archive import Bundle
    from pipeline import device_package
    from pipeline.deploy import fleet
    from pipeline.deploy.bootstrap import Program
    from pipeline.deploy.connection import Access
    from pipeline.deploy.record import Record
    from pipeline.deploy.table import status_table, table
    from pipeline.deploy.telling import Teller

    if args.report:
        from pipeline.publish import refuse_to_replace

        refuse_to_replace(args.report)
    access = Access(password, args.accept_new_host_key, args.known_hosts)
    changes = kind == "rollback" or (kind == "deploy" and not args.dry_run)
    rollout = fleet.Rollout(
        args.canary if changes and len(devices) > 1 else 0,
        batch_size(args.batch, len(devices)) if changes else len(devices),
        args.max_failures if changes else None,
        args.parallel,
    )
    # Only a deployment is done once and for all.
    again = args.again or kind != "deploy" or args.dry_run
    with ExitStack() as stack:
        bundle = stack.enter_context(Bundle(args.bundle)) if kind == "deploy" else None
        release, request = _deployment(args, bundle, devices) if bundle else (None, _plain(kind))
        work = fleet.Work(request, release, bundle, Program.of(device_package.program()))
        folder = args.log or (HOME / (release or kind) if changes else None)
        record = stack.enter_context(Record(folder, changes))
        teller = stack.enter_context(Teller(console, kind, len(devices)))
        stack.enter_context(_mute())
        entries = fleet.run(devices, work, rollout, access, record, teller, again)
    results: dict[str, Any] = {"do": kind, "release": release, "devices": entries}
    if folder is not None:
        results["log"] = str(folder)
    failure = _failure(entries, folder)
    if args.report and folder is not None:
        files = [folder / f"{name}.json" for name, e in entries.items() if e["state"] == "done"]
        results["report"], why_not = _merge(files, args.report, console)
        failure = "; ".join(words for words in (failure, why_not) if words)
    shown = (status_table if kind == "status" else table)(entries)
    return results, shown, failure


@contextmanager
def _mute() -> Iterator[None]:
    """Let nobody ask anything: for an unknown jump host pyinfra would, on standard output."""
    asks = sys.stdin
    with Path(os.devnull).open() as nobody, redirect_stdout(io.StringIO()):
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = asks


def _kind(args: argparse.Namespace) -> str:
    """What is asked for: "deploy", "rollback" or "status"."""
    if sum((args.bundle is not None, args.rollback, args.status)) != 1:
        raise UsageError("give a BUNDLE, or --rollback, or --status")
    if args.bundle is None and args.dry_run:
        raise UsageError("--dry-run is for a BUNDLE; --status shows what a device has")
    if args.report and (args.bundle is None or args.dry_run):
        raise UsageError("--report is of benchmarks that a deployment makes")
    for file in (args.bundle, args.trust, args.identity):
        if file is not None and not file.is_file():
            raise UsageError(f"{file} is no file")
    if args.bundle is not None:
        return "deploy"
    return "rollback" if args.rollback else "status"


def _devices(args: argparse.Namespace) -> list[Device]:
    if bool(args.device) == (args.inventory is not None):
        raise UsageError("give --device, once or several times, or --inventory")
    if args.inventory is None and args.group is not None:
        raise UsageError("--group is one of an --inventory")
    if args.inventory is None:
        found = [inventory.parse(text) for text in args.device]
    else:
        found = inventory.read(args.inventory, args.group)
    return inventory.with_overrides(
        found, identity=args.identity, root=args.root, python=args.python
    )


def _password(args: argparse.Namespace) -> str | None:
    """The password, which no process that this one starts gets to see."""
    given = os.environ.pop(PASSWORD, None)
    if not args.ask_password:
        return given or None
    if not sys.stdin.isatty():
        raise UsageError(f"--ask-password needs a terminal; {PASSWORD} is taken without asking")
    try:
        return getpass.getpass("SSH password: ") or None
    except EOFError:
        raise UsageError("no password was given") from None


def _plain(kind: str) -> Request:
    return lambda _device: {"do": kind}


def _deployment(
    args: argparse.Namespace, bundle: "Bundle", devices: Sequence[Device]
) -> tuple[str, Request]:
    """The release's name, and what each device is asked for.

    Whatever is wrong with the bundle, its key, or the names of engines and precisions is found
    here, before any device is touched.
    """
    from engines.bundle.signature import fingerprint, verify
    from engines.catalogue import MODULES

    bundle.check()
    trust = _trust(args.trust)
    if trust is not None:
        fingerprint(trust)  # raises if it is no key
    if args.replace_trust and (trust is None or bundle.signature is None):
        raise UsageError("--replace-trust needs a signed bundle and its key")
    if bundle.signature is None and not args.allow_unsigned:
        raise UsageError(f"{args.bundle} is not signed: make it with --key, or give "
                         "--allow-unsigned")  # fmt: skip
    if bundle.signature is not None and trust is not None:
        verify(bundle.manifest_bytes, bundle.signature, trust)
    manifest = base64.b64encode(bundle.manifest_bytes).decode()
    signature = bundle.signature and base64.b64encode(bundle.signature).decode()
    common = {
        "do": "deploy",
        "manifest": manifest,
        "signature": signature,
        "trust": trust and trust.decode("ascii"),
        "replace_trust": args.replace_trust,
        "allow_unsigned": args.allow_unsigned,
        "keep": args.keep,
        "serve": None if args.no_serve else {"port": args.port},
        "dry_run": args.dry_run,
    }

    def request(device: Device) -> Mapping[str, Any]:
        return {
            **common,
            "engines": _names("engine", args.engine, device, MODULES),
            "precisions": _names("precision", args.precision, device, bundle.manifest.precisions),
        }

    for device in devices:
        request(device)
    return bundle.manifest.id, request


def _names(what: str, given: str | None, device: Device, known: Iterable[str]) -> list[str] | None:
    """What is to be built on a device: by the command line, else by the inventory."""
    names = getattr(device, what) if given is None else [n.strip() for n in given.split(",")]
    if names is None:
        return None
    if not set(names) <= set(known):
        raise UsageError(f"--{what} of {device.name} takes {', '.join(known)}, with commas between "
                         f"them; got {','.join(names)!r}")  # fmt: skip
    return list(names)


def _trust(file: Path | None) -> bytes | None:
    """The public key in PEM; None if none was given and none is where keygen puts it."""
    if file is None:
        from pipeline.keys import default_public

        file = default_public()
        if not file.is_file():
            return None
    with file.open("rb") as opened:
        return opened.read(1 << 16)


def _merge(files: list[Path], out: Path, console: Console) -> tuple[str | None, str]:
    """One page of the devices' reports; a device whose report is damaged is left out of it.

    Returns:
        The page; None if there is none. And why it can't be written: the devices' results are to
        be told nevertheless.
    """
    from pipeline.publish import merge
    from pipeline.report.read import read

    good = []
    for file in files:
        try:
            if file.exists():
                read(file)
                good.append(file)
        except PipelineError as error:
            console.warn(f"left out of the page: {error}")
    if not good:
        console.warn("no device has a report, so there is no page of them")
        return None, ""
    try:
        report, written = merge(good, out)
    except PipelineError as error:
        return None, f"no page: {error}"
    except OSError as error:
        return None, f"no page: {error.filename or out}: {error.strerror}"
    for warning in report["warnings"]:
        console.warn(warning)
    return str(written[0]), ""


def _failure(entries: Mapping[str, Mapping[str, Any]], folder: Path | None) -> str:
    bad = [name for name, entry in entries.items() if entry["state"] in ("failed", "unknown")]
    waiting = [name for name, entry in entries.items() if entry["state"] == "not started"]
    if not bad:
        return ""
    words = [f"{len(bad)} of {len(entries)} device{'s' * (len(entries) > 1)} failed"]
    if waiting:
        words.append(f"{len(waiting)} not started")
    text = ", ".join(words)
    if folder is not None:
        text += f"; see {folder}{f'/{bad[0]}.log' if len(bad) == 1 else ''}"
    return text + ("; the same command goes on with them" if waiting else "")
