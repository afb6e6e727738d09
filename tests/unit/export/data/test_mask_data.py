"""Masks. Promises: they fit the upright picture, hold the labels' ids, and show more than the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.models.contract.specs import Task
from tests.support.data_folders import checked, encoded, mask_folders, only_complaint, picture, save


def test_masks_are_counted_by_label_with_what_nobody_labelled(tmp_path: Path) -> None:
    mask_folders(tmp_path, values=(0, 1, 2, 255))

    report = checked(tmp_path, Task.SEGMENT)

    pixels = 12 * 36 * 48 // 4
    assert report.complaints == ()
    assert [sum(split.objects[class_id] for split in report.splits) for class_id in range(3)] == [pixels] * 3
    assert sum(split.unlabelled for split in report.splits) == pixels


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    mask_folders(tmp_path)
    mask = save(tmp_path / "masks" / "3.png", encoded(Image.fromarray(np.zeros((18, 24), np.uint8))))

    complaint = only_complaint(checked(tmp_path, Task.SEGMENT))

    assert f"{mask} is 24x18 and its picture {tmp_path}/images/3.png is 48x36" in complaint


def test_a_mask_of_the_unturned_picture_is_refused(tmp_path: Path) -> None:
    mask_folders(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    save(tmp_path / "images" / "3.png", encoded(picture(3), exif=exif))

    complaint = only_complaint(checked(tmp_path, Task.SEGMENT))

    assert "3.png is 48x36 (as it lies in the file, before its orientation) and its picture" in complaint
    assert "is 36x48" in complaint


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0, 1, 7), "has class id 7, the recipe has 3 labels: write ids 0 to 2, or 255"),
        ((0,), "shows only 'red', so a network that finds nothing would be perfect"),
        ((0, 255), "check that masks hold class ids and not 0 and 255"),
        ((1, 255), "so a mask of that alone would be perfect"),
        ((255,), "has no labelled pixel"),
    ],
)
def test_values_that_say_nothing_are_refused(tmp_path: Path, values: Sequence[int], text: str) -> None:
    mask_folders(tmp_path, values=values)

    assert text in checked(tmp_path, Task.SEGMENT).complaints[0]


def test_what_is_no_mask_is_named(tmp_path: Path) -> None:
    mask_folders(tmp_path, images=20)
    save(tmp_path / "masks" / "1.png", b"\x89PNG\r\n\x1a\n")
    save(tmp_path / "masks" / "._2.png", b"junk")
    (tmp_path / "masks" / "4.png").unlink()

    complaints = checked(tmp_path, Task.SEGMENT).complaints

    assert f"{tmp_path}/images/4.png has no mask: save it as {tmp_path}/masks/4.png" in complaints
    assert any(f"{tmp_path}/masks/1.png cannot be read as PNG" in text for text in complaints)
    assert len(complaints) == 2


@pytest.mark.parametrize(
    ("labels", "folder", "text"),
    [
        (["road", "sky", "Sky"], "images/a.png", "labels 1 and 2 are 'sky' and 'Sky'"),
        (["road", "sky"], "images/train/a.png", "images/train is a split inside of images: move it to"),
        (["road", "sky"], "pictures/a.png", "images is not there: segmentation data is"),
    ],
)
def test_other_layouts_and_labels_are_refused(tmp_path: Path, labels: list[str], folder: str, text: str) -> None:
    save(tmp_path / folder, encoded(picture(0)))
    (tmp_path / "masks").mkdir()

    assert text in only_complaint(checked(tmp_path, Task.SEGMENT, labels))


def test_pictures_that_share_a_mask_are_refused(tmp_path: Path) -> None:
    mask_folders(tmp_path)
    other = save(tmp_path / "images" / "3.jpg", encoded(picture(99), "JPEG"))

    complaint = only_complaint(checked(tmp_path, Task.SEGMENT))

    assert f"{other} and {tmp_path}/images/3.png share the mask {tmp_path}/masks/3.png" in complaint


def test_a_mask_that_is_a_link_to_anothers_is_refused(tmp_path: Path) -> None:
    mask_folders(tmp_path)
    (tmp_path / "masks" / "4.png").unlink()
    (tmp_path / "masks" / "4.png").symlink_to("3.png")

    assert "share the mask" in only_complaint(checked(tmp_path, Task.SEGMENT))


def test_masks_without_a_picture_are_counted(tmp_path: Path) -> None:
    mask_folders(tmp_path)
    for number in (3, 4):
        (tmp_path / "images" / f"{number}.png").unlink()

    skipped = checked(tmp_path, Task.SEGMENT).skipped

    assert skipped == (f"2 skipped, a mask without a picture: {tmp_path}/masks/3.png, ...",)
