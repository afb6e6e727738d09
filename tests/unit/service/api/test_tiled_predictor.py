"""Limits of pictures in tiles, each named with what was sent and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from saccade.service.api import tiled_predictor
from saccade.service.api.tiled_predictor import TiledPredictor, TileLimits
from saccade.service.errors import PictureTooLarge
from saccade.service.vision.image_decoder import ImageLimits
from saccade.service.vision.tiles import tile_grid

SPEC = PreprocessSpec(width=64, height=64, fit="tile", margin=8)


def refusal(width: int, height: int, scale: int) -> str:
    nobody: Any = None
    limits = TileLimits(ImageLimits(max_pixels=10_000_000), max_tiles=100_000, threads=1)
    task = TaskSpec(task=Task.IMAGE, picture="rgb", scale=scale)
    with pytest.raises(PictureTooLarge) as refused:
        TiledPredictor(nobody, nobody, nobody, limits)._ensure_fits(width, height, tile_grid(width, height, SPEC), task)
    return str(refused.value)


def test_an_answer_of_too_many_pixels_is_named() -> None:
    assert "a picture of 2000x2000 would have 16,000,000 pixels, and at most 10,000,000" in refusal(2000, 2000, 2)


def test_tiles_larger_than_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_predictor, "decode_room_bytes", lambda threads: 1_000_000)

    assert "a picture of 500x500 with its answer takes 4,500,000 bytes here, and 1,000,000 are" in refusal(500, 500, 1)
