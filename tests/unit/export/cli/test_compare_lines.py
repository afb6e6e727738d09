"""Lines of `saccade-export compare`. Promises: what the recipe's own limit leaves out is not blamed on the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from saccade.export.cli.compare import lines_of
from saccade.export.qualification.picture_answers import (
    PictureBoxes,
    PictureClass,
    PictureDifference,
    agreement_share,
    difference,
)


def row_of_boxes(count: int) -> PictureBoxes:
    left = np.arange(count, dtype=np.float64) * 10
    boxes = np.stack([left, left * 0, left + 8, left * 0 + 8], 1)
    return PictureBoxes(boxes, np.linspace(0.9, 0.5, count), np.zeros(count, np.int64))


def first_of(boxes: PictureBoxes, count: int) -> PictureBoxes:
    return PictureBoxes(boxes.boxes[:count], boxes.scores[:count], boxes.class_ids[:count])


def told(found: list[PictureDifference], units: str, most: int | None) -> list[str]:
    return lines_of(found, units, agreement_share(found), most)


def test_boxes_behind_the_limit_of_a_picture_are_named() -> None:
    many, few = row_of_boxes(20), row_of_boxes(3)
    found = [
        difference("many.jpg", first_of(many, 12), many, 0.25),
        difference("few.jpg", first_of(few, 2), few, 0.25),
    ]

    first, limit, *_ = told(found, "boxes", 12)

    assert first == "2 pictures: 14 of their 23 boxes are ours too (60.87%), 0 surplus"
    assert "8 of the 9 that we lack are more than 12 boxes in one picture, in 1 of the pictures" in limit
    assert "`task: {max_detections: 12}`" in limit


def test_a_limit_that_is_not_reached_is_not_named() -> None:
    many = row_of_boxes(20)

    lines = told([difference("a.jpg", first_of(many, 11), many, 0.25)], "boxes", 12)

    assert not [line for line in lines if "max_detections" in line]


def test_classes_are_equal_or_not() -> None:
    found = [difference(f"{name}.jpg", PictureClass(0, 0.9), PictureClass(name % 2, 0.9), 0.5) for name in range(4)]

    first, *worst = told(found, "pictures", None)

    assert first == "top-1 equal on 2 of 4 pictures (50.00%)"
    assert worst == [f"  {name}.jpg: another class, scores differ by 0.0000" for name in (1, 3)]


def test_a_file_that_holds_no_answers_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('[{"bbox": [0, 0, 1, 1], "image_id": 1, "category_id": 1}]')
    arguments = ["compare", "no.yaml", "--answers", str(tmp_path / "old.json")]
    code = f"""
import sys
from saccade.export.cli.program import app
try:
    app({arguments}, standalone_mode=False)
except Exception as error:
    print(error, "torch" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert "has boxes without `score`" in done.stdout
    assert done.stdout.strip().endswith("False")
