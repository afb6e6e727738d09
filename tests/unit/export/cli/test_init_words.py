"""Words of a recipe that `init` reads again. Promises: a word that is wrong is named, with what may stand there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.export.cli.init_onnx import settled_words
from saccade.export.errors import RecipeError
from tests.support.onnx_files import table_file


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("value_range: [255, 0]", r"^value_range: must ascend, got \[255.0, 0.0\]"),
        ("value_range: [1, 1]", r"^value_range: must ascend"),
        ("outputs: {nosuch: 1}", r"^outputs.nosuch: unknown key 'nosuch' \(allowed: boxes, layout, names"),
        ("outputs: {layot: yolov8}", r"unknown key 'layot', did you mean 'layout'\?"),
    ],
)
def test_a_wrong_word_is_named_with_what_may_stand_there(tmp_path: Path, row: str, text: str) -> None:
    path = table_file(tmp_path / "net.onnx", {"out": np.array([0.5, 3.0, -2.0], np.float32)})
    (tmp_path / "pictures").mkdir()

    with pytest.raises(RecipeError, match=text):
        settled_words(path, tmp_path / "pictures", f"source: onnx\nweights: net.onnx\n{row}\n")
