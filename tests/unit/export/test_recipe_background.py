"""Labels that name no thing. Promises: a detector's recipe cannot have one; a file's own class numbers may skip 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from saccade.export.errors import RecipeError
from saccade.export.recipe import load_recipe
from tests.support.onnx_files import centred_boxes, corners_of, table_file

SIZE = (64, 32)  # width, height
ROWS = 42
SCORES = np.random.default_rng(1).uniform(0.05, 0.95, (ROWS, 3)).astype(np.float32)
BOXES = centred_boxes(ROWS, SIZE)


def recipe(folder: Path, labels: list[str], tables: dict[str, Any]) -> Path:
    table_file(folder / "net.onnx", tables, size=SIZE)
    document = {"source": "onnx", "weights": "net.onnx", "data": "pictures", "labels": labels}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    return folder / "recipe.yaml"


@pytest.mark.parametrize(
    "labels",
    [
        ["Background", "a", "b"],
        ["__background__", "a", "b"],
        ["a", "b", "no object"],
        ["a", "b", "None"],
    ],
)
def test_a_label_of_a_detector_for_no_thing_is_refused(tmp_path: Path, labels: list[str]) -> None:
    path = recipe(tmp_path, labels, {"scores": SCORES, "boxes": corners_of(BOXES)})

    with pytest.raises(RecipeError, match=r"labels\.[02] is .*, which no detector answers: leave it out of `labels`"):
        load_recipe(path)


def test_it_may_stand_for_the_class_0_that_a_file_never_answers(tmp_path: Path) -> None:
    ids = 1 + np.arange(ROWS, dtype=np.int64) % 2
    tables = {"boxes": corners_of(BOXES), "labels": ids, "scores": SCORES[:, 0]}

    assert load_recipe(recipe(tmp_path, ["__background__", "a", "b"], tables)).recipe.labels[1] == "a"


def test_a_class_between_others_may_have_any_name(tmp_path: Path) -> None:
    path = recipe(tmp_path, ["a", "none", "b"], {"scores": SCORES, "boxes": corners_of(BOXES)})

    assert load_recipe(path).recipe.labels[1] == "none"
