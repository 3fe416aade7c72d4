"""What a person sees while a deployment goes on."""

import re
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.progress import Console
from pipeline.deploy.inventory import Device
from pipeline.deploy.record import DONE, NOT_STARTED, Entry
from pipeline.deploy.session import Event, text_of
from pipeline.deploy.table import engine, p90

STEP = re.compile("[a-z-]{1,20}")  # a bar's label: others might mean something to a terminal
MOST = 2**53  # parts of a step, or bytes
UNITS = {"transfer": ("MB", 10**6)}  # what a step counts, if not just parts; how many in one


class Teller:
    """Each step of one device, or each of many devices when it is through.

    Use it as a context manager.
    """

    def __init__(self, console: Console, label: str, count: int) -> None:
        self._console, self._label, self._count = console, label, count
        self._bar = ExitStack()
        self._advance: Callable[[int], None] = lambda _count: None
        self._step, self._done = "", 0

    def __enter__(self) -> "Teller":
        if self._count > 1:
            progress = self._console.progress(self._label, self._count, "devices")
            self._advance = self._bar.enter_context(progress)
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.close()

    def said(self, device: Device, event: Event) -> None:
        """Tell the steps of a device that is alone."""
        if self._count > 1:
            return
        step = text_of(event, "step")
        if event["event"] == "progress":
            self._progress(step, event.get("done"), event.get("total"))
        elif event["event"] == "step":
            text = text_of(event, "text")
            if text or event.get("state") == "done":
                self._end_progress()
                self._console.say(f"{device.name}: {step}: {text or 'done'}")

    def finished(self, device: Device, entry: Entry) -> None:
        """Tell that a device is through."""
        self._end_progress() if self._count == 1 else self._advance(1)
        if entry["state"] == DONE:
            words = [entry["text"] or DONE, engine(entry), p90(entry) and f"{p90(entry)} ms"]
            if self._count > 1:
                self._console.say(f"{device.name}: {', '.join(word for word in words if word)}")
        elif entry["state"] != NOT_STARTED:
            step = f"{entry['step']}: " if entry["step"] else ""
            first, *more = entry["text"].splitlines() or [""]
            self._console.warn(f"{device.name}: {step}{first}")
            for line in more:
                self._console.warn(f"{device.name}: {line}")

    def _progress(self, step: str, done: object, total: object) -> None:
        if type(done) is not int or type(total) is not int or not 0 <= done <= total <= MOST:
            return
        if not STEP.fullmatch(step):
            return
        unit, size = UNITS.get(step, ("parts", 1))
        if step != self._step:
            self._end_progress()
            progress = self._console.progress(step, total // size, unit)
            self._advance = self._bar.enter_context(progress)
            self._step = step
        self._advance(done // size - self._done)
        self._done = done // size

    def _end_progress(self) -> None:
        self._bar.close()
        self._step, self._done = "", 0
