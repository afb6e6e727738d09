"""Parses the names of devices, and makes the environment in which a worker sees only its own device.

Names are `cpu`, `cpu:0` (one of several workers that share the cores), `cuda:1` (the second of the visible GPUs),
`GPU-<uuid>` (one GPU by name) and `MIG-<uuid>` (a slice of one GPU). A worker on a GPU sees its device as `cuda:0`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from saccade.service.errors import SettingsError

CPU = "cpu"
ONLY_GPU = "cuda:0"  # the name of a worker's GPU inside the worker
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
# Drivers before 470 used the last form: the GPU, then the GPU instance and the compute instance.
_NUMBER = r"(?:0|[1-9]\d{0,2})"
_DEVICE = re.compile(rf"cpu(?::{_NUMBER})?|cuda:{_NUMBER}|GPU-{_UUID}|MIG-{_UUID}|MIG-GPU-{_UUID}/\d+/\d+")
_ALLOWED = (
    "cpu, cpu:<number> for one of several workers, cuda:<index>, GPU-<uuid> or MIG-<uuid> (nvidia-smi -L lists the "
    "names), several separated by commas: cuda:0,cuda:1"
)


def devices_from(text: str) -> tuple[str, ...]:
    """Returns the devices that a setting names, in order. Raises ValueError for an invalid or repeated name."""
    devices = tuple(part.strip() for part in text.split(","))
    for device in devices:
        if _DEVICE.fullmatch(device) is None:
            raise ValueError(f"{device!r} is not a device; allowed: {_ALLOWED}")
    seen: set[str] = set()
    for device in devices:
        if device.lower() in seen:
            raise ValueError(f"{device!r} is named twice; a device has one worker, so name each once")
        seen.add(device.lower())
    return devices


def device_kind(device: str) -> str:
    """Returns `cpu` or `cuda`, as manifests name the kind of device that a figure was measured on."""
    return CPU if is_cpu(device) else "cuda"


def is_cpu(device: str) -> bool:
    """Returns whether the device is the processor, or one of several workers that share its cores."""
    return device.partition(":")[0] == CPU


def inner_name(device: str) -> str:
    """Returns the name by which the worker of this device knows it."""
    return CPU if is_cpu(device) else ONLY_GPU


def worker_environment(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns environment variables that let a worker see only its own device, given the server's environment.

    An index counts the devices that the server's CUDA_VISIBLE_DEVICES names. Raises SettingsError when there are
    fewer.
    """
    if is_cpu(device):
        return {VISIBLE: ""}
    # The numbers in CUDA_VISIBLE_DEVICES depend on the order, so an order that the operator chose is kept.
    order = environment.get(ORDER, "PCI_BUS_ID")
    _, is_index, index = device.partition("cuda:")
    if not is_index:
        return {VISIBLE: device, ORDER: order}
    if VISIBLE not in environment:
        return {VISIBLE: index, ORDER: order}
    visible = _visible(environment[VISIBLE])
    if int(index) >= len(visible):
        raise SettingsError(
            f"SACCADE_DEVICE: {device} is not visible: {VISIBLE}={environment[VISIBLE]!r} names {len(visible)} "
            f"device(s), counted from cuda:0; unset it or choose another device"
        )
    return {VISIBLE: visible[int(index)], ORDER: order}


def _visible(text: str) -> list[str]:
    """Returns the names before the first one that CUDA takes for the end of the list."""
    names = []
    for part in text.split(","):
        name = part.strip()
        if not name or name.startswith("-"):
            break
        names.append(name)
    return names
