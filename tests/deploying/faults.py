"""Where to put faults, and waiting for them."""

import os
import random
import time
from collections.abc import Callable
from typing import Any

from sshd import Device

ALL_FAULTS = bool(os.environ.get("EDGETRT_ALL_FAULTS"))


def some(positions: list[int], count: int, always: tuple[int, ...] = ()) -> list[int]:
    """A seeded choice of the places for a fault; all of them with EDGETRT_ALL_FAULTS=1.

    Args:
        count: how many to choose.
        always: those that must be among them.
    """
    if ALL_FAULTS:
        return positions
    chosen = set(always) & set(positions)
    rest = [position for position in positions if position not in chosen]
    left = max(0, min(count - len(chosen), len(rest)))
    return sorted([*chosen, *random.Random(0).sample(rest, left)])


def wait_until_stopped(devices: list[Device]) -> list[Device]:
    """Wait until the agents stand still that `Device.stop_at` was called for.

    Returns:
        The devices whose agents do: one may have finished with fewer changes.
    """

    def settled(device: Device) -> bool:
        return device.stopped() is not None or (bool(device.changes()) and not device.agents())

    wait_for(lambda: all(settled(device) for device in devices))
    stopped = [device for device in devices if device.stopped()]
    assert len(stopped) >= len(devices) - 1
    return stopped


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """What `what()` returns, as soon as it is true.

    Raises:
        TimeoutError: it never was.
    """
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain")
        time.sleep(0.005)
    return found
