"""Places with sizes. Promises: centres are found where cells show them, else assumed; upper left corners refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_fits import yolox_grid
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import signs_of
from saccade.export.sources.onnx_words import FileWords
from tests.support.onnx_files import centred_boxes, table_file

SIZE = (64, 32)  # width, height
CELLS, STRIDES = yolox_grid(SIZE)
RNG = np.random.default_rng(5)
SCORES = RNG.uniform(0.05, 0.95, (len(CELLS), 3)).astype(np.float32)
SIZES = np.minimum(STRIDES * RNG.uniform(2, 4, (len(CELLS), 2)), (60, 30)).astype(np.float32)
CENTRES = ((CELLS + RNG.uniform(0, 1, CELLS.shape)) * STRIDES).astype(np.float32)
ON_CELLS = np.concatenate([CENTRES, SIZES], 1)
UPPER_LEFT = np.concatenate([CENTRES - SIZES / 2, SIZES], 1)
SHARE = np.float32([*SIZE, *SIZE])


def told(path: Path, table: NDArray[Any], **outputs: Any) -> Recognition:
    words = FileWords.model_validate({"outputs": outputs})
    rows = np.concatenate([table, SCORES], 1).T.astype(np.float32)
    return recognised(signs_of(table_file(path / "net.onnx", {"out": rows}, size=SIZE), words), words)


@pytest.mark.parametrize(
    ("boxes", "origin"),
    [(ON_CELLS, "found"), (ON_CELLS / SHARE, "found"), (centred_boxes(len(CELLS), SIZE), "assumed")],
    ids=["pixels", "shares", "anywhere"],
)
def test_centres_are_found_where_cells_show_them(tmp_path: Path, boxes: NDArray[Any], origin: str) -> None:
    found = told(tmp_path, boxes)

    assert found.words.outputs.boxes == "cxcywh"
    assert {each.word: each.origin for each in found.findings}["outputs.boxes"] == origin


@pytest.mark.parametrize("unit", [np.float32(1), SHARE], ids=["pixels", "shares"])
def test_corners_at_the_upper_left_with_sizes_are_refused(tmp_path: Path, unit: NDArray[Any]) -> None:
    with pytest.raises(SourceError, match="its boxes are x1 y1 and sizes, which is no form that is served"):
        told(tmp_path, UPPER_LEFT / unit)
    assert told(tmp_path, UPPER_LEFT / unit, boxes="cxcywh").words.outputs.boxes == "cxcywh"
