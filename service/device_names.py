"""Names of devices, as settings, metrics and answers spell them. Promises: pure; a worker sees only its device.

`cpu`, `cpu:0` (one of several workers that share the cores), `cuda:1` (the second GPU of those that are visible),
`GPU-<uuid>` (one GPU by name) and `MIG-<uuid>` (a slice of one). A worker on any GPU gets an environment in which its
device is `cuda:0`, the only one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from saccade.service.errors import SettingsError

CPU = "cpu"
ONLY_GPU = "cuda:0"  # what a worker calls its GPU, whatever its name outside
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
# The last form is that of drivers before 470: the GPU, then its GPU instance and compute instance.
_NUMBER = r"(?:0|[1-9]\d{0,2})"
_DEVICE = re.compile(rf"cpu(?::{_NUMBER})?|cuda:{_NUMBER}|GPU-{_UUID}|MIG-{_UUID}|MIG-GPU-{_UUID}/\d+/\d+")
_ALLOWED = (
    "cpu, cpu:<number> for one of several workers, cuda:<index>, GPU-<uuid> or MIG-<uuid> (nvidia-smi -L lists the "
    "names), several separated by commas: cuda:0,cuda:1"
)


def devices_from(text: str) -> tuple[str, ...]:
    """The devices a setting names, in order. Raises ValueError naming the one that is none, or comes twice."""
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
    """`cpu` or `cuda`, as manifests name the kind a figure was measured on."""
    return CPU if is_cpu(device) else "cuda"


def is_cpu(device: str) -> bool:
    """Several workers on the processor share its cores between them; each is a device of its own."""
    return device.partition(":")[0] == CPU


def inner_name(device: str) -> str:
    """What the worker of this device calls it."""
    return CPU if is_cpu(device) else ONLY_GPU


def worker_environment(device: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that leave a worker its own device only, given those the server runs with.

    An index counts among the devices that CUDA_VISIBLE_DEVICES of the server names. Raises SettingsError when it
    names fewer.
    """
    if is_cpu(device):
        return {VISIBLE: ""}
    # An operator who chose an order chose what the numbers in CUDA_VISIBLE_DEVICES mean.
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
    """Names up to the first one that CUDA takes for the end of the list."""
    names = []
    for part in text.split(","):
        name = part.strip()
        if not name or name.startswith("-"):
            break
        names.append(name)
    return names
