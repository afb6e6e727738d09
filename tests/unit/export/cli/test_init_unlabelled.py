"""`saccade-export init --unlabelled`. Promises: nobody judges the answers only where the user says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from saccade.export.cli.init import write_recipe
from saccade.export.cli.program import app
from saccade.export.data.datasets import DataStore
from saccade.export.errors import DataRefused, RecipeError
from tests.support.onnx_files import centred_boxes, table_file, ultralytics

SIZE = (64, 64)


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for index in range(9):
        Image.new("RGB", (40 + index, 30), (index * 20, 90, 20)).save(tmp_path / "pictures" / f"{index}.png")
    rows = centred_boxes(84, SIZE).T
    table = np.concatenate([rows, np.random.default_rng(0).uniform(0, 1, (2, 84)).astype(np.float32)])
    return table_file(tmp_path / "net.onnx", {"output0": table}, size=SIZE, metadata=ultralytics(2, SIZE))


def test_pictures_without_labels_are_taken_when_the_user_says_so(detector: Path, tmp_path: Path) -> None:
    new = write_recipe(detector, None, tmp_path / "pictures", tmp_path / "recipe.yaml", is_unlabelled=True)

    assert yaml.safe_load(new.text)["gate"] == {"mode": "parity"}
    assert len(DataStore().split(new.loaded, "test").images)


def test_otherwise_they_are_refused_with_what_to_write(detector: Path, tmp_path: Path) -> None:
    new = write_recipe(detector, None, tmp_path / "pictures", tmp_path / "recipe.yaml")

    assert "gate" not in yaml.safe_load(new.text)
    with pytest.raises(DataRefused, match="init --unlabelled"):
        DataStore().split(new.loaded, "test")


def test_it_stays_when_the_recipe_is_updated(detector: Path, tmp_path: Path) -> None:
    write_recipe(detector, None, tmp_path / "pictures", tmp_path / "recipe.yaml", is_unlabelled=True)

    again = write_recipe(detector, None, tmp_path / "pictures", tmp_path / "recipe.yaml")

    assert again.loaded.recipe.gate.mode == "parity"


def test_a_gate_of_the_users_own_is_not_overruled(detector: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    before = write_recipe(detector, None, tmp_path / "pictures", recipe).text + "gate: {max_metric_drop: 0.02}\n"
    recipe.write_text(before)

    with pytest.raises(RecipeError, match="has a `gate` of its own"):
        write_recipe(detector, None, tmp_path / "pictures", recipe, is_unlabelled=True)
    assert recipe.read_text() == before


def test_the_next_step_of_pictures_without_labels_is_to_say_so(detector: Path, tmp_path: Path) -> None:
    out, data = str(tmp_path / "recipe.yaml"), str(tmp_path / "pictures")
    command = ["init", str(detector), "--data", data, "--out", out]

    before = CliRunner().invoke(app, command).stdout
    after = CliRunner().invoke(app, [*command, "--unlabelled", "--no-measure"]).stdout

    assert f"or take it as it is: saccade-export {' '.join(command)} --unlabelled" in before
    assert "next: saccade-export check" not in before
    assert "# proposed       nothing: that needs labels" in before
    assert "next: saccade-export check" in after
