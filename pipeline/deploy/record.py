"""What a deployment leaves on the host: state.json, and a log and a report for each device."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.files import write_json
from engines.text import printable
from pipeline.deploy.inventory import Device
from pipeline.errors import PipelineError, UsageError

STATE = "state.json"
DONE, FAILED, UNKNOWN, NOT_STARTED = "done", "failed", "unknown", "not started"

Entry = dict[str, Any]  # what became of one device; see `Record.keep`


class Record:
    """The folder of a deployment. Use it as a context manager: one at a time works in it.

    Args:
        folder: made if it is missing; None: nothing is written, and nothing was before.
        keeps: whether what becomes of the devices is kept, and not just logged.
    """

    def __init__(self, folder: Path | None, keeps: bool = True) -> None:
        self.folder, self._keeps = folder, keeps
        self._waits, self._again = False, 0.0  # whether something is to be written, and when
        self._lock: int | None = None
        self._entries: dict[str, Entry] = {}

    def __enter__(self) -> "Record":
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise UsageError(f"another deployment is at work with {self.folder}; wait for it, "
                                 "or choose another --log") from None  # fmt: skip
            try:
                self._entries = self._read(self.folder / STATE)
            except BaseException:
                os.close(self._lock)
                raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if self.folder is not None and self._waits:
                self._write(self.folder)
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def done_before(self, device: Device, asked: Mapping[str, Any]) -> Entry | None:
        """What became of the device, if just this was asked of it before, and done."""
        entry = self._entries.get(device.name)
        if entry is None or entry.get("state") != DONE or entry.get("asked") != asked:
            return None
        return entry

    def keep(self, device: Device, entry: Entry, report: Any) -> None:
        """Write down what became of a device: at once, unless that would take all the time.

        All entries are one file. It is written for at most a tenth of the time, so that what that
        takes does not grow with the square of the devices. Of a killed deployment the last
        moments' entries may be missing: those devices are then asked again.

        Args:
            entry: "state" (of those above), "text", "asked", "seconds", and what the device said.
            report: of the device's benchmark; None if there is none.
        """
        self._entries[device.name] = entry
        if self.folder is not None and self._keeps:
            if report is not None:
                if isinstance(report, dict) and isinstance(report.get("run"), dict):
                    report["run"]["name"] = device.name  # it calls itself by its release
                write_json(self.folder / f"{device.name}.json", report, indent=None)
            self._waits = True
            if time.monotonic() >= self._again:
                self._write(self.folder)

    def _write(self, folder: Path) -> None:
        start = time.monotonic()
        write_json(folder / STATE, self._entries, indent=None)
        now = time.monotonic()
        self._waits, self._again = False, now + 9 * (now - start)

    @contextmanager
    def log(self, device: Device) -> Iterator[Callable[[str], None]]:
        """A function that adds a line, with the time, to the device's log."""
        if self.folder is None:
            yield lambda _text: None
            return
        with (self.folder / f"{device.name}.log").open("a", encoding="utf-8", buffering=1) as file:

            def write(text: str) -> None:
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                file.write(f"{now} {printable(text)}\n")

            yield write

    @staticmethod
    def _read(file: Path) -> dict[str, Entry]:
        try:
            entries = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            raise PipelineError(f"{file} is damaged ({error}); remove it: what is done already on "
                                "a device is found there") from error  # fmt: skip
        if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
            raise UsageError(f"{file} is no record of a deployment; choose another --log")
        return entries
