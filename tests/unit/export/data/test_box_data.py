"""COCO's and YOLO's boxes. Promises: every fault is one sentence that names the file and the entry."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.export.data.folder_data import folder_samples
from saccade.export.data.labelled_images import DetectSample
from saccade.export.recipe import FolderData
from saccade.models.contract.specs import Task
from tests.support.data_folders import (
    LABELS,
    checked,
    coco_folder,
    encoded,
    images_by_split,
    only_complaint,
    picture,
    save,
)

Change = Callable[[dict[str, Any]], object]
Form = Callable[[float, float, float, float], list[float]]


def changed_coco(root: Path, change: Change) -> None:
    document = coco_folder(root)
    change(document)
    (root / "annotations.json").write_text(json.dumps(document))


def test_coco_is_read_with_byte_order_mark_and_without_an_unused_root_category(tmp_path: Path) -> None:
    document = coco_folder(tmp_path)
    document["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})
    save(tmp_path / "annotations.json", codecs.BOM_UTF8 + json.dumps(document).encode())

    report = checked(tmp_path, Task.DETECT)

    assert report.complaints == ()
    assert sum(sum(split.objects) for split in report.splits) == 24
    assert "category 'shapes' is used by no annotation" in report.notes[0]


def test_what_tools_write_differently_and_mean_alike_is_taken(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        for image in document["images"]:
            image.update(file_name=f".\\{image['file_name']}", width=48.0, height=36.0)
        for row in document["annotations"]:
            row.update(iscrowd=None, segmentation=[], area="unknown")

    changed_coco(tmp_path, change)

    assert checked(tmp_path, Task.DETECT).complaints == ()


def test_roboflow_folders_are_splits_with_a_file_each(tmp_path: Path) -> None:
    for place, name in enumerate(("train", "valid", "test")):
        document = coco_folder(tmp_path / name, file_name="_annotations.coco.json")
        for number, image in enumerate(document["images"]):
            save(tmp_path / name / image["file_name"], encoded(picture(100 * place + number)))

    report = checked(tmp_path, Task.DETECT)

    assert report.complaints == ()
    assert images_by_split(report) == {"train": 12, "calibration": 12, "tuning": 12, "test": 12}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["annotations"][0].pop("bbox"), "1 of 24 boxes are null"),
        (lambda d: d["annotations"][2].update(bbox=None), "annotation 2 in 1.png (bbox null)"),
        (lambda d: d["annotations"][0].update(bbox=[5, 5, -3, 4]), "0 in 0.png (bbox [5.0, 5.0, -3.0, 4.0])"),
        (lambda d: d["annotations"][0].update(bbox=[]), "1 of 24 boxes are null"),
        (lambda d: d["annotations"][3].update(image_id="1"), "annotations[3].image_id is text"),
        (lambda d: d["images"][0].update(id="0"), "images[0].id is text and COCO has a number there"),
        (lambda d: d["annotations"][4].update(image_id=99), "annotation 4 belongs to image_id 99"),
        (lambda d: d["annotations"][5].update(category_id=7), "5 has the category_id 7, which is none of 1, 2, 3"),
        (lambda d: d["images"][3].update(id=2), "two images have the id 2"),
        (lambda d: d["images"][3].update(file_name="2.png"), "two images are the file '2.png'"),
        (lambda d: d["categories"][2].update(name="black"), "'black' is none of the 3 labels"),
        (lambda d: d["images"][6].update(file_name="absent.png"), "absent.png cannot be read (No such file"),
        (lambda d: d["images"][6].update(width=36, height=48), "6.png is 48x36 after its orientation"),
        (lambda d: d["images"][6].update(width=640), "6.png is 48x36, and its annotations say 640x36"),
        (lambda d: d["images"][0].update(id=0.0), "images[0].id is a fraction and COCO has a whole number there"),
        (lambda d: d["annotations"][0].update(bbox=["4", 5, 10, 12]), 'bbox[0] is text and COCO has a number there'),
        (lambda d: d["annotations"][0].update(bbox={"x": 4}), "bbox is an object and COCO has a list or null there"),
        (lambda d: d.pop("categories"), "missing required field `categories`"),
        (lambda d: d["annotations"].clear(), "has no object in any picture"),
        (lambda d: [row.update(iscrowd=1) for row in d["annotations"]], "has crowds alone (iscrowd: 1)"),
    ],
)  # fmt: skip
def test_faults_of_coco_files_are_named(tmp_path: Path, change: Change, text: str) -> None:
    changed_coco(tmp_path, change)

    complaints = checked(tmp_path, Task.DETECT, order="name").complaints

    assert text in complaints[0]
    assert str(tmp_path) in complaints[0] or "split 'tuning'" in complaints[0]


def test_few_bad_boxes_are_left_out_and_said_where_the_recipe_allows_it(tmp_path: Path) -> None:
    changed_coco(tmp_path, lambda d: d["annotations"][0].update(bbox=[500, 5, 3, 4]))

    refused = only_complaint(checked(tmp_path, Task.DETECT))
    report = checked(tmp_path, Task.DETECT, limits={"max_bad_boxes": 0.05})

    assert "1 of 24 boxes are null, smaller than a pixel or outside of their picture" in refused
    assert "max_bad_boxes: 0.042" in refused
    assert report.complaints == ()
    assert sum(sum(split.objects) for split in report.splits) == 23
    assert "the recipe asks for less than the defaults: data.limits.max_bad_boxes 0.05 (default 0.001)" in report.notes


# Pictures are 48 x 36: rounding reaches 2.4 and 2 pixels out of them.
@pytest.mark.parametrize(
    ("box", "kept", "is_said"),
    [
        ([0, 0, 48, 36], [0, 0, 48, 36], False),
        ([-2.3, -1.9, 30, 20], [0, 0, 27.7, 18.1], False),
        ([20, 20, 1, 1], [20, 20, 21, 21], False),
        ([-2.5, 3, 30, 20], [0, 3, 27.5, 23], True),
        ([20, 3, 60, 20], [20, 3, 48, 23], True),
        ([3, 20, 20, 18.1], [3, 20, 23, 36], True),
    ],
)
def test_boxes_around_what_the_border_hides_are_cut_off_and_counted(
    tmp_path: Path, box: list[float], kept: list[float], is_said: bool
) -> None:
    changed_coco(tmp_path, lambda d: d["annotations"][0].update(bbox=box))

    report = checked(tmp_path, Task.DETECT)
    splits = ("calibration", "tuning", "test")
    found = [
        sample.boxes
        for split in splits
        for sample in folder_samples(Task.DETECT, LABELS, FolderData(path="unused"), tmp_path, split)[0]
        if isinstance(sample, DetectSample)
    ]

    assert report.complaints == ()
    said = [note for note in report.notes if "1 of 24 boxes reach out of their picture" in note]
    assert len(said) == is_said
    assert all("0.png" in note and "annotation 0" in note and "cut off at its border" in note for note in said)
    assert kept in np.concatenate(found).round(6).tolist()


@pytest.mark.parametrize(
    "box", [[48, 3, 10, 10], [-10, 3, 10.5, 10], [3, 3, 0.5, 20], [3, 3, 20, 0.5], [-5000, -5000, 10000, 10000]]
)
def test_boxes_that_show_nothing_of_their_picture_are_refused(tmp_path: Path, box: list[float]) -> None:
    changed_coco(tmp_path, lambda d: d["annotations"][0].update(bbox=box))

    complaint = only_complaint(checked(tmp_path, Task.DETECT))

    assert "1 of 24 boxes" in complaint
    assert f"0.png ({tmp_path}/annotations.json, annotation 0)" in complaint
    assert "max_bad_boxes" in complaint


def test_an_annotation_that_is_there_twice_is_refused_or_counts_once(tmp_path: Path) -> None:
    changed_coco(tmp_path, lambda d: d["annotations"].append({**d["annotations"][4], "id": 99}))

    refused = only_complaint(checked(tmp_path, Task.DETECT))
    report = checked(tmp_path, Task.DETECT, limits={"max_bad_boxes": 0.05})

    assert f"{tmp_path}/annotations.json: 1 of 25 objects are written more than once" in refused
    assert "first annotation 99 in 2.png" in refused
    assert "max_bad_boxes: 0.04" in refused
    assert report.complaints == ()
    assert any("each counts once" in note for note in report.notes)
    assert sum(sum(split.objects) for split in report.splits) == 24


@pytest.mark.parametrize("file_name", ["./2.png", "a/../2.png", ".\\2.png"])
def test_one_picture_under_two_names_is_refused(tmp_path: Path, file_name: str) -> None:
    changed_coco(tmp_path, lambda d: d["images"][3].update(file_name=file_name))

    assert "two images are the file '2.png'" in only_complaint(checked(tmp_path, Task.DETECT))


def random_corners(count: int) -> list[tuple[float, float, float, float]]:
    """Boxes anywhere in a picture, x1 y1 x2 y2 as fractions of its sides."""
    rng = np.random.default_rng(0)
    lows, sizes = rng.uniform(0, 0.7, (count, 2)), rng.uniform(0.1, 0.3, (count, 2))
    return [tuple(row) for row in np.concatenate([lows, lows + sizes], axis=1).tolist()]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (lambda x1, y1, x2, y2: [48 * x1, 36 * y1, 48 * x2, 36 * y2], "looks like corners (x1 y1 x2 y2): a bbox is x,"),
        (lambda x1, y1, x2, y2: [x1, y1, x2 - x1, y2 - y1], "looks like fractions of the picture: a bbox is in pixels"),
        (lambda x1, y1, x2, y2: [x1, y1, x2, y2], "looks like fractions of the picture: a bbox is in pixels"),
        (lambda x1, y1, x2, y2: [48 * x1, 36 * y1, 48 * (x2 - x1), 36 * (y2 - y1)], None),
    ],
)  # fmt: skip
def test_boxes_in_the_wrong_form_are_recognised(tmp_path: Path, written: Form, text: str | None) -> None:
    def change(document: dict[str, Any]) -> None:
        for row, corners in zip(document["annotations"], random_corners(24), strict=True):
            row["bbox"] = written(*corners)

    changed_coco(tmp_path, change)

    complaints = checked(tmp_path, Task.DETECT, limits={"max_bad_boxes": 0.2}).complaints

    assert bool(complaints) == (text is not None)
    assert all(text in each and "max_bad_boxes" not in each for each in complaints[:1] if text)


def test_corners_in_yolo_files_are_recognised(tmp_path: Path) -> None:
    yolo_folder(tmp_path)
    for path, corners in zip(sorted(tmp_path.glob("*/labels/*.txt")), random_corners(36), strict=True):
        path.write_text(" ".join(str(value) for value in (0, *corners)))

    complaints = checked(tmp_path, Task.DETECT).complaints

    assert len(complaints) == 3
    assert all("looks like corners (x1 y1 x2 y2): write the centre and the size" in each for each in complaints)


def test_truncated_annotations_are_no_json(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    (tmp_path / "annotations.json").write_text('{"images": [')

    assert f"{tmp_path}/annotations.json is not JSON" in only_complaint(checked(tmp_path, Task.DETECT))


def yolo_folder(root: Path, images: int = 12, line: str = "{class_id} 0.5 0.5 0.25 0.5") -> None:
    """As Roboflow writes it: paths that are wrong by one level, one folder per split."""
    for place, split in enumerate(("train", "valid", "test")):
        for number in range(images):
            save(root / split / "images" / f"{number}.png", encoded(picture(100 * place + number)))
            text = line.format(class_id=number % 3)
            save(root / split / "labels" / f"{number}.txt", codecs.BOM_UTF8 + text.encode())
    lines = ("train: ../train/images", "val: ../valid/images", "test: ../test/images", "nc: 3")
    save(root / "data.yaml", "\n".join([*lines, "names: ['Red', 'green', 'blue']"]).encode())


def test_yolo_files_are_read_in_pixels(tmp_path: Path) -> None:
    yolo_folder(tmp_path)

    report = checked(tmp_path, Task.DETECT)
    samples, _ = folder_samples(Task.DETECT, LABELS, FolderData(path="unused"), tmp_path, "test")

    assert report.complaints == ()
    assert images_by_split(report) == {"train": 12, "calibration": 12, "tuning": 12, "test": 12}
    assert report.splits[-1].objects == (4, 4, 4)
    assert isinstance(samples[0], DetectSample)
    np.testing.assert_allclose(samples[0].boxes, [[18, 9, 30, 27]])


def test_polygons_count_as_their_boxes_and_pictures_without_a_file_as_empty(tmp_path: Path) -> None:
    yolo_folder(tmp_path, line="{class_id} 0.25 0.25 0.75 0.25 0.5 1.0")
    (tmp_path / "test" / "labels" / "0.txt").unlink()

    report = checked(tmp_path, Task.DETECT)
    samples, _ = folder_samples(Task.DETECT, LABELS, FolderData(path="unused"), tmp_path, "tuning")

    assert report.splits[-1].images_without == 1
    assert f"{tmp_path}/test/labels/0.txt is not there: its picture counts as one without objects" in report.notes
    assert isinstance(samples[0], DetectSample)
    np.testing.assert_allclose(samples[0].boxes, [[12, 9, 36, 36]])


def test_a_line_that_is_there_twice_is_named(tmp_path: Path) -> None:
    yolo_folder(tmp_path)
    with (tmp_path / "test" / "labels" / "5.txt").open("a") as file:
        file.write("\n1 0.5 0.5 0.2 0.2\n1 0.50 0.5 0.2 0.20\n")

    refused = only_complaint(checked(tmp_path, Task.DETECT))
    report = checked(tmp_path, Task.DETECT, limits={"max_bad_boxes": 0.1})

    assert "1 of 14 objects are written more than once" in refused
    assert f"first in {tmp_path}/test/labels/5.txt, line 3" in refused
    assert report.complaints == ()
    assert sum(report.splits[-1].objects) == 13


def test_a_box_outside_of_its_picture_is_named_by_its_line(tmp_path: Path) -> None:
    yolo_folder(tmp_path)
    with (tmp_path / "test" / "labels" / "5.txt").open("a") as file:
        file.write("\n1 -0.5 0.5 0.2 0.2\n")

    complaint = only_complaint(checked(tmp_path, Task.DETECT))

    assert f"first in {tmp_path}/test/images/5.png ({tmp_path}/test/labels/5.txt, line 2)" in complaint


def test_a_picture_that_a_list_names_twice_counts_once(tmp_path: Path) -> None:
    yolo_folder(tmp_path)
    names = [f"./test/images/{number}.png" for number in range(12)]
    (tmp_path / "test.txt").write_text("\n".join([*names, "test/images/../images/3.png"]))
    text = (tmp_path / "data.yaml").read_text().replace("test: ../test/images", "test: test.txt")
    (tmp_path / "data.yaml").write_text(text)

    report = checked(tmp_path, Task.DETECT)

    assert report.complaints == ()
    assert images_by_split(report)["test"] == 12
    assert any("1 skipped, listed more than once" in text for text in report.skipped)


@pytest.mark.parametrize("point", ["0.9 0.9", "0.9 0.9 2", "0 0 0"])
def test_points_of_a_pose_are_no_polygon(tmp_path: Path, point: str) -> None:
    yolo_folder(tmp_path, line=" ".join(["{class_id} 0.5 0.5 0.25 0.5", *[point] * 4]))
    dimensions = len(point.split())
    with (tmp_path / "data.yaml").open("a") as file:
        file.write(f"\nkpt_shape: [4, {dimensions}]\n")

    report = checked(tmp_path, Task.DETECT)
    samples, _ = folder_samples(Task.DETECT, LABELS, FolderData(path="unused"), tmp_path, "test")

    assert report.complaints == ()
    for sample in samples:
        assert isinstance(sample, DetectSample)
        np.testing.assert_allclose(sample.boxes, [[18.0, 9.0, 30.0, 27.0]])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("9 0.5 0.5 0.2 0.2", "line 1: class 9 is none of 0 to 2"),
        ("0 24 18 10 10", "line 1: 24 is no share of the picture"),
        ("0 0.5 0.5 0.2", "line 1: there are 4 numbers"),
        ("red 0.5 0.5 0.2 0.2", "is not five numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9 1", "has seven numbers, as 12 lines have, and the last is whole"),
        ("0 0.5 0.5 0 0.2", "36 of 36 boxes are null, smaller than a pixel"),
    ],
)
def test_faults_of_yolo_files_are_named(tmp_path: Path, line: str, text: str) -> None:
    yolo_folder(tmp_path)
    for path in tmp_path.glob("*/labels/*.txt"):
        path.write_text(line)

    complaint = checked(tmp_path, Task.DETECT).complaints[0]

    assert text.removeprefix("36 of 36") in complaint
    assert str(tmp_path) in complaint


def test_label_files_that_no_picture_has_are_counted_and_another_case_is_refused(tmp_path: Path) -> None:
    yolo_folder(tmp_path)
    labels = tmp_path / "train" / "labels"
    save(labels / "elsewhere.txt", b"0 0.5 0.5 0.25 0.5")
    save(labels / "classes.txt", b"red\ngreen\nblue")

    report = checked(tmp_path, Task.DETECT)
    (labels / "0.txt").rename(labels / "0.TXT")

    assert report.complaints == ()
    assert any("1 skipped, a label file without a picture" in text for text in report.skipped)
    assert "0.TXT would not be read: rename it to 0.txt" in only_complaint(checked(tmp_path, Task.DETECT))


def test_numbers_of_classes_may_be_in_quotes(tmp_path: Path) -> None:
    yolo_folder(tmp_path)
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.partition("names:")[0] + 'names: {"2": blue, "0": red, "1": green}')

    assert checked(tmp_path, Task.DETECT, order="sorted").complaints == ()


def test_a_label_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    yolo_folder(tmp_path)
    (tmp_path / "train" / "labels" / "0.txt").write_bytes(b"\xff\x00\xfe\x81")

    assert f"{tmp_path}/train/labels/0.txt is no text" in only_complaint(checked(tmp_path, Task.DETECT))


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("train: train/images\nval: valid/images", "names no classes"),
        ("names: [red, green, blue]", "names no pictures"),
        ("val: nowhere\nnames: [red, green, blue]", "`val: nowhere` is not there"),
        ("val: valid/images\ntrain: train/images\nnames: [red, green, black]", "'black' is none of the 3 labels"),
        ("a: [", "cannot be read as YAML"),
        ("val: valid/images\nnames: {1: red, 2: green, 3: blue}", "the numbers of `names` begin with 1"),
        ("val: valid/images\nnames: [red, yes, blue]", "YAML reads the name of a class as True"),
        ("val: valid/images\nnc: 4\nnames: [red, green, blue]", "says `nc: 4` and names 3 classes"),
    ],
)  # fmt: skip
def test_faults_of_a_data_yaml_are_named(tmp_path: Path, document: str, text: str) -> None:
    yolo_folder(tmp_path)
    (tmp_path / "data.yaml").write_text(document)

    complaint = only_complaint(checked(tmp_path, Task.DETECT))

    assert text in complaint
    assert "data.yaml" in complaint
