"""Slices of data. Promises: every row means one picture or is named; a picture without a tag is in no other slice."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.export.data.data_step import files_digest
from saccade.models.contract.specs import Task
from tests.support.data_folders import (
    checked,
    class_folders,
    coco_folder,
    encoded,
    mask_folders,
    only_complaint,
    picture,
    recipe_of,
    save,
    split_folders,
)

_ALL = {"max_shared": 1.0, "max_near": 1.0, "max_empty": 1.0}
_FEW = {"min_test_images": 1}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve test pictures: `<label>/<0..3>.png`."""
    split_folders(tmp_path / "data")
    return tmp_path / "data"


def table(root: Path, *lines: str) -> str:
    save(root.parent / "tags.csv", "\n".join(lines).encode())
    return "tags.csv"


def test_each_column_divides_the_test_pictures(root: Path) -> None:
    rows = [
        f"test/{label}/{number}.png,{'north' if number else 'south'},day"
        for label in ("red", "green", "blue")
        for number in range(4)
    ]
    slices = table(root, "file,camera,light", *rows)

    report = checked(root, Task.CLASSIFY, gate=_FEW, slices=slices)

    assert report.complaints == ()
    assert {name: len(found) for name, found in report.slices.items()} == {
        "light=day": 12,
        "camera=north": 9,
        "camera=south": 3,
    }
    assert sorted(report.slices["camera=north"] + report.slices["camera=south"]) == list(range(12))


def test_rows_follow_the_pictures_that_a_run_uses(root: Path) -> None:
    slices = table(root, "file;camera", "test/red/0.png;north", "./test/red/1.png;", "test\\red\\2.png;south")

    every = checked(root, Task.CLASSIFY, gate=_FEW, slices=slices)
    some = checked(root, Task.CLASSIFY, gate=_FEW, slices=slices, max_images={"test": 5})

    assert {name: len(rows) for name, rows in every.slices.items()} == {
        "camera=untagged": 10,
        "camera=north": 1,
        "camera=south": 1,
    }
    assert sum(len(rows) for rows in some.slices.values()) == 5
    assert {row for rows in some.slices.values() for row in rows} == set(range(5))


def test_an_end_of_a_path_is_enough_where_it_means_one_picture(tmp_path: Path) -> None:
    root = tmp_path / "data"
    coco_folder(root, 40)
    slices = table(root, "file,camera", *(f"{number}.png,{number % 2}" for number in range(40)))

    report = checked(root, Task.DETECT, gate=_FEW, slices=slices)

    assert report.complaints == ()
    assert set(report.slices) == {"camera=0", "camera=1"}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["file,camera", "test/red/9.png,north"], "line 2: 'test/red/9.png' names no picture"),
        (["file,camera", "red/0.png,north"], "line 2: 'red/0.png' names 3 pictures: write more of the path, as "),
        (["file,camera", "test/red/0.png,a", "test/red/0.png,b"], "line 3: 'test/red/0.png' is there twice"),
        (["file,camera", "test/red/0.png,a,b"], "line 2 has 3 values and the head 2"),
        (["file,camera,camera", "test/red/0.png,a,b"], "has the column 'camera' twice"),
        (["file,camera,", "test/red/0.png,a,b"], "column 3 of its head has no name"),
        (["file,camera"], "data.slices tells no test pictures apart: all 12 are in camera=untagged"),
        (["file,camera", "tuning/red/0.png,north"], "tells no test pictures apart: all 12 are in camera=untagged"),
        (["test/red/0.png,north", "test/red/1.png,south"], "has no head, its first line names the picture 'test/red/0"),
        (["0009.JPG,north", "test/red/1.png,south"], "has no head, its first line names the picture '0009.JPG'"),
        (["file,Camera,camera", "test/red/0.png,a,b"], "differ only in case, 'Camera' and 'camera'"),
        (["file,camera", "test/red/0.png,a", "test/red/1.png,A"], "differ only in case, 'camera=A' and 'camera=a'"),
        (["file,a=b,a", "test/red/0.png,c,b=c"], "column 'a=b' has a `=`, which stands between column and tag"),
        (["file,camera", "test/red/0.png,a\x1b[31m"], "'camera=a\\x1b[31m' has letters that cannot be shown in one"),
        (["file,cam\x00era", "test/red/0.png,a"], "'cam\\x00era=untagged' has letters that cannot be shown in one"),
        (["file", "test/red/0.png"], "names no tags: begin it with a line `filename, first tag, second tag, ...`"),
        ([""], "names no tags"),
    ],
)
def test_what_is_wrong_with_the_table_is_named(lines: list[str], sentence: str, root: Path) -> None:
    report = checked(root, Task.CLASSIFY, gate=_FEW, slices=table(root, *lines))

    assert sentence in only_complaint(report)


def test_a_table_that_is_not_there_is_named(root: Path) -> None:
    assert "nowhere.csv is no file" in only_complaint(checked(root, Task.CLASSIFY, gate=_FEW, slices="nowhere.csv"))


