"""`saccade-export init` on heads that end in a sigmoid. Promises: one label per picture is assumed aloud."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.export.cli.init import NewRecipe, write_recipe
from saccade.export.data.label_tables import LABEL_TABLE
from tests.support.onnx_files import table_file


def written(tmp_path: Path, width: int, end: str, more: str = "", table: str = "") -> NewRecipe:
    data, out = tmp_path / "pictures", tmp_path / "r.yaml"
    data.mkdir()
    if table:
        (data / LABEL_TABLE).write_text(table)
    file = table_file(tmp_path / "n.onnx", {"p": np.linspace(-2, 2, width).astype(np.float32)}, ends={"p": end})
    if more:
        out.write_text(f"source: onnx\nweights: n.onnx\ndata: pictures\n{more}\n")
    return write_recipe(file, None, data, out)


def assumed(new: NewRecipe) -> list[str]:
    return [each.why for each in new.findings if (each.word, each.origin) == ("task.multi_label", "assumed")]


def test_one_label_is_assumed_of_several_sigmoids(tmp_path: Path) -> None:
    new = written(tmp_path, 3, "Sigmoid")

    assert assumed(new) == ["one label per picture; for several write `outputs: {threshold: 0.5}`"]
    assert not new.loaded.recipe.task.multi_label


@pytest.mark.parametrize(("width", "end"), [(3, "Softmax"), (1, "Sigmoid")])
def test_labels_that_compete_are_not_doubted(tmp_path: Path, width: int, end: str) -> None:
    assert assumed(written(tmp_path, width, end)) == []


@pytest.mark.parametrize("more", ["outputs: {threshold: 0.5}", "task: {task: classify}"])
def test_what_the_recipe_says_is_not_assumed(tmp_path: Path, more: str) -> None:
    assert assumed(written(tmp_path, 3, "Sigmoid", more)) == []


def test_what_the_data_says_is_not_assumed(tmp_path: Path) -> None:
    new = written(tmp_path, 3, "Sigmoid", table="filename,cat,dog,owl\na.png,1,0,1\n")

    assert new.loaded.recipe.task.multi_label
    assert assumed(new) == []
