"""Gives memory to outputs whose shape depends on the data: saccade owns the memory and enlarges it when needed.

TensorRT asks for memory while it queues a run, and reports the shape before it returns from queueing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from saccade.service.backends.tensorrt.module import TensorRt


class SizedOutput(Protocol):
    """TensorRT's IOutputAllocator, with the address and shape that TensorRT reported."""

    shape: tuple[int, ...]
    address: int


def sized_output(tensorrt: TensorRt, allocate: Callable[[int], int], address: int, size_bytes: int) -> Any:
    """An allocator that hands out `address` while that is large enough, and else memory from `allocate`.

    The caller frees what `allocate` returned.
    """

    class Allocator(tensorrt.IOutputAllocator):  # type: ignore[misc, name-defined]  # known at run time only
        def __init__(self) -> None:
            tensorrt.IOutputAllocator.__init__(self)  # the bindings reject super().__init__()
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
