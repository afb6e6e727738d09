"""How pictures are fitted where an ONNX file says nothing. Promises: rows of the YOLO family lie on a letterbox."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from saccade.export.cli.init import write_recipe
from saccade.export.errors import SourceError
from tests.support.onnx_files import centred_boxes, corners_of, table_file

SIZE = (64, 64)
LABELS = ("cat", "dog", "owl")
CLASSES = len(LABELS)
RNG = np.random.default_rng(0)
BOXES = centred_boxes(84, SIZE)
SCORES = RNG.uniform(0, 1, (84, CLASSES)).astype(np.float32)
PAIRED = np.concatenate([corners_of(BOXES)[:20], SCORES[:20, :1], np.arange(20)[:, None] % CLASSES], 1)
TABLES = {
    "yolov8": {"output0": np.concatenate([BOXES, SCORES], 1).T},
    "end2end": {"output0": PAIRED.astype(np.float32)},
    "boxes": {"boxes": corners_of(BOXES)[:40], "scores": SCORES[:40]},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for index in range(3):
        Image.new("RGB", (40, 30), (index * 90, 90, 20)).save(tmp_path / "data" / f"{index}.png")
    categories = ", ".join(f'{{"id": {index + 1}, "name": "{name}"}}' for index, name in enumerate(LABELS))
    boxes = ", ".join(f'{{"image_id": 1, "category_id": {each}, "bbox": [1, 1, 9, 9]}}' for each in (1, 2, 3))
    images = '{"id": 1, "file_name": "0.png"}'
    text = f'{{"images": [{images}], "annotations": [{boxes}], "categories": [{categories}]}}'
    (tmp_path / "data" / "annotations.json").write_text(text)
    return tmp_path / "data"


@pytest.mark.parametrize(("layout", "fit"), [("yolov8", "letterbox"), ("end2end", "letterbox"), ("boxes", "stretch")])
def test_the_yolo_family_is_assumed_to_be_run_on_a_letterbox(tmp_path: Path, data: Path, layout: str, fit: str) -> None:
    file = table_file(tmp_path / "net.onnx", TABLES[layout], size=SIZE)

    new = write_recipe(file, None, data, tmp_path / "recipe.yaml")

    assert yaml.safe_load(new.text)["outputs"]["layout"] == layout
    assert new.loaded.recipe.preprocess.fit == fit
    assert new.loaded.recipe.preprocess.antialias == (fit == "stretch")
    (row,) = [each for each in new.findings if each.word == "preprocess"]
    assert row.origin == "assumed"
    assert new.loaded.recipe.labels == LABELS


def test_class_numbers_that_the_names_of_the_data_do_not_reach_are_refused(tmp_path: Path, data: Path) -> None:
    table = TABLES["end2end"]["output0"] + np.array([0, 0, 0, 0, 0, 1], np.float32)
    file = table_file(tmp_path / "net.onnx", {"output0": table}, size=SIZE)

    with pytest.raises(SourceError, match=r"answers class 3, and there are 3 labels; if .* begin with 1") as refused:
        write_recipe(file, None, data, tmp_path / "recipe.yaml")
    assert not (tmp_path / "recipe.yaml").exists()

    (tmp_path / "recipe.yaml").write_text(refused.value.__notes__[0].partition("\n")[2])
    new = write_recipe(file, None, data, tmp_path / "recipe.yaml")
    assert new.loaded.recipe.labels == ("unused", *LABELS)
