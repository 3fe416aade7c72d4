"""A client that asks a device's server without a pause, and counts what it answers."""

import http.client
import json
import threading
import time
from typing import Any, NamedTuple

from handmade import Bundle

TOLERANCE = 0.005


class Answer(NamedTuple):
    """What became of one question.

    begin, end: monotonic seconds.
    release: which one answered; None if none did.
    wrong: what is wrong with it, "" if nothing.
    """

    begin: float
    end: float
    release: str | None
    wrong: str


class Client:
    """Asks with the golden pictures of the bundles that may be on the device.

    Args:
        port: of the server, on 127.0.0.1.
        bundles: that may answer.
        pause: seconds between an answer and the next question.
    """

    def __init__(self, port: int, bundles: list[Bundle], pause: float = 0.02) -> None:
        self._port, self._pause = port, pause
        self._bundles = {bundle.id: bundle for bundle in bundles}
        self._answers: list[Answer] = []
        self._down: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def knows(self, bundle: Bundle) -> None:
        """One more bundle that may answer from now on."""
        self._bundles[bundle.id] = bundle

    def was_down(self, begin: float, end: float) -> None:
        """The device had no power from `begin` to `end`: no answer is no fault then."""
        self._down.append((begin, end))

    @property
    def answers(self) -> list[Answer]:
        """All but those that are missing because the device had no power."""
        return [answer for answer in list(self._answers) if not self._excused(answer)]

    def wrong(self) -> list[Answer]:
        """Answers that are not what their release must say."""
        return [a for a in self.answers if a.wrong and a.release is not None]

    def missing(self) -> list[Answer]:
        """Questions without an answer."""
        return [a for a in self.answers if a.release is None]

    def releases(self) -> list[str]:
        """Which releases answered, in order, each change once."""
        names = [a.release for a in self.answers if a.release is not None]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def all_right(self) -> None:
        """Assert that every answer so far, and two more, is there and right."""
        self.wait()
        answers = self.answers
        assert not (wrong := self.wrong()), f"{len(wrong)} of {len(answers)} wrong: {wrong[:3]}"
        assert not (gone := self.missing()), f"{len(gone)} of {len(answers)} missing: {gone[:3]}"

    def check(self, *releases: str) -> None:
        """Assert `all_right`, and which releases answered, in their order."""
        self.all_right()
        assert self.releases() == list(releases)

    def wait(self, more: int = 2) -> None:
        """Until so many more questions have been asked and answered, or not."""
        enough = len(self._answers) + more
        while len(self._answers) < enough:
            assert self._thread.is_alive()
            time.sleep(0.005)

    def _excused(self, answer: Answer) -> bool:
        return answer.release is None and any(
            answer.end >= begin and answer.begin <= end for begin, end in self._down
        )

    def _ask(self) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            self._answers.append(self._question(turn))
            self._stop.wait(self._pause)

    def _question(self, turn: int) -> Answer:
        begin = time.monotonic()
        pictures = next(iter(self._bundles.values())).pictures
        number = turn % len(pictures)
        try:
            found = post(self._port, "/classify", pictures[number])
            release, top = found["release"], found["top"]
            given = {entry["label"]: entry["probability"] for entry in top}
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
            return Answer(begin, time.monotonic(), None, f"{type(error).__name__}: {error}")
        end = time.monotonic()
        if release not in self._bundles:
            return Answer(begin, end, release, "nobody deployed this release")
        right = self._bundles[release].answers[number]
        far = [name for name in given if abs(given[name] - right.get(name, 2)) > TOLERANCE]
        wrong = f"{given} is not {right}" if far or not given else ""
        return Answer(begin, end, release, wrong)


def post(port: int, path: str, body: bytes, timeout: float = 10) -> Any:
    """What a server answers, as JSON.

    Raises:
        OSError, HTTPException, ValueError: no answer, or another status than 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status} {text[:300]!r}")
        return json.loads(text)
    finally:
        connection.close()


def ready(port: int) -> bool:
    """Whether a server says that it is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        answer = connection.getresponse()
        answer.read()
        return answer.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
