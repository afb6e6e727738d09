"""Rows of a batch: each request's own image, decoded where the slot has a JPEG, and bad ones named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.ipc.tensor_slots import SlotArena, TensorPlace
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from saccade.service.worker.batch_filling import ALL_PIXELS, fill_rows
from saccade.service.worker.gpu_jpeg.cpu_stand_in import CpuStandIn
from saccade.service.worker.gpu_jpeg.rows import JpegRows
from tests.support.images import scene_jpeg

SPEC = PreprocessSpec(width=12, height=10, fit="stretch")
PLACE = TensorPlace(0, (10, 12, 3), np.dtype(np.uint8))
LIMITS = ImageLimits()
JPEGS = JpegRows(CpuStandIn(LIMITS), SPEC, LIMITS)
BROKEN = scene_jpeg()[:300] + b"\xff\xd9"


@dataclass(frozen=True)
class Content:
    arena: SlotArena
    slot: int
    encoded_bytes: int = 0


@pytest.fixture
def arena() -> Iterator[SlotArena]:
    arena = SlotArena.create(4, 8192)
    yield arena
    arena.close()


def pixels(arena: SlotArena, slot: int, value: int) -> Content:
    arena.tensor(slot, PLACE)[...] = value
    return Content(arena, slot)


def jpeg(arena: SlotArena, slot: int, data: bytes) -> Content:
    arena.tensor(slot, TensorPlace(0, (len(data),), np.dtype(np.uint8)))[:] = np.frombuffer(data, np.uint8)
    return Content(arena, slot, len(data))


def garbage(count: int) -> NDArray[np.uint8]:
    return np.full((count, 10, 12, 3), 200, np.uint8)


def on_cpu(data: bytes) -> NDArray[np.uint8]:
    return preprocess(decode_image(data, LIMITS), SPEC)


def test_pixels_are_copied_in_order(arena: SlotArena) -> None:
    rows = garbage(3)

    filling = fill_rows([pixels(arena, slot, slot + 5) for slot in (2, 0, 1)], rows, PLACE, None)

    assert filling == ALL_PIXELS
    assert rows[:, 0, 0, 0].tolist() == [7, 5, 6]


def test_rows_beyond_the_requests_stay_as_they_are_or_are_cleared(arena: SlotArena) -> None:
    kept, cleared = garbage(3), garbage(3)
    before = kept[1:].copy()

    fill_rows([pixels(arena, 0, 5)], kept, PLACE, None)
    fill_rows([pixels(arena, 0, 5)], cleared, PLACE, None, clears_padding=True)

    assert kept[0].max() == cleared[0].max() == 5
    assert np.array_equal(kept[1:], before)
    assert before.any()
    assert not cleared[1:].any()


def test_jpegs_and_pixels_share_a_batch(arena: SlotArena) -> None:
    first, second = scene_jpeg(seed=1), scene_jpeg(seed=2)
    rows = garbage(3)

    filling = fill_rows([jpeg(arena, 0, first), pixels(arena, 1, 9), jpeg(arena, 2, second)], rows, PLACE, JPEGS)

    assert not filling.undecoded
    assert filling.decode_s > 0
    assert np.array_equal(rows[0], on_cpu(first))
    assert (rows[1] == 9).all()
    assert np.array_equal(rows[2], on_cpu(second))


@pytest.mark.parametrize("bad", [BROKEN, b"\xff\xd8\xff\xe0garbage\xff\xd9", b"no jpeg"])
def test_bad_image_is_named_and_its_neighbours_are_untouched(arena: SlotArena, bad: bytes) -> None:
    good = scene_jpeg(seed=3)
    rows = garbage(3)

    filling = fill_rows([jpeg(arena, 0, good), jpeg(arena, 1, bad), pixels(arena, 2, 9)], rows, PLACE, JPEGS)

    assert filling.undecoded == {1}
    assert np.array_equal(rows[0], on_cpu(good))
    assert not rows[1].any()
    assert (rows[2] == 9).all()


def test_without_a_decoder_jpegs_go_back(arena: SlotArena) -> None:
    filling = fill_rows([jpeg(arena, 0, scene_jpeg())], garbage(1), PLACE, None)

    assert filling.undecoded == {0}


def test_size_beyond_the_slot_reads_no_other_slot(arena: SlotArena) -> None:
    seen: list[bytes] = []

    class Recorder:
        def decode(self, jpegs: Sequence[bytes], rows: Sequence[NDArray[np.uint8]]) -> list[bool]:
            seen.extend(jpegs)
            return [False] * len(jpegs)

    fill_rows([Content(arena, 3, 10**9)], garbage(1), PLACE, Recorder())

    assert [len(data) for data in seen] == [8192]
