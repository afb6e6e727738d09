"""Folders per label. Promises: labels match by name, splits are no labels, junk is skipped, complaints name a file."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from tests.support.data_folders import (
    LABELS,
    checked,
    class_folders,
    encoded,
    images_by_split,
    only_complaint,
    picture,
    save,
    split_folders,
)


def test_labels_match_folders_without_case_spaces_and_underscores(tmp_path: Path) -> None:
    class_folders(tmp_path, ["Red", "DARK_GREEN", "light Blue"])

    report = checked(tmp_path, Task.CLASSIFY, ["red", "dark green", "Light_Blue"])

    assert report.complaints == ()
    assert sum(images_by_split(report).values()) == 24
    assert [sum(split.objects[class_id] for split in report.splits) for class_id in range(3)] == [8, 8, 8]


def test_labels_match_folders_that_another_system_wrote_with_separate_accents(tmp_path: Path) -> None:
    class_folders(tmp_path, [unicodedata.normalize("NFD", name) for name in ("café", "thé", "eau")])

    assert checked(tmp_path, Task.CLASSIFY, ["café", "thé", "eau"]).complaints == ()


def test_pictures_under_two_labels_are_refused_beyond_a_few(tmp_path: Path) -> None:
    split_folders(tmp_path, each=8)
    for path in sorted((tmp_path / "test" / "red").iterdir())[:3]:
        shutil.copy(path, tmp_path / "test" / "green" / f"again_{path.name}")

    complaint = only_complaint(checked(tmp_path, Task.CLASSIFY))

    assert "3 pictures (11.1%) of split 'test' equal one of another label, such as" in complaint
    assert str(tmp_path / "test" / "red") in complaint


def test_folders_of_other_names_are_refused_unless_order_is_said(tmp_path: Path) -> None:
    class_folders(tmp_path, ["n01", "n02", "n03"])

    complaint = only_complaint(checked(tmp_path, Task.CLASSIFY))

    assert str(tmp_path) in complaint
    assert "'n01' and 2 more is none of the 3 labels (red, green, blue)" in complaint
    assert "`order: sorted`" in complaint
    assert checked(tmp_path, Task.CLASSIFY, order="sorted").complaints == ()


def test_order_needs_as_many_folders_as_labels(tmp_path: Path) -> None:
    class_folders(tmp_path, ["n01", "n02"])

    assert "has 2 classes (n01, n02), and the recipe has 3 labels" in only_complaint(
        checked(tmp_path, Task.CLASSIFY, order="sorted")
    )


def test_one_misspelt_folder_is_refused_with_the_label_it_resembles(tmp_path: Path) -> None:
    class_folders(tmp_path, ["red", "gren", "blue"])

    assert "'gren' is none of the 3 labels" in (complaint := only_complaint(checked(tmp_path, Task.CLASSIFY)))
    assert "perhaps 'green' is meant" in complaint


@pytest.mark.parametrize(
    ("labels", "folders", "text"),
    [
        (["red", "green", "red"], ["red", "green"], "'red' fits the labels 0, 2, which are all 'red'"),
        (["red", "green"], ["Red", "red"], "'Red' and 'red' are both label 'red'"),
    ],
)
def test_a_name_that_fits_twice_is_refused(tmp_path: Path, labels: list[str], folders: list[str], text: str) -> None:
    class_folders(tmp_path, folders)

    assert text in only_complaint(checked(tmp_path, Task.CLASSIFY, labels))


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val", "tuning"])
def test_folders_named_like_splits_are_never_labels(tmp_path: Path, validation: str) -> None:
    split_folders(tmp_path, ["train", validation, "test"])

    report = checked(tmp_path, Task.CLASSIFY)

    assert report.complaints == ()
    assert images_by_split(report) == {"train": 12, "calibration": 12, "tuning": 12, "test": 12}
    assert {split.name: split.source for split in report.splits}["calibration"] == "train"


def test_without_a_test_split_validation_is_divided(tmp_path: Path) -> None:
    split_folders(tmp_path, ["train", "val"], each=16)

    report = checked(tmp_path, Task.CLASSIFY)

    found = images_by_split(report)
    assert report.complaints == ()
    assert found["tuning"] + found["test"] == 48
    assert min(found["tuning"], found["test"]) > 10


def test_tuning_drawn_from_train_leaves_other_pictures_to_calibrate(tmp_path: Path) -> None:
    split_folders(tmp_path, ["train", "test"], each=16)

    report = checked(tmp_path, Task.CLASSIFY)

    found = images_by_split(report)
    assert report.complaints == ()
    assert found["tuning"] + found["train"] == found["test"] == 48
    assert found["calibration"] == found["train"]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["train"], "has only train: add a folder `test`"),
        (["val", "validation", "test"], "which name one split: keep one of them"),
        (["calibration", "test"], "lacks `tuning` and has no `train`"),
    ],
)
def test_splits_that_leave_nothing_to_measure_are_refused(tmp_path: Path, names: list[str], text: str) -> None:
    split_folders(tmp_path, names)

    complaint = only_complaint(checked(tmp_path, Task.CLASSIFY))

    assert text in complaint
    assert str(tmp_path) in complaint


def test_a_label_called_train_stays_a_label(tmp_path: Path) -> None:
    class_folders(tmp_path, ["bus", "train"], each=20)

    report = checked(tmp_path, Task.CLASSIFY, ["bus", "train"])

    assert report.complaints == ()
    assert sum(images_by_split(report).values()) == 40


def test_junk_directories_and_dead_links_are_skipped_and_counted(tmp_path: Path) -> None:
    class_folders(tmp_path)
    save(tmp_path / "red" / "._0.png", b"\x00\x05\x16\x07")
    save(tmp_path / "red" / ".DS_Store", b"\x00")
    save(tmp_path / "red" / "Thumbs.db", b"\x00")
    save(tmp_path / "__MACOSX" / "red" / "0.png", b"\x00")
    save(tmp_path / ".ipynb_checkpoints" / "0.png", b"\x00")
    save(tmp_path / "green" / "notes.txt", b"a note")
    (tmp_path / "blue" / "dead.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "blue" / "folder.png").mkdir()
    (tmp_path / "blue" / "circle").symlink_to(tmp_path / "blue")

    report = checked(tmp_path, Task.CLASSIFY)

    assert report.complaints == ()
    assert sum(images_by_split(report).values()) == 24
    said = "\n".join(report.skipped)
    assert "5 skipped, left by a tool" in said
    assert f"1 skipped, a link to nothing: {tmp_path}/blue/dead.png" in said
    assert f"1 skipped, not JPEG, PNG, WebP or BMP by its name: {tmp_path}/green/notes.txt" in said


def test_a_damaged_picture_is_named_with_the_servers_reason(tmp_path: Path) -> None:
    paths = class_folders(tmp_path)
    paths[5].write_bytes(paths[5].read_bytes()[:200])
    save(tmp_path / "red" / "empty.jpg", b"")

    complaint = only_complaint(checked(tmp_path, Task.CLASSIFY))

    assert "would be refused when served" in complaint
    assert complaint.endswith("(1 more like it)")
    assert str(paths[5]) in complaint or "empty.jpg" in complaint


def test_a_test_split_of_one_label_is_refused_and_an_absent_label_is_said(tmp_path: Path) -> None:
    split_folders(tmp_path / "one", ["train", "val"])
    class_folders(tmp_path / "one" / "test", ["red"], each=4, first_seed=9000)
    split_folders(tmp_path / "two", ["train", "val"])
    class_folders(tmp_path / "two" / "test", ["red", "blue"], each=4, first_seed=9000)

    assert "split 'test' (test) shows only 'red'" in only_complaint(checked(tmp_path / "one", Task.CLASSIFY))
    two = checked(tmp_path / "two", Task.CLASSIFY)
    assert two.complaints == ()
    assert "split 'test' never shows green: nothing is measured of them" in two.notes


def test_limits_of_the_recipe_bound_what_is_read(tmp_path: Path) -> None:
    split_folders(tmp_path, ["train", "val", "test"], each=8)

    report = checked(tmp_path, Task.CLASSIFY, max_images={"train": 9, "calibration": 5, "test": 7})

    assert images_by_split(report) == {"train": 9, "calibration": 5, "tuning": 24, "test": 7}


def test_pictures_beside_the_labels_folders_are_said(tmp_path: Path) -> None:
    class_folders(tmp_path)
    stray = save(tmp_path / "stray.png", encoded(picture(77)))

    assert f"1 skipped, in no label's folder: {stray}" in checked(tmp_path, Task.CLASSIFY, LABELS).skipped


def test_too_few_pictures_to_calibrate_are_said_before_anything_is_converted(tmp_path: Path) -> None:
    split_folders(tmp_path, each=4)

    notes = checked(tmp_path, Task.CLASSIFY).notes

    assert any("int8-cpu will be refused: calibration has 12 pictures and 32 are asked for" in note for note in notes)


def test_names_that_are_no_text_are_read_and_printed(tmp_path: Path) -> None:
    class_folders(tmp_path)
    folder = os.fsencode(tmp_path / "red")
    Path(os.fsdecode(folder + b"/good\xff.png")).write_bytes(encoded(picture(501)))
    Path(os.fsdecode(folder + b"/bad\xff.png")).write_bytes(b"nothing")

    report = checked(tmp_path, Task.CLASSIFY)

    assert "bad\\udcff.png would be refused when served" in only_complaint(report)
    assert report.model_validate_json(report.model_dump_json()) == report


def test_links_that_lead_in_a_circle_or_nowhere_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    split_folders(root)
    (root / "test" / "red" / "up").symlink_to("..")
    (root / "test" / "again").symlink_to(root)
    (root / "test" / "itself").symlink_to("itself")
    (root / "gone").symlink_to("nowhere")

    report = checked(root, Task.CLASSIFY)

    assert report.complaints == ()
    assert images_by_split(report) == {"calibration": 12, "tuning": 12, "test": 12}
    assert sorted(text.partition(":")[0] for text in report.skipped) == [
        "2 skipped, a link in a circle",
        "2 skipped, a link to nothing",
    ]


def test_names_and_labels_reach_no_terminal_as_control_characters(tmp_path: Path) -> None:
    split_folders(tmp_path)
    save(tmp_path / "test" / "red" / "a\x1b[31m\nb\u202e.png", b"no picture")

    complaint = only_complaint(checked(tmp_path, Task.CLASSIFY))

    assert r"a\x1b[31m\nb\u202e.png would be refused" in complaint
    assert complaint.isprintable()
