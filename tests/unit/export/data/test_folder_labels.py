"""Labels of an embedder. Promises: the folders' names, of all splits, and a word where there is no folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.export.data.folder_labels import UNLABELLED, labels_of_folders


def folders(root: Path, *names: str) -> None:
    for name in names:
        (root / "pictures" / name).mkdir(parents=True)


@pytest.mark.parametrize("data", ["pictures", {"path": "pictures"}])
def test_a_set_has_its_folders_names_in_order(tmp_path: Path, data: object) -> None:
    folders(tmp_path, "dog", "cat", ".cache")

    assert labels_of_folders(data, tmp_path) == ("cat", "dog")


def test_splits_are_no_labels_and_may_show_other_ones(tmp_path: Path) -> None:
    folders(tmp_path, "test/dog", "test/cat", "train/owl", "Val/cat")

    assert labels_of_folders("pictures", tmp_path) == ("cat", "dog", "owl")


def test_pictures_in_no_folder_have_no_label(tmp_path: Path) -> None:
    folders(tmp_path, "test")

    assert labels_of_folders("pictures", tmp_path) == UNLABELLED


@pytest.mark.parametrize("data", [None, 3, {"dataset": "other"}, "absent", ["pictures"]])
def test_what_is_no_folder_is_left_to_the_recipe_s_own_checks(tmp_path: Path, data: object) -> None:
    assert labels_of_folders(data, tmp_path) is None


def test_generated_digits_have_their_names(tmp_path: Path) -> None:
    assert labels_of_folders({"dataset": "digit_scenes"}, tmp_path) == tuple("0123456789")
