"""Pictures of the report. Promises: the frame lies where two answers differ most, and what is in it is seen larger."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from saccade.export.data.image_split import ImageSplit, prepare_split
from saccade.export.data.labelled_images import ImageSample
from saccade.export.qualification.picture_strips import pair_strip
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

CELL, GAP = 192, 4


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def split_of(sent: np.ndarray, target: np.ndarray, spec: PreprocessSpec) -> ImageSplit:
    return prepare_split("test", [ImageSample(png(sent), png(target))], spec)


def cells(strip: Image.Image) -> list[np.ndarray]:
    pixels = np.asarray(strip)
    return [pixels[:, left : left + CELL] for left in range(0, pixels.shape[1], CELL + GAP)]


@pytest.mark.parametrize("scale", [1, 2])
def test_the_frame_lies_where_the_answers_differ_most(scale: int) -> None:
    side = 128
    spec = PreprocessSpec(width=side, height=side, fit="tile", margin=4)
    task = TaskSpec(task=Task.IMAGE, picture="rgb", scale=scale)
    sent = np.full((side, side, 3), 100, np.uint8)
    sent[80:96, 96:112] = 200
    target = np.full((side * scale, side * scale, 3), 50, np.uint8)
    answer = np.full(target.shape, 0.5, np.float32)
    other = answer.copy()
    other[80 * scale : 96 * scale, 96 * scale : 112 * scale] = 1.0

    framed, same, first, second, truth = cells(pair_strip(answer, other, split_of(sent, target, spec), 0, task))

    is_frame = (framed == 255).all(-1)
    rows, columns = np.flatnonzero(is_frame.any(1)), np.flatnonzero(is_frame.any(0))
    assert rows[0] <= 80 / side * CELL <= 96 / side * CELL <= rows[-1]
    assert columns[0] <= 96 / side * CELL <= 112 / side * CELL <= columns[-1]
    assert rows[-1] - rows[0] == pytest.approx(64 / scale / side * CELL, abs=4)
    patch = (16 * scale * 3) ** 2  # each pixel of an answer is shown three times as large on both sides
    assert (second[..., 0] == 255).sum() == patch
    assert ((same[..., 0] == 200) == (second[..., 0] == 255)).all()
    assert (first == 128).all()
    assert (truth == 50).all()


def test_depths_are_shown_whole_and_a_picture_smaller_than_the_frame_too() -> None:
    spec = PreprocessSpec(width=32, height=32, fit="letterbox")
    sent = np.full((8, 16, 3), 100, np.uint8)
    depth = np.linspace(1, 2, 32 * 32, dtype=np.float32).reshape(32, 32)
    answer = np.full((32, 32, 3), 0.5, np.float32)
    depths, colours = (TaskSpec(task=Task.IMAGE, picture=kind) for kind in ("depth", "rgb"))
    truth = np.arange(8 * 16, dtype=np.uint16).reshape(8, 16) + 1

    shown = cells(pair_strip(depth, depth + 1, split_of(sent, truth, spec), 0, depths))
    small = cells(pair_strip(answer, answer * 0, split_of(sent, sent, spec), 0, colours))

    assert len(shown) == 4
    assert (shown[0][CELL // 4 + 1 : -CELL // 4 - 1] == 100).all()  # twice as wide as high, without the bars
    assert len(small) == 5
    assert (small[2] == 128).all()
