"""A deployment in a process of its own, with a device program that a test wrote.

Reads what to do as JSON from standard input, and writes what became of it, and what it took, to
standard output.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from pipeline.deploy import greenlets


def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    greenlets.start()
    from scripted_agent import program

    from pipeline.deploy import fleet
    from pipeline.deploy.connection import Access
    from pipeline.deploy.inventory import Device
    from pipeline.deploy.record import Entry, Record

    class Watch:
        """Counts connections and notes the order."""

        def __init__(self) -> None:
            self.finished_in_order: list[str] = []
            self.most_connections = 0
            self.memory: list[int] = []

        def said(self, device: Device, event: Any) -> None:
            self.most_connections = max(self.most_connections, connections())

        def finished(self, device: Device, entry: Entry) -> None:
            self.finished_in_order.append(device.name)
            self.memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    watch = Watch()
    devices = [
        Device(**{**values, "identity": Path(values["identity"])}) for values in asked["devices"]
    ]
    work = fleet.Work(lambda _device: {"do": "deploy"}, "0123", None, program(asked["script"]))
    rollout = fleet.Rollout(**asked["rollout"])
    access = Access(None, False, Path(asked["known_hosts"]))
    folder = Path(asked["log"]) if asked["log"] else None
    with Record(folder) as record:
        entries = fleet.run(devices, work, rollout, access, record, watch)
    json.dump(
        {
            "states": {name: entry["state"] for name, entry in entries.items()},
            "texts": {name: entry["text"] for name, entry in entries.items()},
            "order": watch.finished_in_order,
            "most_connections": watch.most_connections,
            "connections_left": connections(),
            "kilobytes": watch.memory,
        },
        sys.stdout,
    )


def connections() -> int:
    """How many sockets this process has."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
