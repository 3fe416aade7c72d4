"""What a server answers: which path leads where, and who may go there."""

import hmac
import re
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Optional, Tuple
from urllib.parse import unquote

import numpy as np

from engines.picture_file import PictureError
from engines.preprocess import pixels
from engines.serve import kserve, page
from engines.serve.batching import Batcher, Turn
from engines.serve.http import Buffer, Head, HttpError, Response, answer, busy
from engines.serve.kserve import Model
from engines.serve.metrics import KIND, Metrics
from engines.serve.options import ServeOptions, is_loopback

TOP = 5  # classes that are named of a picture
DECODERS = 2  # pictures decoded at once: one of the largest takes half a GiB while it is
LONG_JSON = 1 << 20  # bytes; of longer ones one is read at a time: read, it takes ten times as much

Make = Callable[[Buffer, Turn], Response]

_MODEL = re.compile(
    r"/v2/models/(?P<name>[^/]+)(/versions/(?P<version>[^/]+))?(?P<rest>(/[a-z]+)?)"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:[0-9]{1,5})?")
_OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # without a token


class Application:
    """The answers of one release's server; called by many threads at once."""

    def __init__(
        self, model: Model, batcher: Batcher, metrics: Metrics, options: ServeOptions
    ) -> None:
        self._model, self._batcher = model, batcher
        self._metrics, self._options = metrics, options
        self._decoders = threading.Semaphore(DECODERS)
        self._one_at_a_time = threading.Lock()
        self._page = page.response(options.token is not None)

    @contextmanager
    def exchange(self, head: Head) -> Iterator[Callable[[Buffer], Response]]:
        """See `engines.serve.connections.Exchange`."""
        self._check_sender(head)
        make, infers = self._find(head)
        if not infers:
            yield lambda body: make(body, None)
            return
        start = time.monotonic()
        with self._batcher.turn() as turn:
            try:
                yield lambda body: make(body, turn)
            except BaseException:
                self._metrics.inferred(False, 0, time.monotonic() - start)
                raise

    def _check_sender(self, head: Head) -> None:
        """Raise HttpError for who may not ask, before anything of a body is read."""
        host = head.headers.get("host")
        if host is not None and is_loopback(self._options.host) and not _is_local(host):
            # Else a page in a browser here could ask in the name of its own host, which its owner
            # lets lead to 127.0.0.1 (DNS rebinding).
            raise HttpError(403, "this server answers to localhost only; the host header differs")
        origin = head.headers.get("origin")
        if origin is not None and origin.split("://", 1)[-1] != host:
            raise HttpError(403, "pages of other servers may not ask this one")
        if self._options.token is None or head.path in _OPEN:
            return
        scheme, _, given = head.headers.get("authorization", "").partition(" ")
        token = self._options.token.encode("latin-1")
        same = hmac.compare_digest(given.strip().encode("latin-1"), token)
        if scheme.lower() != "bearer" or not same:
            raise HttpError(401, "send: Authorization: Bearer TOKEN", WWW_Authenticate="Bearer")

    def _find(self, head: Head) -> Tuple[Any, bool]:
        """What makes the answer, and whether it infers."""
        found = self._fixed().get(head.path) or self._of_model(head)
        if found is None:
            raise HttpError(404, "there is nothing of that name; see /v2 or /")
        method, make, infers = found
        if head.method != method and not (method == "GET" and head.method == "HEAD"):
            raise HttpError(405, "this takes " + method, Allow=method)
        return make, infers

    def _fixed(self) -> Dict[str, Tuple[str, Any, bool]]:
        model = self._model
        index = [{"name": model.name, "version": model.release, "state": "READY", "reason": ""}]
        return {
            "/": _get(lambda: self._page),
            "/metrics": _get(lambda: Response(200, self._metrics.text().encode(), KIND)),
            "/v2": _get(lambda: answer(kserve.server())),
            "/v2/health/live": _get(lambda: answer({"live": True})),
            "/v2/health/ready": _get(self._ready),
            "/v2/models/stats": _get(self._statistics),
            "/v2/repository/index": ("POST", lambda _body, _turn: answer(index), False),
            "/classify": ("POST", self._classify, True),
        }

    def _of_model(self, head: Head) -> Optional[Tuple[str, Any, bool]]:
        found = _MODEL.fullmatch(head.path)
        if found is None:
            return None
        model = self._model
        if unquote(found.group("name")) != model.name:
            raise HttpError(404, "the model here is {}".format(model.name))
        version = found.group("version")
        if version is not None and unquote(version) != model.release:
            raise HttpError(404, "the version here is {}".format(model.release))
        length = head.headers.get(kserve.HEADER_LENGTH)
        return {
            "": _get(lambda: answer(kserve.metadata(model))),
            "/ready": _get(self._ready),
            "/stats": _get(self._statistics),
            "/infer": ("POST", lambda body, turn: self._infer(body, length, turn), True),
        }.get(found.group("rest"))

    def _ready(self) -> Response:
        if self._batcher.computing_for() > self._options.timeout_s:
            raise busy("the engine does not come back")
        return answer({"ready": True})

    def _statistics(self) -> Response:
        return answer(self._metrics.statistics(self._model.name, self._model.release))

    def _infer(self, body: Buffer, length: Optional[str], turn: Turn) -> Response:
        if len(body) > LONG_JSON and length is None:
            with self._one_at_a_time:
                asked = kserve.read(body, length, self._model)
        else:
            asked = kserve.read(body, length, self._model)
        return kserve.respond(asked, self._ask(asked.pictures, turn), self._model)

    def _classify(self, body: Buffer, turn: Turn) -> Response:
        model = self._model
        try:
            with self._decoders:
                picture = pixels(bytes(body), model.height, model.width)
        except PictureError as error:
            raise HttpError(400, "send a picture file as the body: {}".format(error)) from None
        probabilities = self._ask(picture[np.newaxis], turn)[0]
        top = [
            {"label": label, "probability": probability}
            for _, label, probability in kserve.likeliest(probabilities, model.labels, TOP)
        ]
        return answer({"release": model.release, "engine": model.engine, "top": top})

    def _ask(self, pictures: np.ndarray, turn: Turn) -> np.ndarray:
        start = time.monotonic()
        probabilities = turn.infer(pictures, self._options.timeout_s)
        self._metrics.inferred(True, len(pictures), time.monotonic() - start)
        return probabilities


def _get(make: Callable[[], Response]) -> Tuple[str, Any, bool]:
    return "GET", lambda _body, _turn: make(), False


def _is_local(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback(found.group(1).strip("[]").lower())
