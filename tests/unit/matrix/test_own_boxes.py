"""Boxes of trained detectors. Promises held here: each fault of a published answer is seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.matrix.own_boxes import OwnDecoding, compared, decoded

SIZE = (64, 32)  # width, height
YOLOX = OwnDecoding(layout="yolox", iou=0.45, per_class=False, threshold=0.1)
CELL = 20  # row 2, column 4 of stride 8


def _rows() -> NDArray[np.float32]:
    """One sure box of class 1, 16 x 8 pixels around (36, 20), and one like it of class 0 that is less sure."""
    rows = np.zeros((42, 7), np.float32)
    rows[CELL] = [0.5, 0.5, np.log(2.0), 0.0, 0.9, 0.1, 0.8]
    rows[CELL + 1] = [-0.5, 0.5, np.log(2.0), 0.0, 0.9, 0.6, 0.1]
    return rows


def _published(**changes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {
        "boxes": np.float32([[[28, 16, 44, 24], [0, 0, 9, 9]]]),
        "scores": np.float32([[0.72, 0.05]]),
        "class_ids": np.int32([[1, 0]]),
        "counts": np.int32([2]),
    }
    return found | changes


def test_yolox_s_rows_become_pixels_and_the_less_sure_box_goes() -> None:
    boxes, scores, ids = decoded(_rows(), YOLOX, SIZE)

    np.testing.assert_allclose(boxes, [[28, 16, 44, 24]], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.72], rtol=1e-6)
    assert ids.tolist() == [1]
    assert compared(_published(), (boxes, scores, ids), YOLOX.threshold) == (1.0, pytest.approx(0.0, abs=1e-6))


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": np.float32([[[28, 16, 45, 24], [0, 0, 9, 9]]])},
        {"class_ids": np.int32([[0, 0]])},
        {"counts": np.int32([0])},
        {"scores": np.float32([[0.72, 0.5]])},  # a box too many
    ],
)
def test_another_box_is_seen(changes: dict[str, NDArray[Any]]) -> None:
    share, _ = compared(_published(**changes), decoded(_rows(), YOLOX, SIZE), YOLOX.threshold)

    assert share < 1.0


def test_another_score_is_seen() -> None:
    found = _published(scores=np.float32([[0.7, 0.05]]))

    assert compared(found, decoded(_rows(), YOLOX, SIZE), YOLOX.threshold)[1] == pytest.approx(0.02, abs=1e-4)
