"""Masks as Label Studio's brush stores them: packed run lengths of RGBA bytes, the format of thi.ng/rle-pack."""

from __future__ import annotations

import numpy as np

from saccade.models.contract.run_lengths import BoolArray

_CHANNELS = 4
_INSIDE = 255
_WORD_BITS = 8
_SIZES = (3, 4, 8, 16)  # bits of a run's length; two bits say which of these follow


def brush_runs(mask: BoolArray) -> list[int]:
    """Bytes of a mask (height, width)."""
    flat = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]))
    bits = [f"{_CHANNELS * flat.size:032b}", f"{_WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, length in zip(starts[:-1].tolist(), (_CHANNELS * np.diff(starts)).tolist(), strict=True):
        value = f"{_INSIDE if flat[start] else 0:08b}"
        left = length
        while left:
            run = min(left, 1 << _SIZES[-1])
            kind = next(kind for kind, size in enumerate(_SIZES) if run <= 1 << size)
            bits.append(f"1{kind:02b}{run - 1:0{_SIZES[kind]}b}{value}")
            left -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]
