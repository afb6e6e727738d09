"""Decides which devices load a version, by the memory that it needs and that they have left."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from saccade.service.supervisor.placement.device_memory import DeviceMemory, Need

Policy = Literal["replicate", "spread"]


@dataclass(frozen=True, slots=True)
class Placement:
    """What happens to a version on each device; for a device in no field, nothing is decided yet."""

    devices: tuple[str, ...] = ()  # devices that load it
    refusals: Mapping[str, str] = field(default_factory=dict)  # reasons by device, where it does not fit
    spared: tuple[str, ...] = ()  # devices that need not load it, because another one does


def place(
    needs: Mapping[str, Need], memory_by_device: Mapping[str, DeviceMemory], lost: Collection[str], policy: Policy
) -> Placement:
    """Decides on the devices for a version with this need on each of them.

    `memory_by_device` holds the devices that have reported their memory, `lost` those whose worker ended before it did.
    - replicate: every device on which it fits; each is decided on its own, as soon as its memory is known.
    - spread: the device with most room, among equal ones the one that holds least. This is decided once all devices are
      known or lost, so that the first worker to start does not get all versions.
    """
    known = {device: memory_by_device[device] for device in needs if device in memory_by_device}
    refusals = {
        device: reason for device, memory in known.items() if (reason := memory.refusal(needs[device])) is not None
    }
    fitting = [device for device in known if device not in refusals]
    if policy == "replicate":
        return Placement(tuple(fitting), refusals)
    is_waiting = any(device not in known and device not in lost for device in needs)
    if is_waiting or not known:
        return Placement()
    if not fitting:
        return Placement((), refusals)
    chosen = min(fitting, key=lambda device: _fullness(known[device]))
    return Placement((chosen,), {}, tuple(device for device in needs if device != chosen))


def _fullness(memory: DeviceMemory) -> tuple[float, int, int]:
    """Returns a key that is smallest for the device to prefer; `min` takes the first of equal ones."""
    room = math.inf if memory.free_bytes is None else memory.free_bytes
    return (-room, memory.held_bytes, len(memory.holdings))