def test_a_column_of_times_is_no_tag(tmp_path: Path) -> None:
    root = tmp_path / "data"
    class_folders(root, each=40)
    names = [f"{label}/{number}.png" for label in ("red", "green", "blue") for number in range(40)]
    slices = table(root, "file,time", *(f"{name},{place}" for place, name in enumerate(names)))

    report = checked(root, Task.CLASSIFY, gate=_FEW, limits=_ALL, slices=slices)

    assert "column 'time' has 120 values, so it is no tag" in report.complaints[0]


def test_folders_below_split_and_label_are_slices(tmp_path: Path) -> None:
    seeds = iter(range(1000))
    for split in ("calibration", "tuning", "test"):
        for label in ("red", "green", "blue"):
            for place in ("north", "south/roof", "."):
                save(tmp_path / "data" / split / label / place / "a.png", encoded(picture(next(seeds))))

    report = checked(tmp_path / "data", Task.CLASSIFY, gate=_FEW, slices="folders")

    assert {name: len(rows) for name, rows in report.slices.items()} == {
        "folder=north": 3,
        "folder=south": 3,
        "folder=untagged": 3,
    }


def test_folders_named_like_splits_are_slices_and_labels_where_they_are_such(tmp_path: Path) -> None:
    seeds = iter(range(1000))
    for split in ("calibration", "tuning", "test"):
        for label in ("red", "train", "images"):
            for place in ("val", "images", "."):
                save(tmp_path / "data" / split / label / place / "a.png", encoded(picture(next(seeds))))

    report = checked(tmp_path / "data", Task.CLASSIFY, ("red", "train", "images"), gate=_FEW, slices="folders")

    assert {name: len(rows) for name, rows in report.slices.items()} == {
        "folder=images": 3,
        "folder=untagged": 3,
        "folder=val": 3,
    }


def test_without_label_folders_slices_lie_below_the_folder_that_holds_all_pictures(tmp_path: Path) -> None:
    root = tmp_path / "data"
    mask_folders(root, 60)
    for folder in ("images", "masks"):
        for path in sorted((root / folder).iterdir()):
            camera = root / folder / "all" / ("train" if int(path.stem) % 2 else "north") / "day"
            camera.mkdir(parents=True, exist_ok=True)
            path.rename(camera / path.name)

    report = checked(root, Task.SEGMENT, gate=_FEW, slices="folders")

    assert report.complaints == ()
    assert set(report.slices) == {"folder=north", "folder=train"}


def test_folders_that_differ_only_in_case_are_refused(root: Path) -> None:
    for place in ("North", "north"):
        save(root / "test" / "red" / place / "a.png", encoded(picture(5000 + ord(place[0]))))

    report = checked(root, Task.CLASSIFY, gate=_FEW, slices="folders")

    assert "differ only in case, 'folder=" in only_complaint(report)


def test_folders_without_any_slice_are_refused(root: Path) -> None:
    report = checked(root, Task.CLASSIFY, gate=_FEW, slices="folders")

    assert "lies in a folder below those of split and label" in only_complaint(report)


def test_slices_that_are_all_too_small_are_refused_and_some_are_noted(root: Path) -> None:
    rows = [f"test/red/{number}.png,{'north' if number else 'south'}" for number in range(4)]
    slices = table(root, "file,camera", *rows)

    refused = checked(root, Task.CLASSIFY, gate={"min_test_images": 9}, slices=slices)
    noted = checked(root, Task.CLASSIFY, gate={"min_test_images": 3}, slices=slices)

    text = "slices of fewer than 9 test pictures are not judged: camera=untagged 8, camera=north 3, camera=south 1"
    assert only_complaint(refused) == text
    assert noted.complaints == ()
    assert "slices of fewer than 3 test pictures are not judged: camera=south 1" in noted.notes
    assert any("every variant will be denied" in text and "(at least 20)" in text for text in noted.notes)


def test_a_changed_table_is_read_again(root: Path) -> None:
    slices = table(root, "file,camera", "test/red/0.png,north")
    before = files_digest(recipe_of(root, Task.CLASSIFY, slices=slices))
    table(root, "file,camera", "test/red/0.png,south")

    assert files_digest(recipe_of(root, Task.CLASSIFY, slices=slices)) != before


@pytest.mark.parametrize(
    ("data", "gate", "sentence"),
    [
        ({"slices": "tags.csv"}, {"mode": "parity"}, "data.slices cannot be judged"),
        ({}, {"min_slice_metric": 0.5}, "the recipe has none"),
    ],
)
def test_limits_without_slices_and_slices_without_labels_are_refused(
    data: dict[str, str], gate: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipe_of(tmp_path, Task.CLASSIFY, gate=gate, **data)


def test_accents_are_the_same_however_they_are_stored(root: Path) -> None:
    (root / "test" / "red" / "0.png").rename(root / "test" / "red" / "\u00e9.png")
    slices = table(root, "file,camera", "test/red/e\u0301.png,caf\u00e9", "test/red/1.png,cafe\u0301")

    report = checked(root, Task.CLASSIFY, gate=_FEW, slices=slices)

    assert report.complaints == ()
    assert {name: len(rows) for name, rows in report.slices.items()} == {"camera=untagged": 10, "camera=caf\u00e9": 2}
