"""The interface to CUDA: handles are plain integers, and every failure is one of saccade's errors.

Every method may raise
- RuntimeMissing: no driver, or one that is too old;
- OutOfDeviceMemory: an allocation that does not fit;
- DeviceLost: a sticky error, after which the process must end;
- BackendError: anything else.

Work on a stream is asynchronous: host memory may be read or changed only after waiting for its event or stream.
The current device belongs to the calling thread, so a thread calls `set_device` before anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from saccade.service.backends.base import UInt8Array


@dataclass(frozen=True, slots=True)
class CudaVersions:
    """CUDA versions as CUDA writes them: 13040 is 13.4."""

    driver: int  # the newest CUDA that the driver supports; 0: no driver
    runtime: int


@dataclass(frozen=True, slots=True)
class DeviceProperties:
    name: str
    capability: str  # as models/contract/plans.py's Capability: "SM90"
    memory_total_bytes: int  # of the MIG instance where the device is one


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class PinnedMemory:
    """Page-locked host memory, which the device copies to and from without the processor."""

    address: int
    view: UInt8Array  # all its bytes; must not be touched after the memory was freed


class CudaDriver(Protocol):
    def versions(self) -> CudaVersions: ...

    def device_count(self) -> int: ...

    def properties(self, index: int) -> DeviceProperties:
        """Facts about a device; reading them makes no context on it."""

    def set_device(self, index: int) -> None:
        """Makes a device current in this thread. Side effect: the first call makes the process's context there."""

    def memory(self) -> MemoryInfo:
        """Free and total memory of the current device, counting all processes."""

    # Memory

    def allocate(self, size_bytes: int) -> int:
        """The address of new device memory, aligned to at least 256 bytes."""

    def free(self, address: int) -> None: ...

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory: ...

    def free_pinned(self, memory: PinnedMemory) -> None: ...

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queues a copy from pinned memory."""

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Queues a copy to pinned memory."""

    # Order

    def create_stream(self) -> int:
        """A new stream that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None: ...

    def create_event(self) -> int:
        """A new timed event. Threads that wait for it sleep rather than spin: the cores decode images meanwhile."""

    def destroy_event(self, event: int) -> None: ...

    def record(self, event: int, stream: int) -> None:
        """Makes the event happen once all work queued on the stream so far is done."""

    def wait(self, stream: int, event: int) -> None:
        """Makes later work on the stream wait for the event as last recorded; the host does not wait."""

    def is_done(self, event: int) -> bool: ...

    def synchronize_event(self, event: int) -> None:
        """Blocks the calling thread until the event has happened."""

    def synchronize_stream(self, stream: int) -> None:
        """Blocks the calling thread until all work on the stream is done."""

    def elapsed_s(self, start: int, end: int) -> float:
        """Seconds on the device between two timed events that both happened."""

    # Graphs

    def begin_capture(self, stream: int) -> None:
        """From now on, work queued on the stream is recorded and not run."""

    def end_capture(self, stream: int) -> int:
        """An executable graph of the recorded work. Raises BackendError when something could not be recorded."""

    def is_capturing(self, stream: int) -> bool:
        """Whether the stream captures; also true while the capture is broken, until `end_capture` is called."""

    def launch(self, graph: int, stream: int) -> None: ...

    def destroy_graph(self, graph: int) -> None: ...
