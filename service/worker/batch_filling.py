"""Fills the rows of a batch from slots. Promises: row i is request i's; an image that cannot be decoded is named.

Rows beyond the requests are padding. They keep what lies in the buffer, which costs nothing: any bytes are a valid
uint8 image, rows do not influence each other, and what the network makes of them is dropped, so nobody sees it.
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
    """What decodes on the device; the real one is `JpegRows` of service/worker/gpu_jpeg/rows.py."""

    def decode(self, jpegs: Sequence[bytes], rows: Sequence[UInt8Array]) -> list[bool]:
        """Whether each could be decoded into its row. Raises DeviceLost."""


class SlotContent(Protocol):
    """What is needed to know of a request."""

    @property
    def arena(self) -> SlotArena: ...

    @property
    def slot(self) -> int: ...

    @property
    def encoded_bytes(self) -> int:
        """Of a JPEG that the slot begins with; 0: it has pixels."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How it went."""

    undecoded: frozenset[int]  # rows that hold no image; what the backend makes of them belongs to nobody
    decode_s: float


ALL_PIXELS = Filling(frozenset(), 0.0)


def fill_rows(
    batch: Sequence[SlotContent],
    rows: UInt8Array,
    place: TensorPlace,
    jpegs: JpegRowDecoder | None,
    clears_padding: bool = False,
) -> Filling:
    """Writes the first rows of `rows` (n, height, width, 3), one per request. Raises DeviceLost.

    `clears_padding` blackens the others, for when an image that lies there may have made a run fail.
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
        rows[index] = 0  # not the image that was there before
    return Filling(undecoded, time.monotonic() - start_s)


def _jpeg_of(content: SlotContent) -> bytes:
    size = min(content.encoded_bytes, content.arena.slot_bytes)
    return content.arena.tensor(content.slot, TensorPlace(0, (size,), np.dtype(np.uint8))).tobytes()
