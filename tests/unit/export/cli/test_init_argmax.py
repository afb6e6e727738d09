"""Segmenters that answer class ids. Promises: labels are numbered where the graph tells how many there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from saccade.export.cli.init import write_recipe
from saccade.export.cli.init_argmax import argmax_classes
from saccade.export.errors import RecipeError
from tests.support.onnx_files import table_file


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
    return tmp_path / "pictures"


def segmenter(path: Path, classes: int, *, axis: int = 1, cast: bool = False) -> Path:
    """A 1x1 convolution of the picture, and the number of its largest channel."""
    values = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8]),
        helper.make_tensor_value_info("ids", TensorProto.INT32 if cast else TensorProto.INT64, ["n", 8, 8]),
    ]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [classes, 3, 1, 1], np.linspace(-1, 1, classes * 3).tolist())
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["chosen" if cast else "ids"], axis=axis, keepdims=0),
        *([helper.make_node("Cast", ["chosen"], ["ids"], to=TensorProto.INT32)] if cast else []),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("axis", "cast"), [(1, False), (-3, False), (1, True)])
def test_the_graph_tells_how_many_classes_it_chooses_among(
    tmp_path: Path, pictures: Path, axis: int, cast: bool
) -> None:
    file, out = segmenter(tmp_path / "n.onnx", 5, axis=axis, cast=cast), tmp_path / "r.yaml"

    new = write_recipe(file, None, pictures, out)

    assert new.loaded.recipe.labels == tuple(f"class {index}" for index in range(5))
    assert [each.origin for each in new.findings if each.word == "labels"] == ["assumed"]


def test_names_that_the_user_writes_into_the_line_stay(tmp_path: Path, pictures: Path) -> None:
    file, out = segmenter(tmp_path / "n.onnx", 2), tmp_path / "r.yaml"
    out.write_text(write_recipe(file, None, pictures, out).text.replace("[class 0, class 1]", "[road, car]"))

    new = write_recipe(file, None, pictures, out)

    assert new.loaded.recipe.labels == ("road", "car")
    assert "labels" not in [each.word for each in new.findings]


def test_ids_that_no_graph_explains_still_ask_for_labels(tmp_path: Path, pictures: Path) -> None:
    file = table_file(tmp_path / "n.onnx", {"ids": np.zeros((32, 32), np.int64)})

    assert argmax_classes(file, "ids") is None
    with pytest.raises(RecipeError, match="labels: required"):
        write_recipe(file, None, pictures, tmp_path / "r.yaml")
    assert not (tmp_path / "r.yaml").exists()


def test_masks_tell_how_many_classes_there_are_where_no_graph_does(tmp_path: Path, pictures: Path) -> None:
    file = table_file(tmp_path / "n.onnx", {"ids": np.zeros((32, 32), np.int64)})
    Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(pictures / "images" / "a.jpg")
    Image.fromarray(np.array([[0, 2], [255, 1]], np.uint8)).save(pictures / "masks" / "a.png")

    new = write_recipe(file, None, pictures, tmp_path / "r.yaml")

    assert new.loaded.recipe.labels == ("class 0", "class 1", "class 2")


def test_folders_of_pictures_and_masks_are_no_labels(tmp_path: Path, pictures: Path) -> None:
    scores = np.stack([np.full((32, 32), -1.0), np.full((32, 32), 2.0)]).astype(np.float32)
    file = table_file(tmp_path / "n.onnx", {"scores": scores})

    assert write_recipe(file, None, pictures, tmp_path / "r.yaml").loaded.recipe.labels == ("class 0", "class 1")
