"""Refusals of `init` that ask for words. Promises: a whole recipe comes with them, and it is one that `init` takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.export.cli.init import write_recipe
from saccade.export.cli.init_asked import asked_lines
from saccade.export.errors import RecipeError, SourceError
from tests.support.onnx_files import table_file


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def test_the_recipe_below_a_refusal_is_one_that_init_takes(tmp_path: Path, pictures: Path) -> None:
    file, out = table_file(tmp_path / "net.onnx", {"logit": np.array([-3.0], np.float32)}), tmp_path / "r.yaml"

    with pytest.raises(SourceError, match="one raw number") as refused:
        write_recipe(file, None, pictures, out)
    (note,) = refused.value.__notes__
    assert note.startswith(f"write this to {out}, then run the same command again:\n")
    assert not out.exists()

    out.write_text(note.partition("\n")[2])
    assert out.read_text() == (
        "source: onnx\nweights: net.onnx\ndata: pictures\n"
        "# only if this number is a score of the second of two classes; an amount, such as an age, or an embedding is "
        "not served:\noutputs: {scores: sigmoid}"
    )
    assert write_recipe(file, None, pictures, out).loaded.recipe.labels == ("class 0", "class 1")


def test_a_choice_of_layouts_names_all_of_them_and_the_labels(tmp_path: Path, pictures: Path) -> None:
    rows = np.random.default_rng(0).uniform(0, 1, (40, 8)).astype(np.float32)
    file = table_file(tmp_path / "net.onnx", {"out": rows}, size=(64, 64))

    lines = asked_lines(file, pictures, "source: onnx\n", "no grid; write outputs.layout if its rows are boxes")

    assert "outputs: {layout: ...}  # one of yolov5, yolov8" in lines[0]
    assert "# labels: [first, second]" in lines[0]
    (tmp_path / "r.yaml").write_text(f"source: onnx\nweights: net.onnx\ndata: pictures\n{lines[0]}")
    assert lines[0].startswith("# only if its rows are boxes:\n")
    with pytest.raises(RecipeError, match="'yolov5', 'yolov8'"):
        write_recipe(file, None, pictures, tmp_path / "r.yaml")


def test_a_refusal_that_no_word_mends_comes_alone(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")

    with pytest.raises(SourceError, match="no graph") as refused:
        write_recipe(tmp_path / "net.onnx", None, pictures, tmp_path / "r.yaml")

    assert not hasattr(refused.value, "__notes__")


def test_a_user_s_recipe_gets_the_word_alone(tmp_path: Path, pictures: Path) -> None:
    file, out = table_file(tmp_path / "net.onnx", {"logit": np.array([-3.0], np.float32)}), tmp_path / "r.yaml"
    out.write_text("source: onnx\nweights: net.onnx\ndata: pictures\n")

    with pytest.raises(SourceError, match="one raw number") as refused:
        write_recipe(file, None, pictures, out)

    assert not hasattr(refused.value, "__notes__")


@pytest.mark.parametrize(
    ("name", "shape", "condition"),
    [
        ("age", (1,), "# only if these numbers are scores of classes; an amount, such as an age, "),
        ("depth", (1, 32, 32), "# only if it makes a picture or a depth of each picture"),
    ],
)
def test_lines_to_paste_say_on_what_they_depend(
    tmp_path: Path, pictures: Path, name: str, shape: tuple[int, ...], condition: str
) -> None:
    file = table_file(tmp_path / "net.onnx", {name: np.full(shape, 0.4, np.float32)})

    with pytest.raises(SourceError, match="only if its numbers are scores of classes") as refused:
        write_recipe(file, None, pictures, tmp_path / "r.yaml")

    rows = refused.value.__notes__[0].splitlines()
    (task,) = (index for index, row in enumerate(rows) if row.startswith("task: "))
    assert rows[task - 1].startswith(condition)
