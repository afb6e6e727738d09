"""A CUDA device without a GPU: asynchronous work, run in the order least helpful to a test, so that ordering bugs fail.

Work on a stream runs when somebody waits for it, or at any earlier moment, in any order that stream order and events
allow; the seed decides. Host memory that a copy will fill shows POISON until the copy ran. What CUDA leaves undefined
(use after free, freeing what is in use, a thread without a device, a forbidden call while capturing) is a `Violation`.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from saccade.service.backends.base import UInt8Array
from saccade.service.backends.cuda.driver import CudaVersions, DeviceProperties, MemoryInfo, PinnedMemory
from saccade.service.backends.cuda.failures import failure

POISON = 0xDB  # in host memory that a copy is on its way to
FRESH = 0xCD  # in new memory
VERSIONS = CudaVersions(13020, 13040)
_MIB = 1024 * 1024


class Violation(AssertionError):
    """Something that CUDA leaves undefined; no handler of ours catches it."""


@dataclass
class _Event:
    ticket: int = 0  # of the latest record; 0: never recorded
    done: int = 0  # the latest ticket that happened
    happened_s: float = 0.0


@dataclass
class _Operation:
    run: Callable[[], None]
    is_ready: Callable[[], bool] = lambda: True


@dataclass
class _Stream:
    queued: deque[_Operation] = field(default_factory=deque)
    captured: list[_Operation] | None = None


class SimulatedCuda:
    """A CudaDriver. `assert_clean` at the end of a test finds what was not given back."""

    def __init__(
        self,
        seed: int = 0,
        *,
        memory_bytes: int = 1024 * _MIB,
        capability: str = "SM90",
        name: str = "Simulated H200",
        eagerness: float = 0.5,
        one_thread_at_a_time: bool = True,  # CUDA allows several; this finds callers that never should
    ) -> None:
        """`eagerness` is how often work runs before anybody waits for it; at 0 everything is as late as can be."""
        self.memory_bytes = memory_bytes
        self.calls: list[str] = []
        self.violations: list[str] = []
        self._random = random.Random(seed)
        self._eagerness = eagerness
        self._properties = DeviceProperties(name, capability, memory_bytes)
        self._device_memory: dict[int, UInt8Array] = {}
        self._pinned: dict[int, UInt8Array] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: dict[int, _Event] = {}
        self._graphs: dict[int, list[_Operation]] = {}
        self._next_handle = 1
        self._clock_s = 0.0
        self._threads: set[int] = set()
        self._entered = threading.Lock()
        self._may_wait = not one_thread_at_a_time
        self._lost_at_call: int | None = None
        self._lost = ""
        self._is_poisoned = False
        self._failing: dict[str, str] = {}
        self._most_bytes: int | None = None

    # What a test makes it do

    def lose_at_call(self, number: int) -> None:
        """The call of this number from now on, and every later one, finds a sticky error."""
        self._lost_at_call = len(self.calls) + number

    def poison_next_run(self) -> None:
        """The next work that runs on the device breaks it; the host learns so when it next calls."""
        self._is_poisoned = True

    def fail_once(self, call: str, error: str = "cudaErrorUnknown") -> None:
        """The next call of this name fails, and leaves the device usable."""
        self._failing[call] = error

    def refuse_allocations_over(self, size_bytes: int) -> None:
        self._most_bytes = size_bytes

    def assert_clean(self) -> None:
        """Nothing is left, and nothing undefined was done."""
        left = {
            "device memory": len(self._device_memory),
            "pinned memory": len(self._pinned),
            "streams": len(self._streams),
            "events": len(self._events),
            "graphs": len(self._graphs),
        }
        kept = {what: count for what, count in left.items() if count}
        assert not kept, f"not given back: {kept}"
        assert self.violations == []

    @property
    def used_bytes(self) -> int:
        return sum(len(memory) for memory in self._device_memory.values())

    @property
    def pinned_bytes(self) -> int:
        return sum(len(memory) for memory in self._pinned.values())

    # What kernels do; not part of the seam

    def queue(self, stream: int, run: Callable[[], None]) -> None:
        """Queues device work, as a library's kernel launch does."""
        with self._call("launch_kernel"):
            self._append(stream, _Operation(run))

    def memory_at(self, address: int, size_bytes: int) -> UInt8Array:
        """Device memory as a running kernel sees it."""
        return self._slice(self._device_memory, address, size_bytes, "device")

    def is_capturing(self, stream: int) -> bool:
        return self._stream(stream).captured is not None

    # The seam: facts

    def versions(self) -> CudaVersions:
        return VERSIONS

    def device_count(self) -> int:
        return 1

    def properties(self, index: int) -> DeviceProperties:
        if index != 0:
            raise failure("cudaGetDeviceProperties", "cudaErrorInvalidDevice", "invalid device ordinal", VERSIONS)
        return self._properties

    def set_device(self, index: int) -> None:
        self._threads.add(threading.get_ident())
        with self._call("set_device"):
            self.properties(index)

    def memory(self) -> MemoryInfo:
        with self._call("memory"):
            return MemoryInfo(self.memory_bytes - self.used_bytes, self.memory_bytes)

    # The seam: memory

    def allocate(self, size_bytes: int) -> int:
        with self._call("allocate", may_capture=False):
            if self.used_bytes + size_bytes > self.memory_bytes or size_bytes > (self._most_bytes or size_bytes):
                raise failure("cudaMalloc", "cudaErrorMemoryAllocation", "out of memory", VERSIONS)
            return self._new_memory(self._device_memory, size_bytes)[0]

    def free(self, address: int) -> None:
        with self._call("free", may_capture=False):
            self._release(self._device_memory, address, "device memory")

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory:
        with self._call("allocate_pinned", may_capture=False):
            if size_bytes > (self._most_bytes or size_bytes):
                raise failure("cudaMallocHost", "cudaErrorMemoryAllocation", "out of memory", VERSIONS)
            return PinnedMemory(*self._new_memory(self._pinned, size_bytes))

    def free_pinned(self, memory: PinnedMemory) -> None:
        with self._call("free_pinned", may_capture=False):
            self._release(self._pinned, memory.address, "pinned memory")
            memory.view[:] = POISON  # whoever still reads it, sees it

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        with self._call("copy_to_device"):
            self._slice(self._device_memory, target, size_bytes, "device")
            self._slice(self._pinned, source, size_bytes, "pinned")

            def run() -> None:
                pixels = self._slice(self._pinned, source, size_bytes, "pinned")
                self._slice(self._device_memory, target, size_bytes, "device")[:] = pixels

            self._append(stream, _Operation(run))

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        with self._call("copy_to_host"):
            self._slice(self._device_memory, source, size_bytes, "device")
            self._slice(self._pinned, target, size_bytes, "pinned")[:] = POISON

            def run() -> None:
                answer = self._slice(self._device_memory, source, size_bytes, "device")
                self._slice(self._pinned, target, size_bytes, "pinned")[:] = answer

            self._append(stream, _Operation(run))

    # The seam: order

    def create_stream(self) -> int:
        with self._call("create_stream", may_capture=False):
            return self._new_handle(self._streams, _Stream())

    def destroy_stream(self, stream: int) -> None:
        with self._call("destroy_stream", may_capture=False):
            if self._stream(stream).queued:
                self._violate(f"stream {stream} is destroyed while work is queued on it")
            del self._streams[stream]

    def create_event(self) -> int:
        with self._call("create_event"):
            return self._new_handle(self._events, _Event())

    def destroy_event(self, event: int) -> None:
        with self._call("destroy_event"):
            found = self._event(event)
            if found.done != found.ticket:
                self._violate(f"event {event} is destroyed before it happened")
            del self._events[event]

    def record(self, event: int, stream: int) -> None:
        with self._call("record", may_capture=False):
            found = self._event(event)
            found.ticket += 1
            ticket = found.ticket

            def run() -> None:
                found.done, found.happened_s = ticket, self._clock_s

            self._append(stream, _Operation(run))

    def wait(self, stream: int, event: int) -> None:
        with self._call("wait", may_capture=False):
            found = self._event(event)
            ticket = found.ticket
            self._append(stream, _Operation(lambda: None, lambda: found.done >= ticket))

    def is_done(self, event: int) -> bool:
        with self._call("is_done", may_capture=False):
            found = self._event(event)
            return found.done == found.ticket

    def synchronize_event(self, event: int) -> None:
        with self._call("synchronize_event", may_capture=False):
            found = self._event(event)
            self._run_until(lambda: found.done == found.ticket)

    def synchronize_stream(self, stream: int) -> None:
        with self._call("synchronize_stream", may_capture=False):
            found = self._stream(stream)
            self._run_until(lambda: not found.queued)

    def elapsed_s(self, start: int, end: int) -> float:
        with self._call("elapsed_s"):
            first, last = self._event(start), self._event(end)
            for event in (first, last):
                if event.ticket == 0 or event.done != event.ticket:
                    self._violate("elapsed time is asked of an event that has not happened")
            return last.happened_s - first.happened_s

    # The seam: graphs

    def begin_capture(self, stream: int) -> None:
        with self._call("begin_capture", may_capture=False):
            found = self._stream(stream)
            found.captured = []

    def end_capture(self, stream: int) -> int:
        found = self._stream(stream)
        captured, found.captured = found.captured, None
        with self._call("end_capture"):
            if captured is None:
                self._violate("a capture ends that never began")
            return self._new_handle(self._graphs, captured or [])

    def launch(self, graph: int, stream: int) -> None:
        with self._call("launch"):
            if graph not in self._graphs:
                self._violate(f"graph {graph} is launched and does not exist")
            for operation in self._graphs[graph]:
                self._append(stream, operation)

    def destroy_graph(self, graph: int) -> None:
        with self._call("destroy_graph"):
            if self._graphs.pop(graph, None) is None:
                self._violate(f"graph {graph} is destroyed and does not exist")

    # How it works

    @contextmanager
    def _call(self, name: str, *, may_capture: bool = True) -> Iterator[None]:
        if not self._entered.acquire(blocking=self._may_wait):
            self._violate(f"{name} is called while another thread is in a call")
        try:
            self.calls.append(name)
            if threading.get_ident() not in self._threads:
                self._violate(f"{name} is called in a thread that has no current device")
            if self._lost_at_call is not None and len(self.calls) >= self._lost_at_call:
                self._lost = "cudaErrorIllegalAddress"
            if not may_capture and any(stream.captured is not None for stream in self._streams.values()):
                self._violate(f"{name} is called while a stream is capturing")
            self._raise_if_lost(name)
            if name in self._failing:
                raise failure(name, self._failing.pop(name), "as the test asked for", VERSIONS)
            if self._random.random() < self._eagerness:
                self._run_some(self._random.randint(1, 4))
            yield
            self._raise_if_lost(name)
        finally:
            self._entered.release()

    def _raise_if_lost(self, name: str) -> None:
        if self._lost:
            raise failure(name, self._lost, "an illegal memory access was encountered", VERSIONS)

    def _append(self, stream: int, operation: _Operation) -> None:
        found = self._stream(stream)
        if found.captured is not None:
            found.captured.append(operation)
        else:
            found.queued.append(operation)

    def _ready(self) -> list[_Stream]:
        return [stream for stream in self._streams.values() if stream.queued and stream.queued[0].is_ready()]

    def _run_some(self, count: int) -> None:
        for _ in range(count):
            ready = self._ready()
            if not ready or self._lost:
                return
            self._run_one(self._random.choice(ready))

    def _run_until(self, is_reached: Callable[[], bool]) -> None:
        while not is_reached() and not self._lost:
            ready = self._ready()
            if not ready:
                self._violate("the host waits for work that can never run")
            self._run_one(self._random.choice(ready))

    def _run_one(self, stream: _Stream) -> None:
        operation = stream.queued.popleft()
        self._clock_s += 0.001
        if self._is_poisoned:
            self._is_poisoned, self._lost = False, "cudaErrorIllegalAddress"
            return
        operation.run()

    def _new_handle(self, table: dict[int, object], thing: object) -> int:  # type: ignore[type-arg]
        self._next_handle += 1
        table[self._next_handle] = thing
        return self._next_handle

    def _new_memory(self, table: dict[int, UInt8Array], size_bytes: int) -> tuple[int, UInt8Array]:
        if size_bytes <= 0:
            self._violate(f"{size_bytes} bytes are asked for")
        # Its real address, so that ONNX Runtime on the processor can stand for a kernel; aligned as CUDA's is, with a
        # gap behind every block, so that running past an end hits nothing.
        room = np.full(size_bytes + 256 + 4096, FRESH, np.uint8)
        address = -(-room.ctypes.data // 256) * 256
        table[address] = room[address - room.ctypes.data :][:size_bytes]
        return address, table[address]

    def _slice(self, table: dict[int, UInt8Array], address: int, size_bytes: int, kind: str) -> UInt8Array:
        for start, memory in table.items():
            if start <= address and address + size_bytes <= start + len(memory):
                return memory[address - start :][:size_bytes]
        self._violate(f"{size_bytes} bytes at {address:#x} are not {kind} memory, or not any more")
        raise AssertionError

    def _release(self, table: dict[int, UInt8Array], address: int, what: str) -> None:
        if address not in table:
            self._violate(f"{what} at {address:#x} is freed and was not allocated, or was freed before")
        if any(stream.queued for stream in self._streams.values()):
            self._violate(f"{what} is freed while work is queued")
        del table[address]

    def _stream(self, stream: int) -> _Stream:
        if stream not in self._streams:
            self._violate(f"stream {stream} does not exist")
        return self._streams[stream]

    def _event(self, event: int) -> _Event:
        if event not in self._events:
            self._violate(f"event {event} does not exist")
        return self._events[event]

    def _violate(self, what: str) -> None:
        self.violations.append(what)
        raise Violation(what)
