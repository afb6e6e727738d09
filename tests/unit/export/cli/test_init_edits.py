"""A second `init` over lines that the user edited. Promises: what only the user knows stays, all else is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from saccade.export.cli.init import write_recipe
from saccade.export.cli.program import app
from saccade.export.cli.recipe_text import replaced_values
from tests.support.onnx_files import centred_boxes, table_file

SIZE = (64, 64)


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """A file of YOLOv8's rows that says nothing of itself."""
    (tmp_path / "pictures").mkdir()
    table = np.concatenate([centred_boxes(84, SIZE).T, np.full((3, 84), 0.4, np.float32)])
    return table_file(tmp_path / "net.onnx", {"output0": table}, size=SIZE)


def test_suppression_that_the_user_changed_in_the_line_of_init_stays(detector: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    write_recipe(detector, None, tmp_path / "pictures", out)
    edited = out.read_text().replace("iou: 0.7", "iou: 0.5")
    assert edited != out.read_text()
    out.write_text(edited)

    new = write_recipe(detector, None, tmp_path / "pictures", out)
    again = write_recipe(detector, None, tmp_path / "pictures", out)

    for each in (new, again):
        assert yaml.safe_load(each.text)["outputs"]["suppression"] == {"iou": 0.5, "per_class": True}
        assert "source" in each.text
    assert new.edits == ("your `outputs.suppression: {'iou': 0.5, 'per_class': True}` is kept",)


@pytest.mark.parametrize(
    ("key", "value"), [("value_range", [-1.0, 1.0]), ("preprocess", {"fit": "letterbox", "channel_order": "bgr"})]
)
def test_pixels_that_the_user_changed_behind_an_assumption_stay(
    detector: Path, tmp_path: Path, key: str, value: object
) -> None:
    out = tmp_path / "recipe.yaml"
    document = yaml.safe_load(write_recipe(detector, None, tmp_path / "pictures", out).text)
    old = next(row for row in out.read_text().splitlines() if row.startswith(key))
    assert document[key] != value
    out.write_text(out.read_text().replace(old, f"{key}: {value}  # assumed: what it was"))

    new = write_recipe(detector, None, tmp_path / "pictures", out)

    assert yaml.safe_load(new.text)[key] == value
    assert new.edits == (f"your `{key}: {value}` is kept",)


def test_what_the_file_shows_is_written_again_and_said(detector: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    first = write_recipe(detector, None, tmp_path / "pictures", out).text
    out.write_text(first.replace("units: pixels", "units: relative"))
    assert out.read_text() != first

    arguments = ["init", str(detector), "--data", str(tmp_path / "pictures"), "--out", str(out), "--no-measure"]
    result = CliRunner().invoke(app, arguments)

    assert out.read_text() == first
    (said,) = [row for row in result.stdout.splitlines() if row.startswith("# your edits")]
    assert "units: relative" in said
    assert "became outputs: {" in said
    assert "remove that comment to keep your own" in said


def test_nothing_is_said_of_lines_that_nobody_changed(detector: Path, tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    write_recipe(detector, None, tmp_path / "pictures", out)

    assert write_recipe(detector, None, tmp_path / "pictures", out).edits == ()
    assert replaced_values("labels: [a]  # found in the data\n", "labels: [a]\n") == ()
