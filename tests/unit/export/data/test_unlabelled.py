"""Data without labels. Promises: `gate: {mode: parity}` takes any pictures, and says that they have no labels."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from saccade.export.data.data_report import DataReport
from saccade.export.data.data_table import print_data
from saccade.export.data.datasets import labelled_images
from saccade.export.data.labelled_images import IGNORED, ClassSample, DetectSample, ImageSample, SegmentSample
from saccade.export.publish.samples import sample_truth
from saccade.models.contract.specs import Task
from tests.support.data_folders import (
    LABELS,
    checked,
    class_folders,
    coco_folder,
    encoded,
    images_by_split,
    mask_folders,
    picture,
    recipe_of,
    save,
)

PARITY = {"mode": "parity"}
NOTE = "and figures that need them mean nothing"


def flat(root: Path, images: int = 24) -> None:
    for number in range(images):
        save(root / f"{number}.png", encoded(picture(number)))


def in_unknown_folders(root: Path) -> None:
    class_folders(root, ["camera 1", "camera 2"], each=12)


def beside_images(root: Path) -> None:
    flat(root / "images")


def is_unlabelled(report: DataReport) -> bool:
    return any(NOTE in note for note in report.notes)


@pytest.mark.parametrize("layout", [flat, in_unknown_folders, beside_images])
@pytest.mark.parametrize("task", list(Task))
def test_pictures_without_labels_are_taken_for_parity_only(
    tmp_path: Path, task: Task, layout: Callable[[Path], None]
) -> None:
    layout(tmp_path)

    report = checked(tmp_path, task, gate=PARITY)

    assert report.complaints == ()
    assert is_unlabelled(report)
    assert any("no picture has labels, and" in note for note in report.notes)
    assert sum(images_by_split(report).values()) == 24
    assert all(not any(split.objects) for split in report.splits)
    assert checked(tmp_path, task).complaints


def test_split_folders_stay_splits(tmp_path: Path) -> None:
    for place, split in enumerate(("calibration", "tuning", "test")):
        for number in range(3 + place):
            save(tmp_path / split / f"{number}.png", encoded(picture(100 * place + number)))

    assert images_by_split(checked(tmp_path, Task.CLASSIFY, gate=PARITY)) == {"calibration": 3, "tuning": 4, "test": 5}


def test_one_label_only_is_no_complaint_for_parity(tmp_path: Path) -> None:
    class_folders(tmp_path, ["red"], each=24)

    report = checked(tmp_path, Task.CLASSIFY, gate=PARITY)

    assert report.complaints == ()
    assert not is_unlabelled(report)
    assert sum(split.objects[0] for split in report.splits) == 24
    assert "shows only 'red'" in checked(tmp_path, Task.CLASSIFY).complaints[0]


def test_annotations_of_nothing_are_no_complaint_for_parity(tmp_path: Path) -> None:
    document = coco_folder(tmp_path, images=24)
    (tmp_path / "annotations.json").write_text(json.dumps(document | {"annotations": [], "categories": []}))

    assert checked(tmp_path, Task.DETECT, gate=PARITY).complaints == ()
    assert "has no object in any picture" in checked(tmp_path, Task.DETECT).complaints[0]


def test_labels_of_some_splits_only_are_not_used_for_parity(tmp_path: Path) -> None:
    for place, split in enumerate(("calibration", "tuning", "test")):
        for number in range(4 + place):
            save(tmp_path / split / "images" / f"{number}.png", encoded(picture(100 + 10 * place + number)))
    mask_folders(tmp_path / "test")

    report = checked(tmp_path, Task.SEGMENT, gate=PARITY)

    assert report.complaints == ()
    assert is_unlabelled(report)
    assert any("not all pictures have labels, so none are used, and" in note for note in report.notes)


def test_what_check_prints_of_them_fits_80_columns_and_has_no_table_of_noughts(tmp_path: Path) -> None:
    flat(tmp_path)
    written = io.StringIO()

    print_data(Console(file=written, width=80), checked(tmp_path, Task.DETECT, gate=PARITY))

    lines = written.getvalue().splitlines()
    assert not [line for line in lines if line.startswith("resolution")]
    assert "Labels (" not in written.getvalue()
    assert not [line for line in lines if "│" in line]
    (counts,) = [line for line in lines if line.startswith("no label is shown; pictures: calibration ")]
    assert "test" in counts


def test_labels_that_are_there_are_read_for_parity_too(tmp_path: Path) -> None:
    class_folders(tmp_path / "folders")
    coco_folder(tmp_path / "boxes")
    mask_folders(tmp_path / "masks_of")

    for name, task in (("folders", Task.CLASSIFY), ("boxes", Task.DETECT), ("masks_of", Task.SEGMENT)):
        report = checked(tmp_path / name, task, gate=PARITY)
        assert not is_unlabelled(report)
        assert report == checked(tmp_path / name, task).model_copy(
            update={"seconds": report.seconds, "images_per_s": report.images_per_s, "notes": report.notes}
        )


def test_samples_claim_no_truth(tmp_path: Path) -> None:
    flat(tmp_path)

    first = {task: labelled_images(recipe_of(tmp_path, task, gate=PARITY), "test")[0] for task in Task}

    assert isinstance(classified := first[Task.CLASSIFY], ClassSample)
    assert not classified.is_labelled
    assert sample_truth(classified, LABELS) == {"classes": []}
    assert first[Task.EMBED] == classified
    assert isinstance(picture_alone := first[Task.IMAGE], ImageSample)
    assert picture_alone.target == b""
    assert isinstance(boxes := first[Task.DETECT], DetectSample)
    assert (len(boxes.boxes), boxes.masks) == (0, None)
    assert isinstance(instances := first[Task.INSTANCES], DetectSample)
    assert instances.masks == ()
    assert isinstance(mask := first[Task.SEGMENT], SegmentSample)
    assert mask.mask.shape == (36, 48)
    assert np.unique(mask.mask).tolist() == [IGNORED]
