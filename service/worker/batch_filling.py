"""Fills the rows of a batch from slots: row i holds the image of request i.

Rows beyond the requests are padding. They keep their former bytes, which costs nothing: any bytes are a valid uint8
image, rows do not influence each other, and the network's outputs for padding are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.service.ipc.tensor_slots import SlotArena, TensorPlace

UInt8Array = NDArray[np.uint8]


class JpegRowDecoder(Protocol):
    """Decodes JPEGs on the device; the implementation is `JpegRows` in service/worker/gpu_jpeg/rows.py."""

    def decode(self, jpegs: Sequence[bytes], rows: Sequence[UInt8Array]) -> list[bool]:
        """Returns, for each JPEG, whether it was decoded into its row. Raises DeviceLost."""


class SlotContent(Protocol):
    """The properties of a request that `fill_rows` reads."""

    @property
    def arena(self) -> SlotArena: ...

    @property
    def slot(self) -> int: ...

    @property
    def encoded_bytes(self) -> int:
        """Length of the JPEG at the start of the slot; 0 means that the slot holds pixels."""


@dataclass(frozen=True, slots=True)
class Filling:
    """The result of filling the rows of a batch."""

    undecoded: frozenset[int]  # rows whose image could not be decoded; the outputs for them are dropped
    decode_s: float


ALL_PIXELS = Filling(frozenset(), 0.0)


def fill_rows(
    batch: Sequence[SlotContent],
    rows: UInt8Array,
    place: TensorPlace,
    jpegs: JpegRowDecoder | None,
    clears_padding: bool = False,
) -> Filling:
    """Writes one row of `rows` (n, height, width, 3) per request. Raises DeviceLost.

    With `clears_padding` the other rows become black, in case an image that is still there made a run fail.
    """
    if clears_padding:
        rows[len(batch) :] = 0
    encoded = [index for index, content in enumerate(batch) if content.encoded_bytes]
    for row, content in zip(rows[: len(batch)], batch, strict=True):
        if not content.encoded_bytes:
            row[...] = content.arena.tensor(content.slot, place)
    if not encoded:
        return ALL_PIXELS
    start_s = time.monotonic()
    data = [_jpeg_of(batch[index]) for index in encoded]
    done = [False] * len(encoded) if jpegs is None else jpegs.decode(data, [rows[index] for index in encoded])
    undecoded = frozenset(index for index, is_done in zip(encoded, done, strict=True) if not is_done)
    for index in undecoded:
        rows[index] = 0  # so that the row does not keep another request's image
    return Filling(undecoded, time.monotonic() - start_s)


def _jpeg_of(content: SlotContent) -> bytes:
    size = min(content.encoded_bytes, content.arena.slot_bytes)
    return content.arena.tensor(content.slot, TensorPlace(0, (size,), np.dtype(np.uint8))).tobytes()
