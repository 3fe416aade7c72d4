"""The device's end of `edgetrt deploy`: one request on stdin, events on stdout, then the end."""

import base64
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from benchmarks.device.folder import WrongUseError
from benchmarks.device.release.channel import Channel, ProtocolError
from benchmarks.device.release.engines import Asked
from benchmarks.device.release.install import Means, Request, install, roll_back
from benchmarks.device.release.status import status
from benchmarks.device.release.steps import Steps
from benchmarks.device.release.store import Store
from benchmarks.device.release.trust import Offer
from benchmarks.progress import Console
from engines.engine import EngineError
from engines.text import printable

PROTOCOL = 1
MOST_KEPT = 1000  # releases
OK, FAILED, WRONG_USE = 0, 1, 2


def serve_host(root: Path, console: Console) -> int:
    """Do what the host on stdin asks for, and tell it on stdout.

    Returns:
        The exit code: 0, 1 failed work, 2 wrong use. The process ends by itself with 1 where the
        host is gone and nothing was switched.
    """
    channel = Channel(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # whatever libraries print must not come between
    steps = Steps(lambda event: channel.tell(**event))
    store = Store(root)
    try:
        result = _perform(store, channel.document(), channel, steps, console)
    except (WrongUseError, ProtocolError) as error:
        return _fail(channel, store, steps, str(error), WRONG_USE)
    except EngineError as error:
        return _fail(channel, store, steps, str(error), FAILED)
    except OSError as error:
        text = "{}: {}".format(error.filename or root, error.strerror or error)
        return _fail(channel, store, steps, text, FAILED)
    except Exception as error:
        text = "unexpected {}: {}".format(type(error).__name__, error)
        return _fail(channel, store, steps, text, FAILED)
    channel.tell(event="result", **result)
    return OK


def _perform(
    store: Store, asked: Dict[str, Any], channel: Channel, steps: Steps, console: Console
) -> Any:
    if asked.get("protocol") != PROTOCOL:
        raise ProtocolError(
            "the host speaks protocol {!r:.20}, this program {}; use the same edgetrt on both "
            "sides".format(asked.get("protocol"), PROTOCOL)
        )
    if asked.get("do") == "deploy":
        means = Means(channel.fetch, steps, console, channel.alone)
        return install(store, request_of(asked), means)
    if asked.get("do") == "rollback":
        return roll_back(store, steps, console, channel.alone)
    if asked.get("do") == "status":
        return status(store)
    raise ProtocolError("there is no {!r:.40} to do".format(asked.get("do")))


def _fail(channel: Channel, store: Store, steps: Steps, text: str, code: int) -> int:
    channel.tell(
        event="error",
        step=steps.now,
        text=text,
        kind="wrong-use" if code == WRONG_USE else "failed",
        current=store.current(),
        rolled_back=steps.rolled_back,
    )
    print("edgetrt-device: {}".format(printable(text)), file=sys.stderr, flush=True)
    return code


def request_of(asked: Dict[str, Any]) -> Request:
    """The deployment that a host's line asks for.

    Raises:
        ProtocolError: a field is missing, or not what it must be.
    """
    try:
        serve = asked.get("serve")
        request = Request(
            Offer(
                base64.b64decode(asked["manifest"], validate=True),
                _bytes(asked.get("signature")),
                None if asked.get("trust") is None else asked["trust"].encode("ascii"),
                asked.get("replace_trust") is True,
                asked.get("allow_unsigned") is True,
            ),
            Asked(
                _names(asked.get("engines")) or Asked().engines,
                _names(asked.get("precisions")),
            ),
            asked.get("keep", 3),
            None if serve is None else serve["port"],
            asked.get("dry_run") is True,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError("the host's request can't be read: {!r}".format(error)) from error
    if not _is_number(request.keep, 1, MOST_KEPT) or not _is_number(request.port or 0, 0, 65535):
        raise ProtocolError(
            "the host's request is wrong: keep {!r:.20}, port {!r:.20}".format(
                request.keep, request.port
            )
        )
    return request


def _bytes(text: Optional[str]) -> Optional[bytes]:
    return None if text is None else base64.b64decode(text, validate=True)


def _names(names: Any) -> Optional[List[str]]:
    if names is None:
        return None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError("names are expected")
    return names


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
