"""The device program's commands about releases: flags and calls."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, List

from benchmarks.device.folder import WrongUseError
from benchmarks.device.release.root import DEFAULT
from benchmarks.progress import Console
from engines.flags import backends, precisions
from engines.serve.options import LIMITS, add_serving, serving_of
from engines.text import printable

MOST_PORT = LIMITS["port"][1]


def add(command: Any) -> None:
    """Give the device program these commands.

    Args:
        command: see `benchmarks.device.cli`.
    """
    agent = command("agent", _agent, "answer `edgetrt deploy`, on stdin and stdout", False)
    _add_root(agent)
    install = command("install", _install, "deploy a bundle that is on this device", False)
    _add_root(install)
    _add_engines(install)
    install.add_argument("bundle", metavar="BUNDLE", type=Path, help="such as model.edgetrt")
    install.add_argument("--trust", metavar="FILE", type=Path, help="the public key to verify with")
    install.add_argument(
        "--replace-trust", action="store_true", help="accept bundles of that key from now on"
    )
    install.add_argument(
        "--allow-unsigned", action="store_true", help="where no key is known, do without"
    )
    install.add_argument(
        "--keep", metavar="N", type=_at_least_1, default=3, help="releases that stay (%(default)s)"
    )
    install.add_argument(
        "--port",
        metavar="N",
        type=_port,
        help="start a server there, if none runs (without: none is started)",
    )
    install.add_argument("--dry-run", action="store_true", help="only look whether it can be done")
    serve = command("serve", _serve, "answer over HTTP what is deployed here", False)
    what = serve.add_mutually_exclusive_group()
    what.add_argument("--bundle", metavar="FILE", type=Path, help="serve a bundle, undeployed")
    _add_root(what)
    _add_engines(serve)
    add_serving(serve)
    worker = command("serve-worker", _serve_worker, "what `serve` starts for a release", False)
    worker.add_argument("--release", metavar="DIR", type=Path, required=True)
    worker.add_argument("--fd", metavar="N", type=int, required=True)
    status = command("status", _status, "what is deployed and served here", False)
    _add_root(status)
    rollback = command("rollback", _rollback, "go back to the release before", False)
    _add_root(rollback)


def _add_root(parser: Any) -> None:
    parser.add_argument(
        "--root", metavar="DIR", type=Path, default=DEFAULT, help="the releases (%(default)s)"
    )


def _add_engines(parser: Any) -> None:
    parser.add_argument("--engine", metavar="NAMES", type=backends, help="with commas (tensorrt)")
    parser.add_argument(
        "--precision",
        metavar="NAMES",
        type=precisions,
        help="fp32, fp16, int8 (with commas; what the GPU is for)",
    )


def _at_least_1(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1 on is expected; received " + text)
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > MOST_PORT:
        raise argparse.ArgumentTypeError(
            "a port from 0 to {} is expected; received {}".format(MOST_PORT, text)
        )
    return int(text)


def _agent(args: argparse.Namespace, console: Console) -> int:
    from benchmarks.device.release.agent import serve_host

    os.umask(0o077)
    return serve_host(args.root, console)


def _install(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.device.release.here import install_file

    os.umask(0o077)
    _leave_links()
    result = install_file(
        args.root,
        args.bundle,
        args.engine,
        args.precision,
        console,
        trust=args.trust.read_bytes() if args.trust else None,
        replace_trust=args.replace_trust,
        allow_unsigned=args.allow_unsigned,
        keep=args.keep,
        port=args.port,
        dry_run=args.dry_run,
    )
    if args.json:
        print(json.dumps(result))
    else:
        done = "can be deployed" if args.dry_run else "is current"
        print("release {} {}: {}".format(result["release"], done, result["engine"] or "not built"))


def _serve(args: argparse.Namespace, console: Console) -> int:
    from benchmarks.device.release.here import serve_bundle
    from benchmarks.device.release.store import Store
    from engines.serve.supervisor import serve

    if args.bundle is None and (args.engine or args.precision):
        raise WrongUseError("--engine and --precision are for a --bundle")
    os.umask(0o077)
    options = serving_of(args)
    _leave_links()
    if args.bundle is None:
        return serve(Store(args.root).root, options, console.say)
    return serve_bundle(args.bundle, args.engine, args.precision, options, console)


def _leave_links() -> None:
    """Begin anew by the program's own path, where it was started through a link.

    `current` leads to another program after a switch, and Python reads modules when they are used.
    """
    given = os.path.abspath(sys.argv[0])  # noqa: PTH100 - pathlib has none that keeps links
    real = os.path.realpath(given)
    if given.endswith(".pyz") and real != given:
        os.execv(sys.executable, [sys.executable, real] + sys.argv[1:])  # noqa: S606, RUF005


def _serve_worker(args: argparse.Namespace, _console: Console) -> int:
    from engines.serve.worker import main

    return main(args.release, args.fd)


def _status(args: argparse.Namespace, _console: Console) -> None:
    from benchmarks.device.release.status import status
    from benchmarks.device.release.store import Store

    found = status(Store(args.root))
    print(json.dumps(found) if args.json else "\n".join(map(printable, _described(found))))


def _described(found: Dict[str, Any]) -> List[str]:
    lines = []
    for one in found["releases"]:
        marks = [word for word in ("current", "previous") if found[word] == one["release"]]
        marks += [] if one["complete"] else ["unfinished"]
        words = [one["release"], one["name"] or "?", one["engine"] or "-", ", ".join(marks)]
        lines.append("  ".join(words).rstrip())
    server = found["server"]
    return [
        *(lines or ["nothing is deployed"]),
        "server: {state}, {release} at {host}:{port}".format(**server) if server else "no server",
        "accepts bundles of key {}".format(found["key"] or "any: none was given yet"),
        *(["a switch to {} is not confirmed".format(found["pending"].get("to"))]
          if found["pending"] else []),
    ]  # fmt: skip


def _rollback(args: argparse.Namespace, console: Console) -> None:
    from benchmarks.device.release.here import roll_back_here

    os.umask(0o077)
    _leave_links()
    result = roll_back_here(args.root, console)
    print(json.dumps(result) if args.json else "release {} is current".format(result["release"]))
