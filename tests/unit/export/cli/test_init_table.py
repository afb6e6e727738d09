"""The table of `init`. Promises: each word of the recipe's line has a row, and guesses are rows of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from saccade.export.cli.init import NewRecipe, write_recipe
from tests.support.onnx_files import centred_boxes, corners_of, table_file, ultralytics

SIZE = (64, 64)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def rows_of(new: NewRecipe) -> dict[str, tuple[str, str]]:
    return {each.word: (each.value, each.origin) for each in new.findings}


def test_words_that_follow_from_the_layout_have_rows(tmp_path: Path, pictures: Path) -> None:
    table = np.concatenate([corners_of(centred_boxes(20, SIZE)), np.full((20, 1), 0.5), np.arange(20)[:, None] % 2], 1)
    file = table_file(
        tmp_path / "n.onnx", {"out": table.astype(np.float32)}, size=SIZE, metadata=ultralytics(2, SIZE, end2end="True")
    )

    new = write_recipe(file, None, pictures, tmp_path / "r.yaml")

    rows = rows_of(new)
    assert rows["outputs.suppression"] == ("none", "said")
    assert rows["outputs.boxes"] == ("xyxy", "said")
    assert {f"outputs.{word}" for word in yaml.safe_load(new.text)["outputs"]} <= rows.keys()


def test_the_line_says_which_of_its_words_were_found(tmp_path: Path, pictures: Path) -> None:
    table = np.concatenate([centred_boxes(84, SIZE).T, np.full((2, 84), 0.4, np.float32)])
    file = table_file(tmp_path / "n.onnx", {"output0": table}, size=SIZE, metadata=ultralytics(2, SIZE))

    new = write_recipe(file, None, pictures, tmp_path / "r.yaml")

    (line,) = [row for row in new.text.splitlines() if row.startswith("outputs:")]
    found = [word for word, (_, origin) in rows_of(new).items() if word.startswith("outputs.") and origin == "found"]
    assert found
    said = ", ".join(word.removeprefix("outputs.") for word in found)
    assert line.endswith(f"# found by running it: {said}; said by the file: the rest")
    assert "layout" not in said
    assert "suppression" not in said


def test_numbered_labels_are_assumed(tmp_path: Path, pictures: Path) -> None:
    file = table_file(tmp_path / "n.onnx", {"p": np.array([-1.0, 3.0, 0.0], np.float32)})

    nameless = write_recipe(file, None, pictures, tmp_path / "1.yaml")
    for label in ("cat", "dog", "owl"):
        (pictures / label).mkdir()
    named = write_recipe(file, None, pictures, tmp_path / "2.yaml")

    assert rows_of(nameless)["labels"] == ("class 0, class 1, class 2", "assumed")
    assert "labels" not in rows_of(named)
    assert named.loaded.recipe.labels == ("cat", "dog", "owl")
