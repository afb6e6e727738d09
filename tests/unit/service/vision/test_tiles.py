"""Tiles of a picture. Promises: every pixel counts once, and a tile's border within the margin never."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import tile_into
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import Unprocessable
from saccade.service.vision.tiles import Mosaic, ensure_one_tile, tile_grid, tiles_of


def spec(side: int, margin: int) -> PreprocessSpec:
    return PreprocessSpec(width=side, height=side, fit="tile", margin=margin)


@pytest.mark.parametrize("side", [16, 32, 40, 128, 256])
@pytest.mark.parametrize("source", [1, 15, 40, 41, 129, 300, 1001])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_shares_add_up_and_leave_the_margin_out(side: int, source: int, scale: int) -> None:
    margin = side // 4
    tiles = spec(side, margin)
    pixels = np.zeros((20, source, 3), np.uint8)
    grid = tile_grid(source, 20, tiles)
    whole = Mosaic(source, 20, grid, scale)
    for tile in tiles_of(pixels, grid):
        answer = np.ones((side * scale, side * scale), np.float32)
        left = -tile.place.left
        if left > 0:  # what lies beyond this border changed these answers
            answer[:, : margin * scale] = 1e6
        if left + side < source:
            answer[:, (side - margin) * scale :] = 1e6
        whole.add(answer, tile.place)

    joined = whole.joined()
    assert joined.shape == (20 * scale, source * scale)
    assert np.abs(joined - 1.0).max() <= 1e-5


@pytest.mark.parametrize(("side", "margin", "source"), [(16, 4, 41), (32, 1, 70), (40, 10, 129), (128, 6, 333)])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_answer_does_not_depend_on_which_tile_comes_first(side: int, margin: int, source: int, scale: int) -> None:
    rng = np.random.default_rng(0)
    pixels = np.zeros((source - 5, source, 3), np.uint8)
    grid = tile_grid(source, source - 5, spec(side, margin))
    tiles = list(tiles_of(pixels, grid))
    answers = rng.random((len(tiles), side * scale, side * scale, 3), np.float32)

    def joined(order: list[int]) -> NDArray[np.float32]:
        whole = Mosaic(source, source - 5, grid, scale)
        for index in order:
            whole.add(answers[index], tiles[index].place)
        return whole.joined()

    first = joined([*range(len(tiles))])
    assert all((joined(rng.permutation(len(tiles)).tolist()) == first).all() for _ in range(3))


def test_tiles_show_the_picture_and_a_small_one_is_mirrored() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    out = np.empty((32, 32, 3), np.uint8)
    for tile in tiles_of(pixels, tile_grid(70, 50, spec(32, 4))):
        tile_into(pixels, spec(32, 4), tile.place, out)
        top, left = -tile.place.top, -tile.place.left
        assert (out == pixels[top : top + 32, left : left + 32]).all()

    (tile,) = tiles_of(pixels[:20, :30], tile_grid(30, 20, spec(32, 4)))
    tile_into(pixels[:20, :30], spec(32, 4), tile.place, out)
    assert (out[:20, :30] == pixels[:20, :30]).all()
    assert (out[20] == np.concatenate([pixels[19, :30], pixels[19, [29, 28]]])).all()


def test_a_tile_has_the_networks_order_of_colours() -> None:
    pixels = np.full((4, 4, 3), (10, 20, 30), np.uint8)
    bgr = PreprocessSpec(width=4, height=4, fit="tile", margin=0, channel_order="bgr")
    out = np.empty((4, 4, 3), np.uint8)
    (tile,) = tiles_of(pixels, tile_grid(4, 4, bgr))

    tile_into(pixels, bgr, tile.place, out)

    assert out[0, 0].tolist() == [30, 20, 10]


def test_a_picture_is_one_tile_or_refused_where_nobody_cuts() -> None:
    ensure_one_tile(np.zeros((32, 32, 3), np.uint8), spec(32, 4))
    with pytest.raises(Unprocessable, match="takes tiles of 32x32: POST it to"):
        ensure_one_tile(np.zeros((32, 33, 3), np.uint8), spec(32, 4))
