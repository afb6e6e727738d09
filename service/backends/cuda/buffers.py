"""Plans the device memory of an opened variant: pure functions that count every byte before any is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saccade.models.contract.specs import TensorSpec
from saccade.service.errors import OutOfDeviceMemory

_ALIGNMENT_BYTES = 256  # cudaMalloc aligns to it, and every kernel can read a tensor that begins there
_MIB = 1024 * 1024
# The context of CUDA's libraries, lazily loaded kernels and graphs take memory that this plan cannot count.
RESERVE_BYTES = 64 * _MIB


@dataclass(frozen=True, slots=True)
class TensorBuffer:
    """The place of one tensor in the buffer of one batch."""

    spec: TensorSpec
    offset: int
    row_bytes: int  # bytes of one image

    def size_bytes(self, batch_size: int) -> int:
        return batch_size * self.row_bytes


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """The buffers of one batch in flight, and how many bytes all of them take."""

    max_batch_size: int
    batches_in_flight: int
    input: TensorBuffer
    outputs: tuple[TensorBuffer, ...]
    output_bytes: int  # all outputs of the largest batch with their gaps; one allocation on host and device each
    scratch_bytes: int  # TensorRT's working memory, once per execution context that may run at the same time
    contexts: int

    @property
    def input_bytes(self) -> int:
        return self.input.size_bytes(self.max_batch_size)

    @property
    def device_bytes(self) -> int:
        return self.batches_in_flight * (self.input_bytes + self.output_bytes) + self.contexts * self.scratch_bytes


def plan_buffers(
    images: TensorSpec,
    outputs: Sequence[TensorSpec],
    *,
    max_batch_size: int,
    batches_in_flight: int,
    scratch_bytes: int = 0,
    contexts: int = 1,
) -> BufferPlan:
    """Aligned places for the input and all outputs of the largest batch."""
    places: list[TensorBuffer] = []
    offset = 0
    for spec in outputs:
        places.append(TensorBuffer(spec, offset, _row_bytes(spec)))
        offset += -(-places[-1].size_bytes(max_batch_size) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    used = min(contexts, batches_in_flight)
    place = TensorBuffer(images, 0, _row_bytes(images))
    return BufferPlan(max_batch_size, batches_in_flight, place, tuple(places), offset, scratch_bytes, used)


def ensure_fits(what: str, needed_bytes: int, free_bytes: int) -> None:
    """Raises OutOfDeviceMemory, with the figures, when `needed_bytes` exceed `free_bytes`."""
    if needed_bytes + RESERVE_BYTES > free_bytes:
        raise OutOfDeviceMemory(
            f"{what} needs {_mib(needed_bytes)} of device memory and {_mib(RESERVE_BYTES)} to spare, "
            f"{_mib(free_bytes)} are free: unload a version, or lower max_batch_size or batches_in_flight"
        )


def _row_bytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _mib(size_bytes: int) -> str:
    return f"{math.ceil(size_bytes / _MIB)} MiB"
