"""Numbers that have the shape of a served kind. Promises: values say what they mean, or nobody says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from saccade.export.errors import SourceError
from saccade.export.network import NetworkRequest
from saccade.export.sources import load_network, source_facts
from saccade.export.sources.onnx_fits import yolox_grid
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task
from tests.support.network_requests import source_spec
from tests.support.onnx_files import centred_boxes, corners_of, table_file

SIZE = (64, 32)  # width, height
ANCHORS = 42  # of strides 8, 16 and 32
BOXES = centred_boxes(ANCHORS, SIZE)


def numbers(*shape: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float32]:
    return np.random.default_rng(shape).uniform(low, high, shape).astype(np.float32)


def choices(*shape: int) -> NDArray[np.float32]:
    """Probabilities along the last axis."""
    raised = np.exp(numbers(*shape, low=-3.0, high=3.0))
    return (raised / raised.sum(-1, keepdims=True)).astype(np.float32)


def told(
    path: Path,
    outputs: dict[str, Any] | None = None,
    task: Task | None = None,
    labels: int | None = None,
    hint: int | None = None,
) -> Recognition:
    words = FileWords.model_validate({"outputs": outputs or {}})
    return recognised(signs_of(path, words), words, task, labels, hint)


def origin_of(found: Recognition, word: str) -> str:
    return next(each.origin for each in found.findings if each.word == word)


def queries_file(path: Path, scores: NDArray[Any]) -> Path:
    boxes = centred_boxes(len(scores), (1, 1))
    return table_file(path, {"logits": scores, "pred_boxes": boxes}, size=SIZE)


def test_a_softmax_inside_a_network_of_queries_is_not_taken_twice(tmp_path: Path) -> None:
    scores = choices(20, 4)
    path = queries_file(tmp_path / "net.onnx", scores)

    found = told(path, hint=3)

    assert (found.words.outputs.scores, found.labels and len(found.labels)) == ("probabilities", 3)
    spec = source_spec({"kind": "onnx", "outputs": {"scores": "probabilities"}})
    assert source_facts(spec, path).labels is None  # three and 'nothing', or four
    preprocess = PreprocessSpec(width=SIZE[0], height=SIZE[1], fit="stretch")
    network = load_network(NetworkRequest(spec, path, found.task, 3, preprocess, Normalisation()))
    _, best, ids, *_ = network.module(torch.zeros(1, 3, SIZE[1], SIZE[0]))
    np.testing.assert_allclose(best[0].numpy(), scores[:, :3].max(1), rtol=1e-6)
    np.testing.assert_array_equal(ids[0].numpy(), scores[:, :3].argmax(1))


def test_a_sigmoid_inside_a_network_of_queries_is_not_taken_twice(tmp_path: Path) -> None:
    found = told(queries_file(tmp_path / "net.onnx", numbers(20, 4)))

    assert (found.words.outputs.scores, found.labels and len(found.labels)) == ("probabilities", 4)


@pytest.mark.parametrize(
    ("scores", "outputs", "text"),
    [
        (choices(20, 4), {}, "3 and 'nothing', and labels do not tell .* write 3 or 4 `labels`"),
        (choices(20, 4), {"scores": "logits"}, "holds probabilities already .*every row sums to 1"),
        (numbers(20, 4), {"scores": "sigmoid"}, "holds probabilities already .*all values lie in"),
        (numbers(20, 4, low=-3), {}, "write `labels`, or outputs.scores: sigmoid or logits$"),
        (numbers(20, 4, low=-3), {"scores": "probabilities"}, r"values outside of 0\.\.1"),
    ],
)
def test_scores_of_queries_that_contradict_the_word_are_refused(
    tmp_path: Path, scores: NDArray[Any], outputs: dict[str, Any], text: str
) -> None:
    with pytest.raises(SourceError, match=text):
        told(queries_file(tmp_path / "net.onnx", scores), outputs)


def rows_of(*columns: NDArray[Any], turned: bool = False) -> NDArray[Any]:
    table = np.concatenate([BOXES, *columns], 1).astype(np.float32)
    return table if turned else table.T


PLACES = np.tile(BOXES[:, :2] / SIZE, 5) + numbers(ANCHORS, 10, low=-0.02, high=0.02)  # five keypoints in each box
RELATIVE = np.concatenate([BOXES / np.tile(SIZE, 2), numbers(ANCHORS, 1), PLACES], 1).astype(np.float32)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (rows_of(numbers(ANCHORS, 3), numbers(ANCHORS, 1, low=-0.7, high=0.8)), "rotated boxes are not served"),
        (rows_of(choices(ANCHORS, 7)), "sum to 1, so one of them is the background"),
        (rows_of(choices(ANCHORS, 2)), "sum to 1, so one of them is the background"),
        (rows_of(choices(ANCHORS, 8), turned=True), "sum to 1, .* or taken for objectness"),
        (RELATIVE.T, "keypoints are not served"),
    ],
)
def test_what_stands_behind_boxes_and_is_no_class_is_refused(tmp_path: Path, table: NDArray[Any], text: str) -> None:
    with pytest.raises(SourceError, match=text):
        told(table_file(tmp_path / "net.onnx", {"out": table}, size=SIZE))


@pytest.mark.parametrize(
    ("table", "outputs", "classes"),
    [
        (rows_of(choices(ANCHORS, 7)), {"layout": "yolov8", "objectness": False, "scores": "probabilities"}, 7),
        (rows_of(numbers(ANCHORS, 3), numbers(ANCHORS, 1, low=-1)), {"layout": "yolov8", "scores": "sigmoid"}, 4),
    ],
)
def test_the_word_that_a_refusal_names_is_believed(
    tmp_path: Path, table: NDArray[Any], outputs: dict[str, Any], classes: int
) -> None:
    path = table_file(tmp_path / "net.onnx", {"out": table}, size=SIZE)

    assert len(told(path, outputs).labels or ()) == classes
    with pytest.raises(SourceError, match=r"background|rotated"):
        told(path, {"layout": "yolov8"})


def test_the_number_of_classes_is_assumed_where_only_the_shape_gives_it(tmp_path: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"out": rows_of(numbers(ANCHORS, 4))}, size=SIZE)

    assert origin_of(told(path), "classes") == "assumed"
    assert "classes" not in {each.word for each in told(path, labels=4).findings}


def test_a_class_number_behind_a_score_is_no_angle(tmp_path: Path) -> None:
    ids = (np.arange(ANCHORS) % 5).reshape(-1, 1)
    rows = np.concatenate([corners_of(BOXES), numbers(ANCHORS, 1), ids], 1).astype(np.float32)

    assert told(table_file(tmp_path / "net.onnx", {"out": rows}, size=SIZE)).words.outputs.layout == "end2end"


def cell_corners() -> NDArray[np.float32]:
    """Boxes in the cells of a grid, as shares of the picture."""
    cells, strides = yolox_grid(SIZE)
    centred = np.concatenate([(cells + 0.5) * strides, strides * numbers(ANCHORS, 2, low=0.5, high=1.5)], 1)
    return corners_of(centred.astype(np.float32)) / np.tile(np.array(SIZE, np.float32), 2)


@pytest.mark.parametrize(
    ("boxes", "origin"),
    [
        (cell_corners(), "found"),
        (cell_corners()[:, [1, 0, 3, 2]], None),
        (np.array([[20, 4, 62, 30], [8, 8, 40, 20]], np.float32), "found"),  # reaches further than the picture is high
        (np.array([[4, 20, 30, 62], [8, 8, 20, 40]], np.float32), None),
        (np.array([[4, 8, 30, 31], [8, 8, 20, 20]], np.float32), "assumed"),
        (cell_corners()[:5], "assumed"),
    ],
)
def test_whether_x_or_y_comes_first_is_found_by_values_or_assumed(
    tmp_path: Path, boxes: NDArray[Any], origin: str | None
) -> None:
    path = table_file(tmp_path / "net.onnx", {"boxes": boxes, "scores": numbers(len(boxes), 3)}, size=SIZE)

    if origin is None:
        with pytest.raises(SourceError, match="are y1 x1 y2 x2, as TensorFlow orders them"):
            told(path)
        assert told(path, {"boxes": "xyxy"}).words.outputs.boxes == "xyxy"
    else:
        assert origin_of(told(path), "outputs.boxes") == origin


def softmax_file(path: Path, scores: NDArray[Any], axis: int) -> Path:
    """A softmax over one of two dimensions (groups, columns), then both in a row."""
    model = onnx.load(table_file(path, {"out": scores}, size=SIZE))
    model.graph.node[-1].output[0] = "scores"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, scores.size], np.int64), "row"))
    model.graph.node.append(helper.make_node("Softmax", ["scores"], ["choice"], axis=axis))
    model.graph.node.append(helper.make_node("Reshape", ["choice", "row"], ["out"]))
    dims = model.graph.output[0].type.tensor_type.shape.dim
    del dims[2:]
    dims[1].dim_value = scores.size
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_softmax_over_something_else_than_the_classes_is_no_choice(tmp_path: Path, axis: int) -> None:
    path = softmax_file(tmp_path / "net.onnx", numbers(2, 4, low=-3, high=3), axis)

    for outputs in ({}, {"scores": "logits"}):
        with pytest.raises(SourceError, match="ends in Softmax, and its rows do not sum to 1"):
            told(path, outputs)
    assert told(path, {"scores": "probabilities"}).words.outputs.scores == "probabilities"


def test_percentages_are_refused_and_amounts_are_only_assumed_to_be_raw_scores(tmp_path: Path) -> None:
    percent = table_file(tmp_path / "percent.onnx", {"out": 100 * choices(7)}, size=SIZE)
    amounts = table_file(tmp_path / "amounts.onnx", {"out": numbers(7, high=9.0)}, size=SIZE)

    with pytest.raises(SourceError, match=r"sums to 100 .* percentages"):
        told(percent)
    assert origin_of(told(amounts), "outputs.scores") == "assumed"


@pytest.mark.parametrize("outputs", [{}, {"scores": "logits"}])
def test_raw_scores_may_stand_in_a_picture_of_one_pixel(tmp_path: Path, outputs: dict[str, Any]) -> None:
    path = table_file(tmp_path / "net.onnx", {"out": numbers(7, 1, 1, low=-3)}, size=SIZE)

    found = told(path, outputs, labels=7)

    assert (found.words.outputs.scores, len(found.labels or ())) == ("logits", 7)
