"""Detectors whose metadata, words and values disagree. Promises: what is wrong is refused, what is silent is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import Task
from tests.support.onnx_files import centred_boxes, corners_of, table_file, ultralytics

SIZE = (64, 32)  # width, height
ANCHORS = 42  # of strides 8, 16 and 32
BOXES = centred_boxes(ANCHORS, SIZE)
CORNERS = corners_of(BOXES)
SCORES = np.random.default_rng(1).uniform(0.05, 0.95, (ANCHORS, 3)).astype(np.float32)
IDS = (np.arange(ANCHORS) % 3).astype(np.float32)
PROTOTYPES = np.random.default_rng(4).normal(size=(32, 8, 16)).astype(np.float32)
SAYS_NOTHING = {key: text for key, text in ultralytics(3, SIZE).items() if key not in ("end2end", "args")}


def told(path: Path, outputs: dict[str, Any] | None = None, labels: int | None = None) -> Recognition:
    words = FileWords.model_validate({"outputs": outputs or {}})
    return recognised(signs_of(path, words), words, None, labels)


def origins(found: Recognition) -> dict[str, str]:
    return {each.word: each.origin for each in found.findings}


def finished(boxes: NDArray[Any], scores: NDArray[Any] = SCORES[:, 0]) -> NDArray[np.float32]:
    return np.concatenate([boxes, scores[:, None], IDS[:, None]], 1).astype(np.float32)


@pytest.mark.parametrize(("boxes", "kind", "origin"), [(CORNERS, "xyxy", "said"), (BOXES, "cxcywh", "found")])
def test_boxes_of_finished_rows_are_looked_at(tmp_path: Path, boxes: NDArray[Any], kind: str, origin: str) -> None:
    said = ultralytics(3, SIZE, end2end="True")
    flat = np.where(np.arange(ANCHORS) < 5, SCORES[:, 0], 0)  # most rows hold no box
    rows = finished(np.where(flat[:, None] > 0, boxes, [9, 9, 3, 3]), flat)

    found = told(table_file(tmp_path / "net.onnx", {"output0": rows}, size=SIZE, metadata=said))

    assert found.words.outputs.boxes == kind
    assert origins(found)["outputs.boxes"] == origin


def test_finished_rows_are_known_by_values_where_metadata_are_silent(tmp_path: Path) -> None:
    tables = {"output0": finished(CORNERS)}

    found = told(table_file(tmp_path / "net.onnx", tables, size=SIZE, metadata=SAYS_NOTHING))

    assert (found.words.outputs.layout, origins(found)["outputs.layout"]) == ("end2end", "found")
    with pytest.raises(SourceError, match="contradicts itself"):  # end2end False
        told(table_file(tmp_path / "no.onnx", tables, size=SIZE, metadata=ultralytics(3, SIZE)))


def test_masks_in_a_file_that_says_that_it_detects_are_a_contradiction(tmp_path: Path) -> None:
    rows = np.concatenate([BOXES, SCORES, np.tile(PROTOTYPES[:, 0, 0], (ANCHORS, 1))], 1).T
    tables = {"output0": rows, "output1": PROTOTYPES}
    path = table_file(tmp_path / "net.onnx", tables, size=SIZE, metadata=ultralytics(3, SIZE))

    with pytest.raises(SourceError, match=r"says task detect, .* write `outputs: {layout: yolov8-seg}`"):
        told(path)
    assert told(path, {"layout": "yolov8-seg"}).task.task is Task.INSTANCES


def test_the_layout_is_assumed_where_objectness_is(tmp_path: Path) -> None:
    path = table_file(tmp_path / "net.onnx", {"out": np.concatenate([BOXES, SCORES], 1)}, size=SIZE)

    assert origins(told(path))["outputs.layout"] == "assumed"
    assert told(path, labels=3).words.outputs.objectness is False


def test_a_picture_size_that_is_none_is_refused(tmp_path: Path) -> None:
    said = ultralytics(3, SIZE, imgsz="['a']")
    path = table_file(tmp_path / "net.onnx", {"out": np.concatenate([BOXES, SCORES], 1).T}, size=SIZE, metadata=said)

    with pytest.raises(SourceError, match=r"'imgsz' is no size, \[height, width\]: \"\['a'\]\""):
        told(path)


@pytest.mark.parametrize(
    ("scale", "outputs", "text"),
    [
        (1, {"units": "relative"}, r"outputs.units: relative, but its boxes reach to .* write `units: pixels`"),
        (64, {"units": "pixels"}, r"outputs.units: pixels, but its boxes reach to .* write `units: relative`"),
        (1, {"boxes": "xyxy"}, r"outputs.boxes: xyxy, but of most boxes .* write `boxes: cxcywh`"),
    ],
)
def test_a_word_that_the_boxes_contradict_is_refused(
    tmp_path: Path, scale: int, outputs: dict[str, Any], text: str
) -> None:
    table = np.concatenate([BOXES / scale, SCORES], 1).T
    path = table_file(tmp_path / "net.onnx", {"out": table}, size=SIZE)

    with pytest.raises(SourceError, match=text):
        told(path, outputs)


def test_class_numbers_in_float_are_known_by_being_whole(tmp_path: Path) -> None:
    tables = {"boxes": CORNERS, "labels": IDS, "scores": SCORES[:, 0]}

    found = told(table_file(tmp_path / "net.onnx", tables, size=SIZE))

    assert found.words.outputs.names == ("boxes", "scores", "labels")
    assert found.words.outputs.suppression == "none"
