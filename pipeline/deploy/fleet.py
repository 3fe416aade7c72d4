"""Many devices at a time: some first, then the others in batches, until too many have failed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from paramiko import SSHException
from pyinfra.api import Config, Host, Inventory, State

from engines.bundle.archive import Bundle
from engines.engine import EngineError
from pipeline.deploy import bootstrap
from pipeline.deploy.bootstrap import Program
from pipeline.deploy.connection import (
    SECONDS,
    Access,
    close_leftovers,
    connected,
    host_data,
    prepare_known_hosts,
    silence,
)
from pipeline.deploy.errors import DeviceError
from pipeline.deploy.inventory import Device
from pipeline.deploy.record import DONE, FAILED, NOT_STARTED, UNKNOWN, Entry, Record
from pipeline.deploy.session import Event, Session


@dataclass(frozen=True)
class Rollout:
    """In what order, how many at a time, and when to stop.

    Attributes:
        canary: so many devices go first; if one of them fails, no other is started.
        batch: so many go next; those after them only when all of these are through.
        max_failures: once more than so many have failed, no other is started. None: all are.
        parallel: so many at a time are connected to.
    """

    canary: int
    batch: int
    max_failures: int | None
    parallel: int


@dataclass(frozen=True)
class Work:
    """What is done on every device.

    Attributes:
        request: what is asked of a device.
        release: its name, if it is a deployment.
        bundle: what a deployment sends from, open; None for other requests.
        program: the device program.
    """

    request: Callable[[Device], Mapping[str, Any]]
    release: str | None
    bundle: Bundle | None
    program: Program

    def asked(self, device: Device) -> dict[str, Any]:
        """What tells this work on a device from other work, in few words."""
        long = ("manifest", "signature")
        words = {key: value for key, value in self.request(device).items() if key not in long}
        where = [device.user, device.host, device.port, device.root]
        return {"release": self.release, "where": where, **words}


class Listener(Protocol):
    """Who is told how it goes."""

    def said(self, device: Device, event: Event) -> None:
        """A device says what it does."""

    def finished(self, device: Device, entry: Entry) -> None:
        """A device is through, or was not started."""


def run(
    devices: Sequence[Device],
    work: Work,
    rollout: Rollout,
    access: Access,
    record: Record,
    listener: Listener,
    again: bool = False,
) -> dict[str, Entry]:
    """Do the work on all devices.

    It runs in pyinfra's greenlets: `pipeline.deploy.greenlets.start` was called first, else one
    device is visited after the other.

    Args:
        again: also visit devices where just this was done before, though others are left. Once
            none is, all are visited: they tell that there is nothing to do, or mend what is amiss.

    Returns:
        What became of each device, by name, in their order: "state", "text", "seconds", and of
        those that were reached "result", the last event without the report.

    Raises:
        DeviceError: the known hosts can't be used, which concerns all devices.
    """
    silence()
    prepare_known_hosts(list(devices), access)
    fleet = _Fleet(work, access, record, listener)
    pending = list(devices) if again else fleet.skip_done(devices)
    # Those that were done before are the canaries of the rest.
    first = max(0, rollout.canary - (len(devices) - len(pending)))
    stages: list[tuple[list[Device], int | None]] = [(pending[:first], 0)] if first else []
    for start in range(first, len(pending), rollout.batch):
        stages.append((pending[start : start + rollout.batch], rollout.max_failures))
    for batch, most in stages:
        fleet.visit_all(batch, rollout.parallel, most)
    return {device.name: fleet.entries[device.name] for device in devices}


class _Fleet:
    def __init__(self, work: Work, access: Access, record: Record, listener: Listener) -> None:
        self._work, self._access, self._record, self._listener = work, access, record, listener
        self.entries: dict[str, Entry] = {}
        self._failures = 0
        self._stopped = False

    def skip_done(self, devices: Sequence[Device]) -> list[Device]:
        """Those that are left of a deployment that was not finished; all, if it was."""
        before = {device: self._record.done_before(device, self._work.asked(device))
                  for device in devices}  # fmt: skip
        if all(before.values()):
            return list(devices)
        for device, entry in before.items():
            if entry is not None:
                self.entries[device.name] = {**entry, "text": "done before"}
                self._listener.finished(device, self.entries[device.name])
        return [device for device, entry in before.items() if entry is None]

    def visit_all(self, batch: Sequence[Device], parallel: int, most: int | None) -> None:
        """Visit devices, `parallel` at a time, until more than `most` of all have failed."""
        by_name = {device.name: device for device in batch}
        names = [(device.name, host_data(device, self._access)) for device in batch]
        config = Config(PARALLEL=min(parallel, len(batch)), CONNECT_TIMEOUT=SECONDS)
        state = State(Inventory((names, {})), config)

        def visit(host: Host) -> tuple[Device, Entry, Any]:
            device = by_name[host.name]
            if self._stopped or (most is not None and self._failures > most):
                self._stopped = True
                return device, {"state": NOT_STARTED, "text": "too many others failed"}, None
            return self._visit(host, device)

        for device, entry, report in state.pool.imap_unordered(visit, list(state.inventory)):
            self.entries[device.name] = entry
            if entry["state"] != NOT_STARTED:
                self._record.keep(device, entry, report)
            self._listener.finished(device, entry)
        self._stopped |= most is not None and self._failures > most
        close_leftovers()

    def _visit(self, host: Host, device: Device) -> tuple[Device, Entry, Any]:
        """What became of one device, and its report."""
        start = time.monotonic()
        request = self._work.request(device)
        report = None
        entry: Entry = {"asked": self._work.asked(device)}
        try:
            with self._record.log(device) as log:
                log(f"{request['do']}, asked by edgetrt deploy")
                try:
                    result = dict(self._speak(host, device, request, log))
                    report = result.pop("report", None)
                    if self._work.release not in (None, result.get("release")):
                        raise DeviceError("it speaks of another release than it was given", "end")
                    entry.update(state=DONE, text="", result=result)
                    log("done")
                except Exception as error:
                    entry.update(_failure(error))
                    log(f"{entry['state']}: {entry['text']}")
        except OSError as error:  # the log
            entry.update(_failure(error))
        self._failures += entry["state"] != DONE
        entry["seconds"] = round(time.monotonic() - start, 3)
        return device, entry, report

    def _speak(
        self, host: Host, device: Device, request: Mapping[str, Any], log: Callable[[str], None]
    ) -> Event:
        with connected(host, device, self._access) as transport:
            channel = transport.open_session()
            channel.exec_command(bootstrap.command(device, self._work.program))

            def tell(event: Event) -> None:
                self._listener.said(device, event)

            session = Session(channel, self._work.program, self._work.bundle, tell, log)
            return session.perform(request)


def _failure(error: Exception) -> Entry:
    if isinstance(error, DeviceError):
        return {
            "state": FAILED if error.known else UNKNOWN,
            "step": error.step,
            "text": str(error),
            "rolled_back": error.rolled_back,
        }
    if isinstance(error, SSHException | EOFError):
        text = "the connection was cut before anything was done; run the same again"
    elif isinstance(error, EngineError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'connection'}: {error.strerror}"
    else:
        text = f"unexpected {type(error).__name__}: {error}"
    return {"state": FAILED, "step": "", "text": text}
