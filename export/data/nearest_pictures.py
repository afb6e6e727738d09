"""Searches for the nearest picture by thumbnails in all eight positions of a picture, with few arrays at a time.

A first look compares what no turn and no mirroring changes: cells of 2 x 2 pixels whose places such moves exchange, in
the order of their values. Sorted values never differ by more than unsorted ones and means never by more than pixels, so
no near pair is missed, and few pairs need a second look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_SIDE = 16
_BLOCK = 1024  # pictures of either side that are compared at once, so that memory does not grow with their number
_FLAT = 1e-3  # in levels: keeps a picture of one colour from a division by zero

Thumbnails = NDArray[np.uint8]  # (n, 16, 16, 3)
FloatArray = NDArray[np.float32]
Number = TypeVar("Number", bound=np.number[Any])
Form = Callable[[Thumbnails], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """For each picture the nearest other one, and the RMS differences of it and of the next; infinite beyond reach."""

    place: NDArray[np.int64]
    best: FloatArray
    runner_up: FloatArray

    def take(self, rows: NDArray[np.int64], places: NDArray[np.int64], squares: FloatArray) -> None:
        """Takes in mean squared differences (rows, places); infinite ones do not count."""
        at = np.arange(len(rows))
        nearest = squares.argmin(1)
        found = squares[at, nearest]
        squares[at, nearest] = np.inf
        best, is_nearer = self.best[rows], found < self.best[rows]
        behind = np.where(is_nearer, np.minimum(best, squares.min(1)), np.minimum(self.runner_up[rows], found))
        self.runner_up[rows] = behind
        self.place[rows] = np.where(is_nearer, places[nearest], self.place[rows])
        self.best[rows] = np.minimum(best, found)


def nearest_pictures(first: Thumbnails, second: Thumbnails, form: Form, reach: float) -> Nearest:
    """Finds for each of `first` the nearest of `second` in any position; `form` makes values of thumbnails.

    Where both are one array, each picture's nearest is another one.
    """
    result = Nearest(np.zeros(len(first), np.int64), *(np.full(len(first), np.inf, np.float32) for _ in range(2)))
    looks = [_sorted_cells(form(first[start : start + _BLOCK])) for start in range(0, len(first), _BLOCK)]
    for low in range(0, len(second), _BLOCK):
        others = form(second[low : low + _BLOCK])
        look = _sorted_cells(others)
        for number, own in enumerate(looks):
            is_within = _least_squares([own], look) <= reach**2
            if first is second and low == number * _BLOCK:
                np.fill_diagonal(is_within, val=False)
            rows, columns = np.flatnonzero(is_within.any(1)), np.flatnonzero(is_within.any(0))
            if rows.size:
                rows += number * _BLOCK
                squares = _least_squares(positions(form(first[rows])), others[columns])
                squares[squares > reach**2] = np.inf
                if first is second:
                    squares[rows[:, None] == low + columns] = np.inf
                result.take(rows, low + columns, squares)
    return Nearest(result.place, np.sqrt(result.best), np.sqrt(result.runner_up))


def levels(pictures: Thumbnails) -> FloatArray:
    return pictures.astype(np.float32)


def shares_of_contrast(pictures: Thumbnails) -> FloatArray:
    """Brings pictures (n, 16, 16, 3) to a mean of 0 in each channel and an RMS of 1."""
    centred = _centred(pictures)
    scales: FloatArray = np.maximum(_rms(centred), _FLAT, dtype=np.float32)
    result: FloatArray = centred / scales[:, None, None, None]
    return result


def contrasts(pictures: Thumbnails) -> FloatArray:
    """Returns the RMS distance of each picture from its own mean colour, in levels, (n,)."""
    starts = range(0, len(pictures), _BLOCK)
    parts = [_rms(_centred(pictures[start : start + _BLOCK])) for start in starts]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def positions(pictures: NDArray[Number]) -> Iterator[NDArray[Number]]:
    """Yields the pictures (n, side, side, 3) turned by quarters, as they are and mirrored."""
    for sided in (pictures, pictures[:, :, ::-1]):
        for quarters in range(4):
            yield np.rot90(sided, quarters, axes=(1, 2))


def _centred(pictures: Thumbnails) -> FloatArray:
    result: FloatArray = pictures - pictures.mean(1, np.float32).mean(1)[:, None, None]
    return result


def _rms(pictures: FloatArray) -> FloatArray:
    flat = pictures.reshape(len(pictures), -1)
    result: FloatArray = np.linalg.norm(flat, axis=1) / np.sqrt(np.float32(flat.shape[1]))
    return result


def _sorted_cells(pictures: FloatArray) -> FloatArray:
    """Returns means of 2 x 2 pixels, those of exchangeable places sorted, (n, 192)."""
    rows = pictures[:, ::2] + pictures[:, 1::2]
    cells = ((rows[:, :, ::2] + rows[:, :, 1::2]) / 4).reshape(len(pictures), -1, 3)
    return np.concatenate([np.sort(cells[:, places], axis=1) for places in _EXCHANGEABLE], axis=1)


def _exchangeable_places(side: int) -> list[NDArray[np.int64]]:
    """Returns places in a flat square that turning and mirroring exchange, group by group."""
    square = np.arange(side * side).reshape(1, side, side, 1)
    group = np.minimum.reduce([each.ravel() for each in positions(square)])
    return [np.flatnonzero(group == least) for least in np.unique(group)]


def _least_squares(forms: Iterable[FloatArray], others: FloatArray) -> FloatArray:
    """Returns the least mean squared difference of any form from every other, (n, m)."""
    flat = others.reshape(len(others), -1)
    ones = np.ones((len(flat), 1), np.float32)
    right = np.concatenate([flat, (flat**2).sum(1, keepdims=True), ones], axis=1).T
    least: FloatArray = np.full((0, 0), np.inf, np.float32)
    for form in forms:
        rows = form.reshape(len(form), -1)
        # One product gives |a|^2 - 2ab + |b|^2 without an array for each term.
        left = np.concatenate([-2 * rows, np.ones((len(rows), 1), np.float32), (rows**2).sum(1, keepdims=True)], axis=1)
        squares = left @ right
        least = np.minimum(least, squares, out=least) if least.size else squares
    result: FloatArray = np.maximum(least, 0, out=least)
    result /= flat.shape[1]
    return result


_EXCHANGEABLE = _exchangeable_places(THUMBNAIL_SIDE // 2)
