"""Files that end in suppression and count their rows. Promises: rows beyond the count never answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_decoding import BoxDecoder
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords, OutputWords
from tests.support.onnx_files import centred_boxes, corners_of, table_file

SIZE = (64, 32)  # width, height
ROWS, HELD = 20, 6  # of which the others hold anything
BOXES = np.where(np.arange(ROWS)[:, None] < HELD, corners_of(centred_boxes(ROWS, SIZE)), 9e8).astype(np.float32)
SCORES = np.where(np.arange(ROWS) < HELD, np.linspace(0.9, 0.2, ROWS), -7.5).astype(np.float32)
IDS = np.where(np.arange(ROWS) < HELD, np.arange(ROWS) % 3, -77).astype(np.int32)
COUNT = np.array([HELD], np.int32)
TRT = {"num_dets": COUNT, "det_boxes": BOXES, "det_scores": SCORES, "det_classes": IDS}
Tables = dict[str, NDArray[Any]]


def told(path: Path, tables: Tables, hint: int | None = None, **outputs: Any) -> Recognition:
    words = FileWords.model_validate({"outputs": outputs})
    return recognised(signs_of(table_file(path / "net.onnx", tables, size=SIZE), words), words, hint=hint)


@pytest.mark.parametrize(
    "tables",
    [
        TRT,
        {"num_detections": COUNT, "nmsed_boxes": BOXES, "nmsed_scores": SCORES, "nmsed_classes": IDS},
        {"scores": SCORES, "labels": IDS.astype(np.float32), "boxes": BOXES, "valid": COUNT.astype(np.float32)},
        {"a": BOXES, "b": SCORES, "c": IDS.astype(np.int64), "d": np.int64([HELD])[0:1].reshape(())},
    ],
    ids=["det_", "nmsed_", "in float", "nameless"],
)
def test_counted_rows_are_recognised_without_a_word(tmp_path: Path, tables: Tables) -> None:
    found = told(tmp_path, tables, hint=3)

    words, origins = found.words.outputs, {each.word: each.origin for each in found.findings}
    assert (words.layout, words.boxes, words.units, words.scores) == ("boxes", "xyxy", "pixels", "probabilities")
    assert words.suppression == "none"
    assert words.names is not None
    assert [tables[name].size for name in words.names] == [4 * ROWS, ROWS, ROWS, 1]
    assert tables[words.names[1]] is SCORES
    assert len(found.labels or ()) == 3
    assert origins["classes"] == "assumed"


def test_classes_beyond_those_of_the_data_are_not_assumed(tmp_path: Path) -> None:
    assert told(tmp_path, TRT, hint=2).labels is None


def test_rows_beyond_the_count_get_the_score_0() -> None:
    words = OutputWords(
        layout="boxes", boxes="xyxy", units="pixels", scores="probabilities", names=("a", "b", "c", "d")
    )
    counts = torch.tensor([[2], [0]], dtype=torch.int32)
    scores = torch.full((2, 5), 0.9)

    for count in (counts, counts.flatten(), counts.to(torch.float32)):
        found = BoxDecoder(words, SIZE)([torch.ones(2, 5, 4), scores, torch.zeros(2, 5), count])[1]
        np.testing.assert_allclose(found, [[0.9, 0.9, 0, 0, 0], [0] * 5])


def test_pictures_without_any_row_show_nothing(tmp_path: Path) -> None:
    found = told(tmp_path, {**TRT, "num_dets": np.int32([0])})

    origins = {each.word: each.origin for each in found.findings}
    assert origins["outputs.boxes"] == origins["outputs.units"] == origins["outputs.scores"] == "assumed"


def test_a_number_that_counts_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'num_dets' .* would be the number of detections .* there are 20 rows"):
        told(tmp_path, {**TRT, "num_dets": np.int32([ROWS + 1])})


@pytest.mark.parametrize("extra", [{}, {"raw_detection_boxes": BOXES, "raw_detection_scores": SCORES}])
def test_outputs_of_tensorflow_s_object_detection_are_refused_by_name(tmp_path: Path, extra: Tables) -> None:
    tables = {
        "detection_boxes": BOXES[:, [1, 0, 3, 2]] / 64,
        "detection_classes": IDS.astype(np.float32) + 1,
        "detection_scores": SCORES,
        "num_detections": COUNT.astype(np.float32)[0:1].reshape(()),
    }

    with pytest.raises(SourceError, match=r"TensorFlow's Object Detection API: .* Export it with a last step"):
        told(tmp_path, tables | extra)
