"""Asking a server: whether it is there, and an engine at its other end."""

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any, Dict, Optional, Tuple
from urllib.parse import quote

import numpy as np

from engines.bundle.golden import Golden, check
from engines.bundle.manifest import Manifest
from engines.engine import Engine, EngineError, TensorSpec

TIMEOUT = 10.0  # seconds
LONGEST = 16 << 20  # bytes of an answer
# Of one request for inference; every server takes 1 MiB, and answers in time.
PICTURES, BODY = 8, 1 << 19  # pictures, bytes
HEADER_LENGTH = "Inference-Header-Content-Length"


def ready(
    host: str, port: int, token: Optional[str] = None, timeout: float = TIMEOUT
) -> Optional[Dict[str, Any]]:
    """What a server serves; None if none is ready there.

    Returns:
        "name" of the model, "release", "engine" and its "precision", "input" and "output" shape.

    Raises:
        EngineError: there is one, but it wants another token, or is none of ours.
    """
    try:
        check_ready(host, port, timeout)
    except EngineError:
        return None
    try:
        index = _ask_json(host, port, "POST", "/v2/repository/index", token, timeout)
        name = str(index[0]["name"])
        found = _ask_json(host, port, "GET", "/v2/models/" + quote(name, ""), token, timeout)
        return {
            "name": name,
            "release": str(found["versions"][0]),
            "engine": str(found["properties"]["engine"]),
            "precision": str(found["properties"]["precision"]),
            "input": dict(found["inputs"][0]),
            "output": dict(found["outputs"][0]),
        }
    except (OSError, http.client.HTTPException):
        return None
    except (LookupError, TypeError, ValueError) as error:
        raise EngineError(
            "what answers at {}:{} is no server of this program: {!r}".format(host, port, error)
        ) from error


def check_ready(host: str, port: int, timeout: float = TIMEOUT) -> None:
    """Raise EngineError unless a server is ready there; that is told without a token."""
    status: Any
    try:
        status, _ = _ask(host, port, "GET", "/v2/health/ready", None, {}, None, timeout)
    except (OSError, http.client.HTTPException) as error:
        status = error
    if status != 200:
        raise EngineError("no server is ready at {}:{} ({})".format(host, port, status))


def golden(
    host: str,
    port: int,
    manifest: Manifest,
    folder: Path,
    token: Optional[str] = None,
    timeout: float = TIMEOUT,
) -> Golden:
    """Ask a server the golden cases of the release that it must serve.

    Args:
        folder: of the release.

    Raises:
        EngineError: no server is ready there, it serves another release, or doesn't answer.
    """
    engine = RemoteEngine(host, port, token, timeout)
    if engine.release != manifest.id:
        raise EngineError(
            "{}:{} serves release {}, not {}".format(host, port, engine.release, manifest.id)
        )
    return check(engine, engine.precision, manifest, folder)


class RemoteEngine(Engine):
    """The engine that a server serves, of one release: if that changes, `infer` raises.

    Attributes:
        release: which one.
    """

    backend = "http"

    def __init__(
        self, host: str, port: int, token: Optional[str] = None, timeout: float = TIMEOUT
    ) -> None:
        """Find out what is served.

        Raises:
            EngineError: as `ready`, or there is no server.
        """
        found = ready(host, port, token, timeout)
        if found is None:
            raise EngineError("no server is ready at {}:{}".format(host, port))
        self._place, self._token, self._timeout = (host, port), token, timeout
        self._path = "/v2/models/{}/versions/{}/infer".format(
            quote(found["name"], ""), quote(found["release"], "")
        )
        self.release, self.precision = found["release"], found["precision"]
        shape = tuple(None if size == -1 else size for size in found["input"]["shape"])
        self.input = TensorSpec(found["input"]["name"], shape, "uint8")
        classes = found["output"]["shape"][-1]
        self.output = TensorSpec(found["output"]["name"], (None, classes), "float32")

    def infer(self, pictures: np.ndarray) -> np.ndarray:
        """See `Engine.infer`; many pictures are asked in several requests."""
        self.check_pictures(pictures)
        count = max(1, min(PICTURES, BODY // pictures[0].nbytes))
        parts = range(0, len(pictures), count)
        return np.concatenate([self._infer(pictures[first : first + count]) for first in parts])

    def _infer(self, pictures: np.ndarray) -> np.ndarray:
        pixels = np.ascontiguousarray(pictures).tobytes()
        tensor = {
            "name": self.input.name,
            "shape": list(pictures.shape),
            "datatype": "UINT8",
            "parameters": {"binary_data_size": len(pixels)},
        }
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {HEADER_LENGTH: str(len(head))}
        host, port = self._place
        try:
            status, answer = _ask(
                host, port, "POST", self._path, head + pixels, headers, self._token, self._timeout
            )
            if status != 200:
                raise EngineError("{}:{} answers {}: {}".format(host, port, status, _text(answer)))
            found = json.loads(answer.decode())
            flat = np.array(found["outputs"][0]["data"], np.float32)
            return flat.reshape(len(pictures), int(self.output.shape[1] or 0))
        except (OSError, http.client.HTTPException) as error:
            raise EngineError("{}:{} doesn't answer: {}".format(host, port, error)) from error
        except (LookupError, TypeError, ValueError) as error:
            raise EngineError("{}:{} answers nonsense: {!r}".format(host, port, error)) from error


def _ask_json(
    host: str, port: int, method: str, path: str, token: Optional[str], timeout: float
) -> Any:
    body = b"{}" if method == "POST" else None
    status, answer = _ask(host, port, method, path, body, {}, token, timeout)
    if status == 401:
        raise EngineError("the server at {}:{} wants another token".format(host, port))
    if status != 200:
        raise EngineError("{}:{} answers {}: {}".format(host, port, status, _text(answer)))
    return json.loads(answer.decode())


def _ask(
    host: str,
    port: int,
    method: str,
    path: str,
    body: Optional[bytes],
    headers: Dict[str, str],
    token: Optional[str],
    timeout: float,
) -> Tuple[int, bytes]:
    headers = dict(headers, Connection="close")
    if token is not None:
        headers["Authorization"] = "Bearer " + token
    with closing(http.client.HTTPConnection(host, port, timeout=timeout)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read(LONGEST)


def _text(answer: bytes) -> str:
    return answer[:200].decode("utf-8", "replace")
