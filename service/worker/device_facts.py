"""Reads name, versions and memory of the worker's device. It never raises: the facts of an unusable device say why.

On a GPU this makes the CUDA context of the process, since only a context tells how much memory is free; it allocates
no memory itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.cuda.failures import version_text
from saccade.service.backends.onnxruntime_backend import version_for_gpus
from saccade.service.device_names import CPU
from saccade.service.errors import SaccadeError
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.settings import Settings

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_KIB = 1024


def device_facts(settings: Settings, cuda: CudaDriver | None = None) -> DeviceFacts:
    """Returns the facts about the worker's only device."""
    if settings.backend == "fake":  # the fake backend has no real device, whatever its name
        return DeviceFacts(name="fake")
    if settings.device == CPU:
        return cpu_facts(_PROC, _CGROUP)
    return _gpu_facts(settings.device, cuda)


def memory_meter(settings: Settings, cuda: CudaDriver | None = None) -> Callable[[], int]:
    """Returns a function that reads the bytes in use: a GPU's by all processes, or this process's resident memory."""
    if settings.device == CPU or settings.backend == "fake":
        return lambda: resident_bytes(_PROC)

    def used_bytes() -> int:
        try:
            driver = _opened(cuda)
            driver.set_device(_index(settings.device))
            memory = driver.memory()
        except SaccadeError:  # the load reports what is wrong with the device
            return 0
        return memory.total_bytes - memory.free_bytes

    return used_bytes


def cpu_facts(proc: Path, cgroup: Path) -> DeviceFacts:
    """Returns the processor's name and the memory of the machine, or of the container where it has a limit."""
    total_bytes = _meminfo_bytes(proc, "MemTotal")
    free_bytes = _meminfo_bytes(proc, "MemAvailable")
    limit_bytes = _number(_text(cgroup / "memory.max"))
    if limit_bytes is not None and limit_bytes < total_bytes:
        used_bytes = _number(_text(cgroup / "memory.current")) or 0
        total_bytes, free_bytes = limit_bytes, min(free_bytes, max(0, limit_bytes - used_bytes))
    name = re.search(r"^model name\s*:\s*(.+)$", _text(proc / "cpuinfo"), re.MULTILINE)
    return DeviceFacts(
        name=name[1].strip() if name else os.uname().machine,
        memory_total_bytes=total_bytes,
        memory_free_bytes=free_bytes,
    )


def resident_bytes(proc: Path) -> int:
    pages = _text(proc / "self" / "statm").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def _gpu_facts(device: str, cuda: CudaDriver | None) -> DeviceFacts:
    # Imported here, because a CPU worker does not need it and TensorRT takes a second to load.
    from saccade.service.backends.tensorrt.module import find_tensorrt, why_not_on

    tensorrt = find_tensorrt()
    facts = DeviceFacts(
        tensorrt=tensorrt.__name__ if tensorrt else "",
        tensorrt_version=str(tensorrt.__version__) if tensorrt else "",
        onnxruntime_version=version_for_gpus(),
    )
    try:
        driver = _opened(cuda)
        version = driver.versions().driver
        facts = replace(facts, driver_version=version_text(version) if version else "")
        properties = driver.properties(_index(device))
        facts = replace(facts, name=properties.name, compute_capability=properties.capability)
        if tensorrt is not None:
            facts = replace(facts, tensorrt_problem=why_not_on(tensorrt, properties.capability))
        driver.set_device(_index(device))
        memory = driver.memory()
    except SaccadeError as error:
        return replace(facts, problem=" ".join(str(error).split()))
    return replace(facts, memory_total_bytes=memory.total_bytes, memory_free_bytes=memory.free_bytes)


def _opened(cuda: CudaDriver | None) -> CudaDriver:
    from saccade.service.backends.cuda.runtime_driver import RuntimeDriver

    return RuntimeDriver() if cuda is None else cuda


def _index(device: str) -> int:
    return int(device.partition(":")[2])


def _meminfo_bytes(proc: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _text(proc / "meminfo"), re.MULTILINE)
    return int(found[1]) * _KIB if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None  # "max" means that there is no limit
