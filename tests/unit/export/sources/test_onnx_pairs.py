"""Two outputs of four columns. Promises: boxes and scores are told by names and values together, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_pairs import kind_of_name
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords
from tests.support.onnx_files import centred_boxes, corners_of, table_file

SIZE = (64, 32)  # width, height
ROWS = 100
RNG = np.random.default_rng(7)
CENTRES = np.concatenate([RNG.uniform(0.1, 0.9, (ROWS, 2)), RNG.uniform(0.05, 0.2, (ROWS, 2))], 1).astype(np.float32)
CORNERS = corners_of(CENTRES)
PIXELS = corners_of(centred_boxes(ROWS, SIZE))
RARE = (RNG.uniform(0, 1, (ROWS, 4)) ** 12).astype(np.float32)  # of four classes, mostly near 0
ALIKE = np.tile(np.float32([0.2, 0.3, 0.6, 0.7]), (ROWS, 1)) + RNG.uniform(-0.05, 0.05, (ROWS, 4)).astype(np.float32)
EVEN = RNG.uniform(0, 1, (ROWS, 4)).astype(np.float32)  # as likely places as scores
RAW = RNG.normal(-2, 3, (ROWS, 4)).astype(np.float32)
Tables = dict[str, NDArray[Any]]


def softmax(raw: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(raw)
    return raised / raised.sum(1, keepdims=True)


def told(path: Path, tables: Tables, hint: int | None = None, **outputs: Any) -> Recognition:
    words = FileWords.model_validate({"outputs": outputs})
    return recognised(signs_of(table_file(path / "net.onnx", tables, size=SIZE), words), words, hint=hint)


def origin_of(found: Recognition, word: str) -> str:
    return {each.word: each.origin for each in found.findings}[word]


@pytest.mark.parametrize("scores", [RARE, ALIKE, EVEN, RAW], ids=["rare", "alike", "even", "raw"])
@pytest.mark.parametrize("boxes", [CORNERS, PIXELS], ids=["shares", "pixels"])
@pytest.mark.parametrize("is_turned", [False, True])
def test_names_tell_boxes_from_scores_in_any_order(
    tmp_path: Path, boxes: NDArray[Any], scores: NDArray[Any], is_turned: bool
) -> None:
    tables = {"scores": scores, "boxes": boxes} if is_turned else {"boxes": boxes, "scores": scores}

    found = told(tmp_path, tables)

    assert found.words.outputs.names == ("boxes", "scores")
    assert origin_of(found, "outputs.names") == "said"
    assert found.words.outputs.boxes == "xyxy"
    assert found.words.outputs.scores == ("sigmoid" if scores is RAW else "probabilities")


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [(CORNERS, RARE), (CORNERS, ALIKE), (CENTRES, RARE), (PIXELS, EVEN), (PIXELS, RAW)],
    ids=["corners", "alike", "centres", "pixels", "raw"],
)
@pytest.mark.parametrize("is_turned", [False, True])
def test_values_tell_where_names_say_nothing(
    tmp_path: Path, boxes: NDArray[Any], scores: NDArray[Any], is_turned: bool
) -> None:
    tables = {"b": scores, "a": boxes} if is_turned else {"a": boxes, "b": scores}

    found = told(tmp_path, tables)

    assert found.words.outputs.names == ("a", "b")
    assert origin_of(found, "outputs.names") == "found"


def test_what_neither_tells_is_refused_and_the_recipe_s_order_believed(tmp_path: Path) -> None:
    tables = {"a": EVEN, "b": CENTRES}

    with pytest.raises(SourceError, match=r"same shape, and neither .* boxes first: `names: \[a, b\]` or `names: \[b"):
        told(tmp_path, tables)
    assert told(tmp_path, tables, names=["b", "a"]).words.outputs.names == ("b", "a")
    assert told(tmp_path, tables, names=["a", "b"]).words.outputs.names == ("a", "b")


def test_names_that_values_contradict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"contradicts itself: 'boxes' .* numbers of 'scores' .* are more like boxes"):
        told(tmp_path, {"boxes": RARE, "scores": PIXELS})


@pytest.mark.parametrize(
    ("tables", "outputs"),
    [
        ({"scores": RARE, "boxes": CORNERS}, {}),
        ({"scores": RARE, "boxes": PIXELS}, {"boxes": "cxcywh"}),
        ({"a": softmax(RAW), "b": CENTRES}, {"boxes": "cxcywh", "scores": "probabilities"}),
    ],
)
def test_an_order_of_the_recipe_that_values_contradict_is_refused(
    tmp_path: Path, tables: Tables, outputs: dict[str, Any]
) -> None:
    first, second = tables

    with pytest.raises(
        SourceError, match=rf"write `outputs: {{layout: boxes, names: \[{second}, {first}\]}}`, boxes f"
    ):
        told(tmp_path, tables, names=[first, second], **outputs)


@pytest.mark.parametrize("columns", [3, 4, 5])
@pytest.mark.parametrize("names", [("scores", "boxes"), ("a", "b")])
def test_a_background_under_softmax_is_refused_with_any_number_of_columns(
    tmp_path: Path, columns: int, names: tuple[str, str]
) -> None:
    raw = RNG.normal(0, 2, (ROWS, columns)).astype(np.float32)

    with pytest.raises(SourceError, match=r"every row of .* sums to 1, so one of its columns is the background"):
        told(tmp_path, {names[0]: softmax(raw), names[1]: CORNERS})


def test_raw_scores_with_a_column_too_many_are_refused_as_such(tmp_path: Path) -> None:
    raw = np.concatenate([np.zeros((ROWS, 1), np.float32), RNG.normal(-6, 2, (ROWS, 3)).astype(np.float32)], 1)
    tables = {"scores": raw, "boxes": CORNERS}

    with pytest.raises(
        SourceError, match=r"'scores' .* raw scores in 4 columns for 3 classes, .* the background under"
    ):
        told(tmp_path, tables, hint=3)
    assert origin_of(told(tmp_path, tables), "outputs.scores") == "assumed"
    assert told(tmp_path, tables, hint=3, scores="sigmoid").words.outputs.scores == "sigmoid"


def test_queries_without_names_of_their_own_are_told_apart_too(tmp_path: Path) -> None:
    found = told(tmp_path, {"a": CENTRES, "b": RAW}, hint=3, layout="detr")

    assert found.words.outputs.names == ("b", "a")  # scores first
    assert found.words.outputs.scores == "logits"


def test_four_columns_of_scores_beside_five_of_boxes_are_no_boxes(tmp_path: Path) -> None:
    turned = np.concatenate([CORNERS, RNG.uniform(-1, 1, (ROWS, 1)).astype(np.float32)], 1)

    with pytest.raises(
        SourceError, match=r"the four columns that boxes have, .* names say that the first holds scores"
    ):
        told(tmp_path, {"scores": EVEN, "boxes": turned})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("detection_boxes:0", "boxes"),
        ("predBoxes", "boxes"),
        ("dets", "boxes"),
        ("bbox_conf", "scores"),
        ("det_scores", "scores"),
        ("class_logits", "scores"),
        ("pred_cls", "ids"),
        ("labels", "ids"),
        ("output0", ""),
    ],
)
def test_the_last_word_of_a_name_that_says_something_decides(name: str, kind: str) -> None:
    assert kind_of_name(name) == kind
