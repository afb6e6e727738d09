"""Shared memory for pixels and answers: anonymous arenas of fixed slots, which the kernel frees with their processes.

An API process creates one arena per connection to a worker and sends the worker its descriptor. A page costs memory
only once it is written, so slots can be large. When a connection is lost, its arena is given up as a whole: no slot is
used again while a worker might still read it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.extras import ExtraOutput, asked_for
from saccade.models.contract.specs import TensorSpec

_KEPT_PER_SLOT = 4  # number of layouts per slot whose views are kept
_KEPT_LAYOUTS = 64
_ALIGNMENT_BYTES = 64  # one cache line, which is also a good alignment for vectorised kernels


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor lies inside a slot, in bytes from its start."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SlotLayout:
    """Where a model's input and outputs lie inside a slot. It is compared by identity, as a key for kept views."""

    input: TensorPlace
    outputs: tuple[TensorPlace, ...]
    size_bytes: int
    by_asked: Mapping[int, SlotLayout] = field(default_factory=dict)  # layouts with extra outputs, by what is asked

    def for_asked(self, mask: int) -> SlotLayout:
        """The layout of an answer with the extra outputs that a mask asks for, behind the same places."""
        return self.by_asked[mask] if mask else self


@lru_cache(
    _KEPT_LAYOUTS
)  # versions of a model mostly have one layout, so that the views of the last one serve the next
def layout_of(
    input_spec: TensorSpec, output_specs: tuple[TensorSpec, ...], extras: tuple[ExtraOutput, ...] = ()
) -> SlotLayout:
    """Lays out the input first, the outputs after it and the extra outputs last, each aligned."""
    offset = 0
    places: list[TensorPlace] = []
    for spec in (input_spec, *output_specs, *(extra.output for extra in extras)):
        dtype = np.dtype(spec.dtype)
        places.append(TensorPlace(offset, spec.shape, dtype))
        size = int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
        offset += -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    first = 1 + len(output_specs)
    outputs, extra_places = tuple(places[1:first]), dict(zip(extras, places[first:], strict=True))
    by_asked = {
        mask: SlotLayout(places[0], (*outputs, *(extra_places[extra] for extra in asked_for(extras, mask))), offset)
        for mask in _masks(extras)
    }
    return SlotLayout(places[0], outputs, offset, by_asked)


def _masks(extras: Sequence[ExtraOutput]) -> list[int]:
    """Everything that a request may ask for at once, except nothing."""
    masks = [0]
    for extra in extras:
        masks += [mask | extra.kind.bit for mask in masks]
    return masks[1:]


@dataclass(frozen=True, slots=True)
class SlotViews:
    """A layout's tensors in one slot; the other process sees what is written to them."""

    input: NDArray[Any]
    outputs: tuple[NDArray[Any], ...]


class SlotArena:
    """`slot_count` slots of `slot_bytes` each in one anonymous shared mapping."""

    def __init__(self, descriptor: int, slot_count: int, slot_bytes: int) -> None:
        self.slot_count = slot_count
        self.slot_bytes = slot_bytes
        self._descriptor = descriptor
        # Views may outlive this object; the mapping is freed with the last of them.
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
        """Returns a view of one tensor in one slot; the other process sees what is written to it."""
        start = slot * self.slot_bytes + place.offset
        return np.ndarray(place.shape, place.dtype, self._memory, start)

    def views(self, slot: int, layout: SlotLayout) -> SlotViews:
        """Returns views of a layout's tensors, and keeps them, because most slots serve the same model repeatedly."""
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
