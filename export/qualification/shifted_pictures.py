"""Finds answers that lie beside their targets, as of a network that pads on one side or resizes with another grid.

Such an answer still resembles its target more than a noisy input does, so similarity alone accepts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit
from saccade.export.qualification.produced_pictures import seen_pair
from saccade.models.contract.specs import TaskSpec

_MOST_TRIED = 64  # pictures
_MOST_SIDE = 512  # pixels; the middle of larger pictures tells as much, and borders have errors of their own
_LEFT_ERROR = 0.9  # share of the squared error; right answers have more of it once they are moved
_CHANCE = 3.3  # standard deviations of a coin's tosses, for eight directions: see FEWEST_FOR_A_SHIFT
_VERTICAL = {-1: "up", 0: "", 1: "down"}
_ACROSS = {-1: "left", 0: "", 1: "right"}
_MOVES = [(down, across) for down in _VERTICAL for across in _ACROSS if down or across]


def shifted_answers(answers: NDArray[Any], split: ImageSplit, task: TaskSpec) -> Iterator[str]:
    """Yields a sentence where answers fit their targets better once they are moved by a pixel, beyond chance."""
    if task.picture == "depth":
        return  # its edges are blurred, and its error is of whole surfaces
    step = -(-len(answers) // _MOST_TRIED) or 1
    pairs = [seen_pair(answers[row], split, row, task) for row in range(0, len(answers), step)]
    errors = np.array([_errors(*pair) for pair in pairs if pair is not None])  # (pictures, moves); as it is first
    if not len(errors):
        return
    as_is, moved = errors[:, 0], errors[:, 1:]
    best = int(moved.sum(0).argmin())
    better = int((moved[:, best] < as_is).sum())
    is_chance = better < len(errors) / 2 + _CHANCE * math.sqrt(len(errors)) / 2
    if is_chance or moved[:, best].sum() > _LEFT_ERROR * as_is.sum():
        return
    down, across = _MOVES[best]
    where = " and ".join(word for word in (_VERTICAL[down], _ACROSS[across]) if word)
    yield (
        f"the answers lie beside their targets: moved {where} by a pixel, {better} of {len(errors)} fit better, with a "
        f"mean squared error of {moved[:, best].mean():.5f} against {as_is.mean():.5f} as they are. Look at the "
        "network's padding and how it resizes, or at how the pairs of pictures were made"
    )


def _errors(found: NDArray[Any], target: NDArray[Any]) -> list[float]:
    """The mean squared error of the middle as it is, and moved in each direction."""
    height, width = target.shape[:2]
    top, left = (max(1, side // 8, (side - _MOST_SIDE) // 2) for side in (height, width))
    rows, columns = height - 2 * top, width - 2 * left
    wanted = target[top : top + rows, left : left + columns]

    def error(down: int, across: int) -> float:
        moved = found[top - down : top - down + rows, left - across : left - across + columns]
        return float(np.square(moved.clip(0.0, 1.0) - wanted).mean())

    return [error(0, 0), *(error(*move) for move in _MOVES)]
