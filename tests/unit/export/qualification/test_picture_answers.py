"""Two libraries' answers to one picture. Promises: what a client would notice is counted, a threshold's edge is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saccade.export.errors import DataRefused
from saccade.export.qualification.picture_answers import (
    MadePicture,
    PictureBoxes,
    PictureClass,
    PictureVector,
    agreement_share,
    difference,
    picture_boxes,
    read_answers,
)
from saccade.models.contract.specs import Task, TaskSpec

LABELS = ("cat", "dog")
BOX = [10.0, 10.0, 50.0, 50.0]


def boxes(*rows: tuple[list[float], float, int]) -> PictureBoxes:
    return picture_boxes(list(rows))


def test_equal_boxes_agree_in_any_order() -> None:
    one, other = (BOX, 0.9, 0), ([60.0, 10.0, 90.0, 40.0], 0.5, 1)

    found = difference("a.jpg", boxes(one, other), boxes(other, one), 0.25)

    assert (found.theirs, found.same, found.surplus) == (2, 2, 0)
    assert agreement_share([found]) == 1.0


@pytest.mark.parametrize(
    ("ours", "same", "surplus"),
    [
        ([([10.0, 10.0, 52.0, 50.0], 0.9, 0)], 0, 0),  # overlap 0.95
        ([(BOX, 0.85, 0)], 0, 0),  # another score
        ([(BOX, 0.9, 1)], 0, 1),  # another class
        ([], 0, 0),
        ([(BOX, 0.9, 0), ([60.0, 60.0, 80.0, 80.0], 0.5, 0)], 1, 1),
        ([(BOX, 0.9, 0), ([60.0, 60.0, 80.0, 80.0], 0.255, 0)], 1, 0),  # at the threshold's edge
    ],
)
def test_what_a_client_would_notice_is_counted(
    ours: list[tuple[list[float], float, int]], same: int, surplus: int
) -> None:
    found = difference("a.jpg", boxes(*ours), boxes((BOX, 0.9, 0)), 0.25)

    assert (found.theirs, found.same, found.surplus) == (1, same, surplus)
    assert agreement_share([found]) == same / (1 + surplus)


def test_surplus_is_not_counted_where_a_full_answer_was_cut() -> None:
    last, above = ([1.0, 1.0, 9.0, 9.0], 0.505, 1), ([70.0, 70.0, 90.0, 90.0], 0.6, 1)
    theirs, ours = boxes((BOX, 0.9, 0)), boxes((BOX, 0.9, 0), last, above)

    assert difference("a.jpg", ours, theirs, 0.25).surplus == 2
    assert difference("a.jpg", replace(ours, cut_at=0.505), theirs, 0.25).surplus == 1


def test_boxes_without_area_are_compared_by_place() -> None:
    flat = ([0.0, 20.0, 0.0, 60.0], 0.6, 0)

    assert difference("a.jpg", boxes(flat), boxes(flat), 0.25).same == 1


def test_coco_results_are_read_by_image_id_and_by_file_name(tmp_path: Path) -> None:
    rows = [
        {"image_id": 7, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9},
        {"file_name": "images/b.jpg", "category_id": 2, "bbox": [0, 0, 5, 5], "score": 0.5},
    ]
    (tmp_path / "old.json").write_text(json.dumps(rows))

    answers = read_answers(tmp_path / "old.json", {7: "a.jpg"}, {1: 0, 2: 1}, LABELS)

    first, second = answers["a.jpg"], answers["b.jpg"]
    assert isinstance(first, PictureBoxes)
    assert isinstance(second, PictureBoxes)
    assert first.boxes.tolist() == [BOX]
    assert second.class_ids.tolist() == [1]


def test_labels_are_read_by_name_by_id_and_with_scores(tmp_path: Path) -> None:
    document = {"a.jpg": "dog", "b.jpg": 0, "c.jpg": {"label": "cat", "score": 0.75}}
    (tmp_path / "old.json").write_text(json.dumps(document))

    answers = read_answers(tmp_path / "old.json", {}, {}, LABELS)

    assert answers == {"a.jpg": PictureClass(1, None), "b.jpg": PictureClass(0, None), "c.jpg": PictureClass(0, 0.75)}
    assert difference("a.jpg", PictureClass(0, 0.6), PictureClass(1, None), 0.25).same == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the answers"),
        ("[1]", "neither COCO results"),
        ('[{"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]', "image_id 9, which"),
        ('[{"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1], "score": 1}]', "category_id 5, which"),
        ('[{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1]}]', "boxes without `score`: these are labels"),
        ('{"a.jpg": "bird"}', "'bird' is no label of the recipe"),
    ],
)
def test_other_files_are_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "old.json").write_text(text)

    with pytest.raises(DataRefused, match=message):
        read_answers(tmp_path / "old.json", {7: "a.jpg"}, {1: 0, 2: 1}, LABELS)


def whole_coco(name: str = "dog", **more: object) -> str:
    row = {"image_id": 3, "category_id": 4, "bbox": [10, 10, 40, 40], **more}
    images, categories = [{"id": 3, "file_name": "images/a.jpg"}], [{"id": 4, "name": name}]
    return json.dumps({"images": images, "annotations": [row], "categories": categories})


def test_a_whole_coco_file_brings_its_own_images_and_categories(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(whole_coco(score=0.5))

    answers = read_answers(tmp_path / "old.json", {7: "b.jpg"}, {1: 0, 2: 1}, LABELS)

    found = answers["a.jpg"]
    assert isinstance(found, PictureBoxes)
    assert (found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist()) == ([BOX], [0.5], [1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (whole_coco(), "boxes without `score`: these are labels"),
        (whole_coco("bird", score=1), "category 'bird', which is no label of the recipe: cat, dog$"),
        (whole_coco(score=1, image_id=9), "image_id 9, which its own `images` and `categories` do not know"),
        ('{"images": [], "annotations": {}, "categories": []}', "neither COCO results"),
        ('{"images": [1], "annotations": [], "categories": []}', "`images` need id and file_name"),
    ],
)
def test_a_whole_coco_file_that_does_not_fit_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "old.json").write_text(text)

    with pytest.raises(DataRefused, match=message):
        read_answers(tmp_path / "old.json", {9: "a.jpg"}, {4: 0}, LABELS)


def test_results_by_image_id_need_data_that_numbers_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('[{"image_id": 0, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]')

    with pytest.raises(DataRefused, match=r"no annotations\.json of the data names; write `file_name` beside it"):
        read_answers(tmp_path / "old.json", {}, {0: 0, 1: 1}, LABELS)


def test_masks_count_pixels_and_must_have_one_size() -> None:
    ours = np.zeros((2, 3), np.uint8)
    theirs = ours.copy()
    theirs[0, 0] = 1

    assert (difference("a.jpg", ours, theirs, 0.25).same, difference("a.jpg", ours, ours, 0.25).same) == (5, 6)
    with pytest.raises(DataRefused, match=r"their mask is \(3, 2\)"):
        difference("a.jpg", ours, theirs.T, 0.25)


def test_vectors_are_the_same_where_their_cosine_says_so() -> None:
    def vector(angle: float) -> PictureVector:
        return PictureVector(np.array([np.cos(angle), np.sin(angle)], np.float32))

    near, far = (difference("a.jpg", vector(angle), vector(0.0), 0.25) for angle in (0.01, 0.5))

    assert (near.theirs, near.same, far.same) == (1, 1, 0)
    assert far.worst_score == pytest.approx(1 - np.cos(0.5), abs=1e-6)
    with pytest.raises(DataRefused, match="PictureClass"):
        difference("a.jpg", vector(0.0), PictureClass(1, None), 0.25)


@pytest.mark.parametrize(("picture", "unit", "level"), [("rgb", 1.0, 45.9), ("depth", 40.0, None)])
def test_made_pictures_differ_by_numbers(picture: str, unit: float, level: float | None) -> None:
    """Two 255ths of the range look the same; a depth has a unit of its own, so no signal-to-noise ratio."""
    task = TaskSpec(task=Task.IMAGE, picture=picture)  # type: ignore[arg-type]  # of the test's choice
    theirs = np.linspace(0, unit, 48, dtype=np.float32).reshape(4, 12)
    ours = theirs.copy()
    ours[0, :6] += np.float32(unit / 255)
    ours[1, :3] += np.float32(unit / 51)

    found = difference("a.png", MadePicture(ours, task), MadePicture(theirs, task), 0.0)

    assert (found.theirs, found.same) == (48, 45)
    assert found.worst_score == pytest.approx(unit / 51, rel=1e-4)
    assert found.psnr == (level if level is None else pytest.approx(level, abs=0.1))
    with pytest.raises(DataRefused, match="their picture is"):
        difference("a.png", MadePicture(ours[:2], task), MadePicture(theirs, task), 0.0)
