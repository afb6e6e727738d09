"""Cuts a picture into tiles that overlap, and joins the answers to them; pure, and without the event loop.

Neighbouring tiles share twice the margin and a few pixels more. Within the margin of its border a tile's answer is
changed by what it does not see, so no answer is taken from there; in the pixels between, one tile fades into the next.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import Geometry, UInt8Array
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import PictureTooLarge, Unprocessable

FloatArray = NDArray[np.float32]
_MOST_FADING = 8  # pixels
_STRIDE = 32  # networks that halve their picture five times answer alike where tiles begin at its multiples


class Tile(msgspec.Struct, frozen=True, eq=False):
    """A part of a decoded picture, as one image of the batch path."""

    pixels: UInt8Array  # the whole picture (height, width, 3) RGB
    place: Geometry


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Where the tiles of one picture begin, in its pixels, ascending."""

    lefts: tuple[int, ...]
    tops: tuple[int, ...]
    width: int  # of a tile
    height: int

    @property
    def count(self) -> int:
        return len(self.lefts) * len(self.tops)


def tile_grid(source_width: int, source_height: int, spec: PreprocessSpec) -> TileGrid:
    """Pure: `spec` is of fit: tile and has its margin."""
    margin = spec.margin or 0
    return TileGrid(
        _starts(source_width, spec.width, margin), _starts(source_height, spec.height, margin), spec.width, spec.height
    )


def tiles_of(pixels: UInt8Array, grid: TileGrid) -> Iterator[Tile]:
    height, width = pixels.shape[:2]
    for top, left in itertools.product(grid.tops, grid.lefts):
        yield Tile(pixels, Geometry(width, height, -left, -top, width, height))


def ensure_one_tile(pixels: UInt8Array, spec: PreprocessSpec) -> None:
    """Raises Unprocessable where a network of tiles would see a part of the picture only."""
    if spec.fit == "tile" and pixels.shape[:2] != (spec.height, spec.width):
        raise Unprocessable(
            f"the picture is {pixels.shape[1]}x{pixels.shape[0]}, and this network takes tiles of {spec.width}x"
            f"{spec.height}: POST it to /v1/models/.../predict of a server, which cuts it into tiles"
        )


def ensure_few_tiles(width: int, height: int, grid: TileGrid, scale: int, most_tiles: int, most_pixels: int) -> None:
    """Raises PictureTooLarge for a picture of too many tiles, or whose answer has too many pixels."""
    if grid.count > most_tiles:
        raise PictureTooLarge(
            f"the picture is {width}x{height}, which is {grid.count} tiles of {grid.width}x{grid.height}, and at "
            f"most {most_tiles} are allowed: send a smaller picture, or parts of it, or raise SACCADE_MAX_TILES"
        )
    answered = width * height * scale**2
    if answered > most_pixels:
        raise PictureTooLarge(
            f"the answer to a picture of {width}x{height} would have {answered:,} pixels, and at most "
            f"{most_pixels:,} are allowed: send a smaller picture, or parts of it, or raise SACCADE_MAX_PIXELS"
        )


class Mosaic:
    """The answer to a whole picture; tiles are added in any order, by one thread at a time, and the sum is the same.

    Where four tiles meet, a sum of floats would depend on the order. So rows in which a tile fades into the one above
    it are summed apart until all tiles are there, and each sum has two terms.
    """

    def __init__(self, source_width: int, source_height: int, grid: TileGrid, scale: int) -> None:
        self._size = (source_height * scale, source_width * scale)
        self._scale = scale
        self._shares = tuple(
            dict(zip(starts, _shares(starts, tile, side, scale), strict=True))
            for starts, tile, side in ((grid.tops, grid.height, source_height), (grid.lefts, grid.width, source_width))
        )
        self._fading_rows = _fading_rows(grid, scale)
        self._faded: dict[int, FloatArray] = {}  # by the top of the tiles
        self._pixels: FloatArray | None = None

    def add(self, answer: FloatArray, place: Geometry) -> None:
        """answer: (tile height x scale, tile width x scale) or the same with three channels."""
        if self._pixels is None:
            self._pixels = np.zeros((*self._size, *answer.shape[2:]), np.float32)
        top, left = -place.top * self._scale, -place.left * self._scale
        part = self._pixels[top : top + answer.shape[0], left : left + answer.shape[1]]  # a small picture ends sooner
        seen = answer[: part.shape[0], : part.shape[1]]
        rows, columns = self._shares[0][-place.top], self._shares[1][-place.left]
        weights = rows[: part.shape[0], np.newaxis] * columns[np.newaxis, : part.shape[1]]
        added = seen * (weights if seen.ndim == 2 else weights[..., np.newaxis])
        if (rows_apart := self._fading_rows.get(-place.top)) is not None:
            shape = (rows_apart.stop - rows_apart.start, *self._pixels.shape[1:])
            apart = self._faded.setdefault(-place.top, np.zeros(shape, np.float32))
            inside = slice(rows_apart.start - top, rows_apart.stop - top)
            apart[:, left : left + added.shape[1]] += added[inside]
            added[inside] = 0.0
        part += added

    def joined(self) -> FloatArray:
        """To be called once, when all tiles were added."""
        assert self._pixels is not None  # every picture has a tile
        for top, apart in self._faded.items():
            self._pixels[self._fading_rows[top]] += apart
        return self._pixels


def _starts(side: int, tile: int, margin: int) -> tuple[int, ...]:
    """The last tile ends where the picture does."""
    if side <= tile:
        return (0,)
    fading = _fading(tile)
    step = max(1, tile - 2 * margin - fading)
    stride = min(_STRIDE, 2 ** (step.bit_length() - 1))  # of small tiles, a smaller power of two
    if step - step % stride < 2 * fading:
        stride = max(1, stride // 2)
    step -= step % stride
    return (*range(0, side - tile, step), side - tile)


def _fading(tile: int) -> int:
    """How many pixels two neighbours share in the answer. Three tiles never meet: steps are twice as long at least."""
    return max(1, min(_MOST_FADING, tile // 8))


def _fading_rows(grid: TileGrid, scale: int) -> dict[int, slice]:
    """By the top of a tile, the rows of the answer in which it fades into the one above it."""
    half = _fading(grid.height) * scale / 2
    middles = {second: (first + grid.height + second) / 2 * scale for first, second in itertools.pairwise(grid.tops)}
    return {top: slice(math.floor(middle - half), math.ceil(middle + half)) for top, middle in middles.items()}


def _shares(starts: tuple[int, ...], tile: int, side: int, scale: int) -> list[FloatArray]:
    """What each tile's rows (or columns) count in the sum, (tile x scale,) per tile; they add up to 1 everywhere."""
    positions = np.arange(max(side, tile) * scale) + 0.5
    fading = _fading(tile) * scale
    passed = [np.ones(len(positions))]  # how much of a position belongs to the tiles from this one on
    for first, second in itertools.pairwise(starts):
        middle = (first + tile + second) / 2 * scale
        passed.append(np.clip((positions - middle) / fading + 0.5, 0.0, 1.0))
    passed.append(np.zeros(len(positions)))
    return [
        (passed[index] - passed[index + 1])[start * scale : (start + tile) * scale].astype(np.float32)
        for index, start in enumerate(starts)
    ]
