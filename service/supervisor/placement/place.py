"""Decides which devices get a version. Promises: pure; nothing is placed where it does not fit, nothing is evicted."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from saccade.service.supervisor.placement.device_memory import DeviceMemory, Need

Policy = Literal["replicate", "spread"]


@dataclass(frozen=True, slots=True)
class Placement:
    """What becomes of a version on each device; those named nowhere are waited for."""

    devices: tuple[str, ...] = ()  # load it
    refusals: Mapping[str, str] = field(default_factory=dict)  # by device: it does not fit, and why
    spared: tuple[str, ...] = ()  # another device has it


def place(
    needs: Mapping[str, Need], memory_by_device: Mapping[str, DeviceMemory], lost: Collection[str], policy: Policy
) -> Placement:
    """Devices for a version that needs this much on each of them.

    `memory_by_device` holds the devices that have said what they have; `lost` those whose worker ended before it could.
    - replicate: every device on which it fits. Each is decided on its own, as soon as it is known.
    - spread: the one with most room, among equals the one that holds least. Decided once all are known or lost,
      so that the first worker to start does not get everything.
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
    """Least first. Of equals `min` takes the first named."""
    room = math.inf if memory.free_bytes is None else memory.free_bytes
    return (-room, memory.held_bytes, len(memory.holdings))
