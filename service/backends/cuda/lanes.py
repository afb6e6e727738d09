"""A lane holds what one batch in flight needs of the device; everything is allocated at load and freed at close.

Order on the device, for one batch (arrows are events; each column is a stream, shared by all lanes):

    copy in                  compute                       copy out
    staging -> input   ───▶  input -> device outputs  ───▶ device outputs -> answers ───▶ the host

A lane is used again only after the host waited for its last arrow, so nothing else keeps batches apart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.service.backends.base import Outputs, UInt8Array
from saccade.service.backends.cuda.buffers import BufferPlan, TensorBuffer
from saccade.service.backends.cuda.driver import CudaDriver, PinnedMemory
from saccade.service.errors import BackendError


@dataclass(frozen=True, slots=True)
class Streams:
    copy_in: int
    copy_out: int
    compute: tuple[int, ...]  # one stream per execution context that may run at the same time


@dataclass(frozen=True, slots=True)
class Marks:
    """The events of one batch, in the order in which they happen."""

    begun: int  # the copy to the device begins
    arrived: int  # the pixels are on the device
    running: int
    computed: int
    finished: int  # the answers are on the host


class CudaLane:
    """The buffers, events and stream of one batch in flight."""

    def __init__(self, cuda: CudaDriver, plan: BufferPlan, streams: Streams, index: int, owned: ExitStack) -> None:
        self._cuda = cuda
        self._plan = plan
        self._streams = streams
        self.slot = index % len(streams.compute)  # number of its scratch memory and its compute stream
        self.compute_stream = streams.compute[self.slot]
        self._staging = _pinned(cuda, plan.input_bytes, owned)
        self._answers = _pinned(cuda, plan.output_bytes, owned)
        self.input_address = device_memory(cuda, plan.input_bytes, owned)
        self._output_address = device_memory(cuda, plan.output_bytes, owned)
        self._marks = Marks(*(_event(cuda, owned) for _ in range(5)))

    def staging(self, batch_size: int) -> UInt8Array:
        pixels = self._staging.view[: self._plan.input.size_bytes(batch_size)]
        return pixels.reshape(batch_size, *self._plan.input.spec.shape)

    def output_address(self, output: TensorBuffer) -> int:
        return self._output_address + output.offset

    def start(self, batch_size: int, run: Callable[[int], None], address_of: Callable[[TensorBuffer], int]) -> None:
        """Queues copy in, compute and copy out. `run` queues the computation on the stream that it is given.

        When this fails, nothing is left running: the lane can be used again at once, or the device is lost.
        """
        self.upload(batch_size)
        self.compute(batch_size, run, address_of)

    def upload(self, batch_size: int) -> None:
        """Queues the copy in, the first step of `start`."""
        cuda, marks, streams = self._cuda, self._marks, self._streams
        try:
            cuda.record(marks.begun, streams.copy_in)
            size_bytes = self._plan.input.size_bytes(batch_size)
            cuda.copy_to_device(self.input_address, self._staging.address, size_bytes, streams.copy_in)
            cuda.record(marks.arrived, streams.copy_in)
        except BackendError:
            self.drain()
            raise

    def compute(self, batch_size: int, run: Callable[[int], None], address_of: Callable[[TensorBuffer], int]) -> None:
        """Queues compute and copy out. Any thread may call it, and may repeat it after a failure."""
        cuda, marks, streams = self._cuda, self._marks, self._streams
        try:
            cuda.wait(self.compute_stream, marks.arrived)
            cuda.record(marks.running, self.compute_stream)
            run(self.compute_stream)
            cuda.record(marks.computed, self.compute_stream)
            cuda.wait(streams.copy_out, marks.computed)
            for output in self._plan.outputs:
                target = self._answers.address + output.offset
                cuda.copy_to_host(target, address_of(output), output.size_bytes(batch_size), streams.copy_out)
            cuda.record(marks.finished, streams.copy_out)
        except BackendError:
            self.drain()
            raise

    def finish(self, batch_size: int) -> tuple[Outputs, float]:
        """Waits for the answers. The seconds are those of both copies and the run, without waits for other batches."""
        cuda, marks = self._cuda, self._marks
        cuda.synchronize_event(marks.finished)
        run_s = cuda.elapsed_s(marks.begun, marks.arrived) + cuda.elapsed_s(marks.running, marks.finished)
        return [self._answer(output, batch_size) for output in self._plan.outputs], run_s

    def drain(self) -> None:
        """Waits for all device work that touches this lane."""
        for stream in (self._streams.copy_in, self.compute_stream, self._streams.copy_out):
            self._cuda.synchronize_stream(stream)

    def _answer(self, output: TensorBuffer, batch_size: int) -> NDArray[Any]:
        raw = self._answers.view[output.offset :][: output.size_bytes(batch_size)]
        # Copied, because the lane's next batch overwrites the pinned memory while the caller still reads its answers.
        return raw.view(np.dtype(output.spec.dtype)).reshape(batch_size, *output.spec.shape).copy()


def open_streams(cuda: CudaDriver, contexts: int, owned: ExitStack) -> Streams:
    made = [_stream(cuda, owned) for _ in range(2 + contexts)]
    return Streams(made[0], made[1], tuple(made[2:]))


def device_memory(cuda: CudaDriver, size_bytes: int, owned: ExitStack) -> int:
    """Allocates device memory, which `owned` frees."""
    address = cuda.allocate(size_bytes)
    owned.callback(cuda.free, address)
    return address


def _pinned(cuda: CudaDriver, size_bytes: int, owned: ExitStack) -> PinnedMemory:
    memory = cuda.allocate_pinned(size_bytes)
    owned.callback(cuda.free_pinned, memory)
    return memory


def _stream(cuda: CudaDriver, owned: ExitStack) -> int:
    stream = cuda.create_stream()
    owned.callback(cuda.destroy_stream, stream)
    return stream


def _event(cuda: CudaDriver, owned: ExitStack) -> int:
    event = cuda.create_event()
    owned.callback(cuda.destroy_event, event)
    return event
