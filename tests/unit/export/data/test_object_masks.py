"""A mask per object from COCO and YOLO. Promises: polygons and run lengths give the pixels that they enclose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from saccade.export.data.folder_data import folder_samples
from saccade.export.data.labelled_images import DetectSample
from saccade.export.recipe import FolderData
from saccade.models.contract.specs import Task
from tests.support.data_folders import LABELS, checked, coco_folder, encoded, picture, save

HEIGHT, WIDTH = 36, 48
SQUARE = np.zeros((HEIGHT, WIDTH), np.uint8)
SQUARE[8:28, 20:35] = 1
SQUARE[12:16, 24:28] = 0


def square_runs(is_text: bool) -> dict[str, Any]:
    packed = coco_mask.encode(np.asfortranarray(SQUARE))
    if is_text:
        return {"size": packed["size"], "counts": packed["counts"].decode()}
    flat = np.concatenate([[0], SQUARE.T.ravel(), [0]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(np.concatenate([[0], edges, [SQUARE.size]])).tolist()}


def masked_coco(root: Path, change: Callable[[dict[str, Any]], object] = lambda row: None) -> None:
    """Per picture a triangle as polygon, and a square with a hole as run lengths; `change` alters annotation 0."""
    document = coco_folder(root)
    for row in document["annotations"]:
        is_first = row["id"] % 2 == 0
        row["segmentation"] = [[4, 5, 14, 5, 4, 17]] if is_first else square_runs(row["id"] % 4 == 1)
        row["iscrowd"] = int(row["id"] == 3)
    change(document["annotations"][0])
    (root / "annotations.json").write_text(json.dumps(document))


def scenes(root: Path) -> list[DetectSample]:
    samples, _ = folder_samples(Task.INSTANCES, LABELS, FolderData(path=str(root)), root, "test")
    return [sample for sample in samples if isinstance(sample, DetectSample)]


def pixels_of(sample: DetectSample) -> list[NDArray[np.bool_]]:
    assert sample.masks is not None
    return [mask.pixels() for mask in sample.masks]


def test_polygons_and_both_kinds_of_run_lengths_are_read(tmp_path: Path) -> None:
    masked_coco(tmp_path)

    report = checked(tmp_path, Task.INSTANCES)
    samples = scenes(tmp_path)

    assert report.complaints == ()
    assert sum(split.crowds for split in report.splits) == 1
    assert samples
    for sample in samples:
        triangle, square = pixels_of(sample)
        assert np.array_equal(square, SQUARE)
        assert triangle[6:15, 4].all()
        assert not triangle[:, 14:].any()
        assert triangle.sum() == pytest.approx(60, abs=8)


def test_detectors_do_not_look_at_masks(tmp_path: Path) -> None:
    masked_coco(tmp_path, lambda row: row.update(segmentation="nonsense"))

    assert checked(tmp_path, Task.DETECT).complaints == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda row: row.pop("segmentation"), "annotation 0 in 0.png (no usable segmentation)"),
        (lambda row: row.update(segmentation=[[1, 2, 3, 4]]), "annotation 0 in 0.png (no usable segmentation)"),
        (lambda row: row.update(segmentation=[]), "annotation 0 in 0.png (no usable segmentation)"),
        (lambda row: row.update(segmentation={"size": [36, 48], "counts": [5]}), "(no usable segmentation)"),
        (lambda row: row.update(segmentation={"size": [36, 48], "counts": "ab"}), "(no usable segmentation)"),
        (lambda row: row.update(segmentation={"size": [2, 3], "counts": [2, 4]}), "run lengths is 3x2 and its picture"),
    ],
)
def test_masks_that_cannot_be_used_are_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    masked_coco(tmp_path, change)

    (complaint,) = checked(tmp_path, Task.INSTANCES).complaints

    assert text in complaint


def yolo_folder(root: Path, line: str) -> Path:
    for number in range(12):
        split = ("train", "val", "test")[number % 3]
        save(root / "images" / split / f"{number}.png", encoded(picture(number)))
        save(root / "labels" / split / f"{number}.txt", f"1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75\n{line}\n".encode())
    save(root / "data.yaml", b"train: images/train\nval: images/val\ntest: images/test\nnames: [red, green, blue]\n")
    return root


def test_yolo_s_polygons_are_masks_in_the_picture_s_size(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path, "2 0.5 0.5 1.0 0.5 1.0 1.0")

    sample = scenes(root)[0]

    assert sample.class_ids.tolist() == [1, 2]
    square, triangle = pixels_of(sample)
    assert np.argwhere(square).min(0).tolist() == [9, 12]
    assert square.sum() == pytest.approx(18 * 24, rel=0.1)
    assert triangle.sum() == pytest.approx(18 * 24 / 2, rel=0.15)
    np.testing.assert_allclose(sample.boxes, [[12, 9, 36, 27], [24, 18, 48, 36]])


def test_a_line_with_a_box_alone_is_named(tmp_path: Path) -> None:
    root = yolo_folder(tmp_path, "2 0.5 0.5 0.2 0.2")

    (complaint,) = checked(root, Task.INSTANCES).complaints

    assert "line 2: it has a box and no polygon" in complaint
    assert checked(root, Task.DETECT).complaints == ()
