"""Outputs whose shape the data decides. Promises: their memory is ours, grows when it must, and their shape is known.

TensorRT asks for memory while it queues a run, and tells the shape before it returns from queueing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from saccade.service.backends.tensorrt.module import TensorRt


class SizedOutput(Protocol):
    """TensorRT's IOutputAllocator, with what it was told."""

    shape: tuple[int, ...]
    address: int


def sized_output(tensorrt: TensorRt, allocate: Callable[[int], int], address: int, size_bytes: int) -> Any:
    """An allocator that hands out `address` while that is enough, and more of `allocate` where it is not.

    What `allocate` returned belongs to the caller, who frees it with the rest.
    """

    class Allocator(tensorrt.IOutputAllocator):  # type: ignore[misc, name-defined]  # known at run time only
        def __init__(self) -> None:
            tensorrt.IOutputAllocator.__init__(self)  # the bindings ask for this very form
            self.shape: tuple[int, ...] = ()
            self.address = address
            self._size_bytes = size_bytes

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            if size > self._size_bytes:
                self.address, self._size_bytes = allocate(size), size
            return self.address

        def reallocate_output_async(self, name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return Allocator()
