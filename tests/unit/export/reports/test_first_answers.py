"""The page of `init --show`. Promises: the answers are drawn for every task, guesses are marked, nothing is fetched."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from saccade.export.cli.program import app
from tests.support.onnx_files import centred_boxes, table_file

SIDE = 32
BOX = np.array([[16.0, 16.0, 16.0, 16.0]], np.float32)  # centre and size
FILES = {
    "detect": {
        "output0": np.concatenate([np.repeat(BOX, 20, 0), np.full((20, 2), [0.9, 0.2], np.float32)], 1).T.copy()
    },
    "classify": {"scores": np.array([0.1, 0.9], np.float32)},
    "segment": {"mask": np.repeat(np.float32([9.0, -9.0]), SIDE // 2)[None, :, None].repeat(SIDE, 2)},
}
CAPTIONS = {"detect": "class 0 0.90", "classify": "class 1 0.90", "segment": "background 50.0%, foreground 50.0%"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve grey pictures, one of them with a name that is HTML, and one that is no picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(12):
        Image.new("RGB", (64, 64), (128, 128, 128)).save(folder / f"{index:02}<b>.png")
    (folder / "00.jpg").write_bytes(b"no picture")
    return folder


def shown(file: Path, data: Path, *words: str) -> str:
    out = file.with_suffix(".yaml")
    arguments = [str(file), "--data", str(data), "--out", str(out), "--no-measure", "--show", *words]
    result = CliRunner().invoke(app, ["init", *arguments])
    assert result.exit_code == 0, result.output
    assert f"# wrote {file.with_suffix('.html')}: the first pictures" in result.output
    return file.with_suffix(".html").read_text("utf-8")


def drawings(page: str) -> list[NDArray[np.uint8]]:
    parts = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(part)))) for part in parts]


@pytest.mark.parametrize("task", list(FILES))
def test_every_task_shows_eight_pictures_with_their_answers(task: str, tmp_path: Path, data: Path) -> None:
    page = shown(table_file(tmp_path / "n.onnx", FILES[task], ends={"mask": "Sigmoid"}), data)

    assert len(drawings(page)) == 8
    assert page.count(f"<span>{CAPTIONS[task]}") == 8
    assert "00.jpg" not in page
    assert "00&lt;b&gt;.png" in page
    assert re.findall(r'(?:src|href)="(?!data:|#)|url\(|https?:|<script', page) == []


def test_boxes_and_masks_are_drawn_where_the_answer_is(tmp_path: Path, data: Path) -> None:
    boxes = drawings(shown(table_file(tmp_path / "d.onnx", FILES["detect"]), data))[0].astype(int)
    masks = drawings(shown(table_file(tmp_path / "s.onnx", FILES["segment"], ends={"mask": "Sigmoid"}), data))[
        0
    ].astype(int)
    side, plain = len(boxes), np.array([128, 128, 128])

    assert abs(boxes[side // 2, side // 4 + 1] - plain).max() > 50, "the left edge of the box"
    assert abs(boxes[side // 2, side // 2] - plain).max() < 10, "nothing inside of it"
    assert abs(masks[side // 4, side // 2] - masks[side * 3 // 4, side // 2]).max() > 20, "two classes, two colours"


def test_guesses_are_marked_on_the_page(tmp_path: Path, data: Path) -> None:
    page = shown(
        table_file(
            tmp_path / "n.onnx",
            {"output0": np.concatenate([centred_boxes(20, (32, 32)), np.full((20, 2), 0.4, np.float32)], 1).T.copy()},
        ),
        data,
    )

    assert '<td class="pending">assumed</td>' in page
    assert "correct these words in the recipe first" in page


def test_the_best_boxes_alone_are_drawn_and_the_rest_is_counted(tmp_path: Path, data: Path) -> None:
    rows = centred_boxes(84, (64, 64))
    rows[:, 2:] = 1.0  # too small to overlap
    scores = np.linspace(0.9, 0.5, 84, dtype=np.float32)[:, None]
    table = np.concatenate([rows, scores, scores * 0.1], 1).T.copy()
    page = shown(table_file(tmp_path / "n.onnx", {"output0": table}, size=(64, 64)), data)

    few = shown(table_file(tmp_path / "d.onnx", FILES["detect"]), data)

    assert page.count("(64 boxes are not drawn)</span>") == 8
    assert "not drawn" not in few
    assert "from the score threshold 0.25 on are drawn, of each picture the best 20." in page
