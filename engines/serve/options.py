"""How an engine is served, and the flags that say so, on the host and on a device alike."""

import argparse
import ipaddress
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

TOKEN_VARIABLE = "EDGETRT_TOKEN"  # noqa: S105 - the name of one, not a token
SHORTEST_TOKEN = 16  # characters


class ServeOptions(NamedTuple):
    """What a person can choose about a server.

    host: the address to listen at; any but a loopback address needs a token.
    port: 0 for any that is free.
    token: what clients must bring; None: nothing.
    max_batch: pictures that are computed together.
    max_delay_ms: how long the first of them waits for others that are on their way.
    queue: requests that wait for the engine; more are turned away.
    max_request_mb: size of a request, unpacked, in MiB.
    timeout_s: seconds that a request may take to arrive, and then to be answered.
    connections: open at once; more are turned away.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: Optional[str] = None
    max_batch: int = 8
    max_delay_ms: float = 2.0
    queue: int = 64
    max_request_mb: int = 32
    timeout_s: float = 10.0
    connections: int = 64


DEFAULT = ServeOptions()
# Of each number the smallest and the largest.
LIMITS: Dict[str, Any] = {
    "port": (0, 65535),
    "max_batch": (1, 1024),
    "max_delay_ms": (0, 1000),
    "queue": (1, 4096),
    "max_request_mb": (1, 1024),
    "timeout_s": (0.1, 3600),
    "connections": (1, 1024),
}


def check(options: ServeOptions) -> Optional[str]:
    """What is wrong with some options; None if nothing is."""
    for name, (least, most) in LIMITS.items():
        value = getattr(options, name)
        if not least <= value <= most:
            return "--{} takes {} to {}; received {}".format(
                name.replace("_", "-"), least, most, value
            )
    if options.token is not None and not _is_token(options.token):
        return "a token has at least {} letters, digits or signs, and no space".format(
            SHORTEST_TOKEN
        )
    if options.token is None and not is_loopback(options.host):
        return (
            "--host {} lets other machines in: give a token with --token-file or in {} "
            "(openssl rand -hex 16 makes one)".format(options.host, TOKEN_VARIABLE)
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def add_serving(parser: argparse.ArgumentParser) -> None:
    """Give a command the flags of `ServeOptions`."""
    add = parser.add_argument
    add("--host", default=DEFAULT.host, help="address to listen at (%(default)s)")
    add("--port", type=int, default=DEFAULT.port, help="port to listen at (%(default)s)")
    add(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="what is in it clients must bring (what is in {})".format(TOKEN_VARIABLE),
    )
    add(
        "--max-batch",
        metavar="N",
        type=int,
        default=DEFAULT.max_batch,
        help="pictures of several requests that are computed together (%(default)s)",
    )
    add(
        "--max-delay-ms",
        metavar="X",
        type=float,
        default=DEFAULT.max_delay_ms,
        help="how long one waits for others on their way (%(default)g)",
    )
    add(
        "--queue",
        metavar="N",
        type=int,
        default=DEFAULT.queue,
        help="requests that may wait; more get 503 (%(default)s)",
    )
    add(
        "--max-request-mb",
        metavar="N",
        type=int,
        default=DEFAULT.max_request_mb,
        help="MiB of a request; larger ones get 413 (%(default)s)",
    )
    add(
        "--timeout-s",
        metavar="X",
        type=float,
        default=DEFAULT.timeout_s,
        help="seconds for a request to arrive, and to be answered (%(default)g)",
    )


def serving_of(args: argparse.Namespace) -> ServeOptions:
    """The options that the flags of `add_serving` ask for.

    Raises:
        EngineError: they are wrong, or the token can't be read; never shows the token.
    """
    from engines.engine import EngineError  # numpy comes with it, and help needs none

    options = ServeOptions(
        args.host,
        args.port,
        read_token(args.token_file),
        args.max_batch,
        args.max_delay_ms,
        args.queue,
        args.max_request_mb,
        args.timeout_s,
    )
    wrong = check(options)
    if wrong is not None:
        raise EngineError(wrong)
    return options


def read_token(file: Optional[Path]) -> Optional[str]:
    """The token in a file, or without one in EDGETRT_TOKEN; None if there is none at all.

    Raises:
        EngineError: the file can't be read.
    """
    from engines.engine import EngineError

    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise EngineError(
            "the token in {} can't be read: {}".format(file, getattr(error, "strerror", "no text"))
        ) from None


def flags_of(options: ServeOptions, token_file: Optional[Path] = None) -> List[str]:
    """What to type for some options; the token itself is never among it."""
    flags = []
    for name in ("host", *LIMITS):
        value = getattr(options, name)
        if name != "connections" and value != getattr(DEFAULT, name):
            flags += ["--" + name.replace("_", "-"), str(value)]
    return flags + (["--token-file", str(token_file)] if token_file else [])


def _is_token(text: str) -> bool:
    return len(text) >= SHORTEST_TOKEN and all("!" <= letter <= "~" for letter in text)
