"""Shared memory for pixels and answers. Promises: one owner, fixed slots, no names on disk, freed by the kernel.

An API process creates one arena per connection to a worker and sends it the descriptor. Pages cost memory only
once touched, so the stride can be generous. A lost connection retires the arena as a whole: no slot is ever
reused while some worker might still read it.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import TensorSpec

_KEPT_PER_SLOT = 4  # layouts whose views are kept
_ALIGNMENT_BYTES = 64  # one cache line; also what vectorised kernels like


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """A tensor's place inside a slot."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SlotLayout:
    """Where a model's input and outputs lie inside one slot. A key for views of it: equal to itself alone."""

    input: TensorPlace
    outputs: tuple[TensorPlace, ...]
    size_bytes: int


def layout_of(input_spec: TensorSpec, output_specs: tuple[TensorSpec, ...]) -> SlotLayout:
    """Input first, outputs behind it, each aligned."""
    offset = 0
    places: list[TensorPlace] = []
    for spec in (input_spec, *output_specs):
        dtype = np.dtype(spec.dtype)
        places.append(TensorPlace(offset, spec.shape, dtype))
        size = int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
        offset += -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return SlotLayout(places[0], tuple(places[1:]), offset)


@dataclass(frozen=True, slots=True)
class SlotViews:
    """A layout's tensors in one slot; writing to them writes to the other process."""

    input: NDArray[Any]
    outputs: tuple[NDArray[Any], ...]


class SlotArena:
    """`slot_count` slots of `slot_bytes` each in one anonymous shared mapping."""

    def __init__(self, descriptor: int, slot_count: int, slot_bytes: int) -> None:
        self.slot_count = slot_count
        self.slot_bytes = slot_bytes
        self._descriptor = descriptor
        # Views into the mapping may outlive this object; the mapping goes when the last of them goes.
        self._memory = mmap.mmap(descriptor, slot_count * slot_bytes)
        self._views: dict[tuple[int, SlotLayout], SlotViews] = {}

    @classmethod
    def create(cls, slot_count: int, slot_bytes: int) -> SlotArena:
        descriptor = os.memfd_create("saccade-slots", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, slot_count * slot_bytes)
        return cls(descriptor, slot_count, slot_bytes)

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def tensor(self, slot: int, place: TensorPlace) -> NDArray[Any]:
        """A view of one tensor in one slot; writing to it writes to the other process."""
        start = slot * self.slot_bytes + place.offset
        return np.ndarray(place.shape, place.dtype, self._memory, start)

    def views(self, slot: int, layout: SlotLayout) -> SlotViews:
        """Views of a layout's tensors, kept: a slot is used again and again, mostly by the same model."""
        views = self._views.get((slot, layout))
        if views is None:
            if len(self._views) >= _KEPT_PER_SLOT * self.slot_count:
                self._views.clear()
            outputs = tuple(self.tensor(slot, place) for place in layout.outputs)
            views = self._views[slot, layout] = SlotViews(self.tensor(slot, layout.input), outputs)
        return views

    def close(self) -> None:
        """Closes the descriptor; existing views stay valid."""
        os.close(self._descriptor)
