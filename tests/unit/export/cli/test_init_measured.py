"""What measuring writes into a recipe. Promises: clear readings stand in the line that was assumed, with figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from saccade.export.cli.init import write_recipe
from saccade.export.cli.init_measured import with_readings
from saccade.export.errors import SourceError
from saccade.export.qualification.readings import Measured
from saccade.models.contract.specs import Normalisation
from tests.support.onnx_files import table_file

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for index, label in enumerate(("cat", "dog", "owl")):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("RGB", (9, 9), (index * 90, 20, 20)).save(tmp_path / "data" / label / "1.png")
    return tmp_path / "data"


def scores(path: Path, classes: int) -> Path:
    return table_file(path, {"output": np.linspace(-2, 2, classes).astype(np.float32)})


def test_clear_readings_replace_what_was_assumed(tmp_path: Path, folders: Path) -> None:
    new = write_recipe(scores(tmp_path / "n.onnx", 3), None, folders, tmp_path / "r.yaml")
    recipe = new.loaded.recipe
    better = recipe.model_copy(
        update={
            "normalisation": IMAGENET,
            "preprocess": recipe.preprocess.model_copy(update={"fit": "letterbox"}),
        }
    )
    figures = [
        Measured("value_range", (("ImageNet", 0.9), ("[0, 1]", 0.4)), is_clear=True),
        Measured("channel_order", (("rgb", 0.9), ("bgr", 0.88)), is_clear=False),
        Measured("fit", (("letterbox", 0.9), ("stretch", 0.3)), is_clear=True),
    ]

    readings = with_readings(better, new.text, new.findings, figures)

    document = yaml.safe_load(readings.text)
    assert document["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert "value_range" not in document
    assert document["preprocess"] == {"fit": "letterbox", "channel_order": "rgb"}
    assert "# found by measuring: fit letterbox 0.90, stretch 0.30; assumed: channel_order\n" in readings.text
    assert {each.word for each in readings.findings if each.origin == "assumed"} == {"task"}
    assert "fit: found by measuring: letterbox 0.90, stretch 0.30" in readings.sentences


def test_another_number_of_classes_is_said_where_folders_are_fine(tmp_path: Path, folders: Path) -> None:
    new = write_recipe(scores(tmp_path / "n.onnx", 4), None, folders, tmp_path / "r.yaml")

    assert "data has 3 classes (cat, dog, owl), and n.onnx 4 (class 0, class 1, class 2, …)" in new.hint


def test_many_raw_numbers_beside_few_folders_may_be_features(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(SourceError, match=r"64 raw numbers, and the data has 3 classes .* may be an embedding"):
        write_recipe(scores(tmp_path / "n.onnx", 64), None, folders, tmp_path / "r.yaml")

    assert not (tmp_path / "r.yaml").exists()
