"""Folders of pictures. Promises: the field's layouts are read, splits are disjoint, and what does not fit is named."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.export.data.folder_data import folder_samples
from saccade.export.data.image_split import Split
from saccade.export.data.labelled_images import IGNORED, ClassSample, DetectSample, Sample, SegmentSample
from saccade.export.data.split_sources import UNDIVIDED
from saccade.export.errors import DataRefused
from saccade.export.recipe import FolderData
from saccade.models.contract.specs import Task

LABELS = ("cat", "dog")
SPLITS: tuple[Split, ...] = ("calibration", "tuning", "test")


def picture(path: Path, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
    return stream.getvalue()


def read(
    root: Path, task: Task, name: Split = "test", labels: tuple[str, ...] = LABELS, **data: object
) -> list[Sample]:
    folder = FolderData.model_validate({"dataset": "folder", "path": "unused"} | data)
    return folder_samples(task, labels, folder, root, name)[0]


def test_one_folder_per_label_gives_classes_by_name(tmp_path: Path) -> None:
    for split in SPLITS:
        dog, cat = picture(tmp_path / split / "dog" / "a.png", 1), picture(tmp_path / split / "cat" / "b.png", 2)

    samples = read(tmp_path, Task.CLASSIFY)

    found = {sample.encoded: sample.class_id for sample in samples if isinstance(sample, ClassSample)}
    assert found == {cat: 0, dog: 1}


def test_folders_that_are_no_labels_count_in_order_where_the_recipe_says_so(tmp_path: Path) -> None:
    for split in SPLITS:
        first, second = picture(tmp_path / split / "n01" / "a.png", 1), picture(tmp_path / split / "n02" / "b.png", 2)

    samples = read(tmp_path, Task.CLASSIFY, order="sorted")

    assert {s.encoded: s.class_id for s in samples if isinstance(s, ClassSample)} == {first: 0, second: 1}


def test_undivided_set_is_divided_by_content_without_overlap(tmp_path: Path) -> None:
    everything = {picture(tmp_path / LABELS[seed % 2] / f"{seed}.png", seed) for seed in range(60)}

    parts = {name: {sample.encoded for sample in read(tmp_path, Task.CLASSIFY, name)} for name in SPLITS}

    assert set.union(*parts.values()) == everything
    assert sum(len(part) for part in parts.values()) == len(everything)
    assert all(UNDIVIDED[name].holds(encoded) for name, part in parts.items() for encoded in part)


def test_limit_takes_a_mixture_and_says_what_is_left(tmp_path: Path) -> None:
    for split in SPLITS:
        for seed in range(20):
            picture(tmp_path / split / LABELS[seed // 10] / f"{seed}.png", seed)
    folder = FolderData(dataset="folder", path="unused", max_images={"test": 8})

    samples, left = folder_samples(Task.CLASSIFY, LABELS, folder, tmp_path, "test")

    assert (len(samples), left) == (8, 12)
    assert {sample.class_id for sample in samples if isinstance(sample, ClassSample)} == {0, 1}


def coco(root: Path, category: str = "dog", file_name: str = "images/a.png") -> None:
    document = {
        "images": [{"id": 7, "file_name": file_name}],
        "categories": [{"id": 18, "name": category}],
        "annotations": [
            {"image_id": 7, "category_id": 18, "bbox": [1, 2, 4, 5]},
            {"image_id": 7, "category_id": 18, "bbox": [0, 0, 12, 9], "iscrowd": 1},
        ],
    }
    (root / "annotations.json").write_text(json.dumps(document))


def test_coco_annotations_become_corners_and_crowds_are_marked(tmp_path: Path) -> None:
    for split in SPLITS:
        picture(tmp_path / split / "images" / "a.png", 1)
        coco(tmp_path / split)

    (sample,) = read(tmp_path, Task.DETECT)

    assert isinstance(sample, DetectSample)
    assert sample.boxes.tolist() == [[1, 2, 5, 7], [0, 0, 12, 9]]
    assert sample.class_ids.tolist() == [1, 1]
    assert sample.is_crowd is not None
    assert sample.is_crowd.tolist() == [False, True]
    assert sample.object_ids.tolist() == [1]


def test_masks_lie_beside_images_and_255_is_unlabelled(tmp_path: Path) -> None:
    mask = np.tile(np.array([0, 1, IGNORED], np.uint8), (9, 4))
    for split in SPLITS:
        picture(tmp_path / split / "images" / "a.png", 1)
        (tmp_path / split / "masks").mkdir()
        Image.fromarray(mask).save(tmp_path / split / "masks" / "a.png")

    (sample,) = read(tmp_path, Task.SEGMENT)

    assert isinstance(sample, SegmentSample)
    np.testing.assert_array_equal(sample.mask, mask)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "cat" / "1.png", 1)
    picture(tmp_path / "a" / "bird" / "1.png", 1)
    picture(tmp_path / "b" / "images" / "1.png", 1)
    (tmp_path / "d").mkdir()
    coco(tmp_path / "d", category="bird")
    cases = [
        ("absent", Task.CLASSIFY, "is no folder"),
        ("a", Task.CLASSIFY, "'bird' is none of the 2 labels .*rename it, or set `labels`, or write `order: sorted`"),
        ("b", Task.SEGMENT, r"b/masks is not there: segmentation data is"),
        ("b", Task.DETECT, "cannot read .*annotations.json"),
        ("d", Task.DETECT, "'bird' is none of the 2 labels"),
    ]
    for folder, task, text in cases:
        with pytest.raises(DataRefused, match=text):
            read(tmp_path / folder, task)


def test_mask_with_a_class_beyond_the_labels_is_refused(tmp_path: Path) -> None:
    for split in SPLITS:
        picture(tmp_path / split / "images" / "a.png", 1)
        (tmp_path / split / "masks").mkdir()
        Image.fromarray(np.full((9, 12), 9, np.uint8)).save(tmp_path / split / "masks" / "a.png")

    with pytest.raises(DataRefused, match="class id 9, the recipe has 2 labels"):
        read(tmp_path, Task.SEGMENT)
