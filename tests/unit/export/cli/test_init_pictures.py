"""`saccade-export init` for ONNX files that make pictures. Promises: ranges are tried, and words of `data` stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from saccade.export.cli.init import NewRecipe, summary, write_recipe
from saccade.export.errors import RecipeError, SourceError

SIDE = 32
TASK = "task: {task: image, picture: rgb}\n"


def network(path: Path, **changed: float) -> Path:
    """Pixels cut to low and high, times `factor`, plus `whole` times the picture's mean, plus an offset."""
    numbers = {"low": -999.0, "high": 999.0, "factor": 1.0, "whole": 0.0, "offset": 0.0, **changed}
    nodes = [
        helper.make_node("Clip", ["images", "low", "high"], ["cut"]),
        helper.make_node("Mul", ["cut", "factor"], ["near"]),
        helper.make_node("GlobalAveragePool", ["cut"], ["mean"]),
        helper.make_node("Mul", ["mean", "whole"], ["far"]),
        helper.make_node("Add", ["near", "far"], ["seen"]),
        helper.make_node("Add", ["seen", "offset"], ["out"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, SIDE, SIDE]) for n in ("images", "out")]
    constants = [numpy_helper.from_array(np.float32(number), name) for name, number in numbers.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("calibration", "tuning", "test"):
        (tmp_path / "clean" / split).mkdir(parents=True)
        for index in range(3):
            pixels = np.kron(rng.integers(0, 256, (6, 6, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            Image.fromarray(pixels).save(tmp_path / "clean" / split / f"{index}.png")
    return tmp_path / "clean"


def updated(file: Path, clean: Path, data: str = "data: {path: clean, noise: 10}\n", task: str = TASK) -> NewRecipe:
    out = clean.parent / "recipe.yaml"
    out.write_text(f"source: onnx\nweights: {file.name}\n{data}{task}")
    return write_recipe(file, None, clean, out)


def test_the_range_with_the_nearest_answers_is_taken_and_listed(tmp_path: Path, clean: Path) -> None:
    new = updated(network(tmp_path / "net.onnx", low=4.0, high=250.0), clean)

    assert "value_range: [0.0, 255.0]  # assumed: clearly the best by mean distance" in new.text
    assert new.loaded.recipe.task.values == (0.0, 255.0)
    assert {(each.word, each.value) for each in new.findings if each.origin == "assumed"} >= {
        ("value_range", "[0.0, 255.0]"),
        ("task.values", "[0.0, 255.0]"),
    }


def test_readings_that_are_alike_leave_the_usual_range_assumed(tmp_path: Path, clean: Path) -> None:
    new = updated(network(tmp_path / "net.onnx"), clean)

    assert "value_range: [0.0, 1.0]  # assumed: not clearly the best" in new.text


def test_where_none_is_clearly_the_best_the_words_are_asked_for(tmp_path: Path, clean: Path) -> None:
    file = network(tmp_path / "net.onnx", factor=0.0, whole=1.0, offset=0.24)  # grey for two of them

    with pytest.raises(SourceError, match=r"no usual range is clearly the best.*write `value_range: \[low, high\]`"):
        updated(file, clean)


def test_values_of_the_recipe_are_kept_while_ranges_of_pixels_are_tried(tmp_path: Path, clean: Path) -> None:
    file = network(tmp_path / "net.onnx", low=4.0, high=250.0, factor=1 / 255)

    new = updated(file, clean, task="task: {task: image, picture: rgb, values: [0, 1]}\n")

    assert new.loaded.recipe.normalisation.std[0] == pytest.approx(1 / 255)
    assert new.loaded.recipe.task.values == (0.0, 1.0)


def test_what_data_says_beside_its_path_is_kept(tmp_path: Path, clean: Path) -> None:
    file = network(tmp_path / "net.onnx")

    new = updated(file, clean, "data: {path: elsewhere, noise: 10, limits: {max_near: 0.2}}\n")

    assert yaml.safe_load(new.text)["data"] == {"path": "clean", "noise": 10, "limits": {"max_near": 0.2}}
    assert new.hint == ""


def test_a_section_of_the_same_folder_stays_as_it_is_written(tmp_path: Path, clean: Path) -> None:
    section = "data:\n  path: ./clean  # of one camera\n  noise: 10\n"

    assert section in updated(network(tmp_path / "net.onnx"), clean, section).text


def test_faulty_values_are_named(tmp_path: Path, clean: Path) -> None:
    with pytest.raises(RecipeError, match="values must ascend"):
        updated(network(tmp_path / "net.onnx"), clean, task="task: {task: image, picture: rgb, values: [1, 0]}\n")


def test_clean_pictures_alone_are_told_of_noise_and_of_pairs(tmp_path: Path, clean: Path) -> None:
    new = updated(network(tmp_path / "net.onnx"), clean, "data: clean\n")

    assert "answers from the pictures themselves, which were sent with noise of 25 levels: " in new.text
    assert summary(new.loaded)["answer"] == "rgb"
    assert "labels" not in summary(new.loaded)
    assert "data: {path: clean, noise: 25}" in new.hint
    assert f"{clean}/input/NAME.png and {clean}/target/NAME.png" in new.hint


def test_a_network_that_sees_far_is_said_to_have_pictures_resized(tmp_path: Path, clean: Path) -> None:
    new = updated(network(tmp_path / "net.onnx", whole=0.2), clean)

    (row,) = (each for each in new.findings if each.word == "preprocess")
    assert row.why.startswith("pictures are resized to 32x32, because far pixels are seen: ")
    assert "# assumed: pictures are resized to 32x32" in new.text
