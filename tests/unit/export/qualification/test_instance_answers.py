"""Kept answers of objects with masks. Promises: what a client gets, drawn where it can matter, and no more memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.image_split import ImageSplit, prepare_split
from saccade.export.data.labelled_images import DetectSample
from saccade.export.qualification.accuracy import evidence_of
from saccade.export.qualification.answer_pictures import answer_jpeg
from saccade.export.qualification.evidence import point_value
from saccade.export.qualification.instance_answers import kept_answer
from saccade.export.qualification.parity import answer_difference
from saccade.models.contract.run_lengths import MaskWindow
from saccade.models.contract.specs import MaskSpec, PreprocessSpec, Task, TaskSpec
from saccade.models.metrics.agreement import answer_agreement
from saccade.models.metrics.kept_answers import kept_picture, masks_of

SIDE = 32
SPEC = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")
TASK = TaskSpec(task=Task.INSTANCES, max_detections=4, masks=MaskSpec(form="prototypes", channels=1, height=8, width=8))
BOXES = np.array([[0, 0, 16, 32], [16, 0, 32, 32], [16, 0, 32, 32], [0, 0, 0, 0]], np.float32)
LEFT, RIGHT = (MaskWindow(left, 0, np.ones((64, 32), np.bool_)).run_lengths(64, 64) for left in (0, 32))


def split_of(pictures: int = 2) -> ImageSplit:
    """Grey pictures of 64 pixels whose left half is an object of class 0."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 90, 90)).save(stream, "PNG")
    truth = np.array([[0, 0, 32, 64]], np.float32)
    samples = [DetectSample(stream.getvalue(), truth, np.array([0]), masks=(LEFT,)) for _ in range(pictures)]
    return prepare_split("test", samples, SPEC)


def raw_answer(scores: tuple[float, float, float], signs: tuple[float, float, float]) -> list[NDArray[Any]]:
    """Two equal pictures: an object of class 0 left, two of class 1 right; with a sign below 0 a mask is empty."""
    one = [
        BOXES,
        np.array([*scores, 0], np.float32),
        np.array([0, 1, 1, 0], np.int32),
        np.array(3, np.int32),
        np.array([[sign] for sign in (*signs, 0)], np.float32),
        np.ones((1, 8, 8), np.float32),
    ]
    return [np.stack([array, array]) for array in one]


def test_an_object_without_a_pixel_is_left_out_and_weak_ones_far_from_the_truth_are_not_drawn() -> None:
    split = split_of(3)

    kept = kept_answer(raw_answer((0.9, 0.8, 0.1), (1, -1, 1)), TASK, split, 1)

    assert [array.shape for array in kept] == [(2, 4, 4), (2, 4), (2, 4), (2,), (2, 4)]
    assert kept[3].tolist() == [2, 2]
    np.testing.assert_allclose(kept[1][0], [0.9, 0.1, 0, 0])
    assert kept[2][0].tolist() == [0, 1, 0, 0]
    first, second = masks_of(kept, 1, np.arange(2))
    assert first == LEFT
    assert second.area == 0  # below the threshold, and no object of its class is near


def test_weak_objects_are_drawn_where_the_truth_is() -> None:
    answer = raw_answer((0.1, 0.05, 0.02), (1, 1, 1))

    kept = kept_answer(answer, TASK, split_of(), 0)

    assert masks_of(kept, 0, np.array([0])) == [LEFT]
    assert point_value(evidence_of(kept, split_of(), TASK, 2)) == pytest.approx(1.0)


def test_metric_looks_at_masks_and_not_at_boxes() -> None:
    answer = raw_answer((0.9, 0.8, 0.7), (1, 1, 1))
    answer[5][:, :, 4:] = -1  # the lower half of every mask is gone, and its box is right

    assert point_value(evidence_of(kept_answer(answer, TASK, split_of(), 0), split_of(), TASK, 2)) < 0.2


def test_agreement_and_parity_see_a_mask_that_shrank() -> None:
    whole, half = raw_answer((0.9, 0.8, 0.7), (1, 1, 1)), raw_answer((0.9, 0.8, 0.7), (1, 1, 1))
    half[5][:, :, 4:] = -1
    first, second = (kept_answer(each, TASK, split_of(), 0) for each in (whole, half))

    assert answer_agreement(first, first, TASK, 2) == {"box_f1": 1.0, "box_iou": 1.0, "mask_iou": 1.0}
    assert answer_agreement(second, first, TASK, 2)["mask_iou"] == pytest.approx(0.5, abs=0.05)
    assert answer_difference(first, first, Task.INSTANCES).id_disagreement == 0.0
    assert answer_difference(second, first, Task.INSTANCES).id_disagreement == pytest.approx(0.5, abs=0.05)
    assert answer_difference(half, whole, Task.INSTANCES).relative_l2 == pytest.approx(np.sqrt(2), rel=0.01)


def test_masks_are_painted_in_the_picture() -> None:
    split = split_of()
    answer = [array[:1] for array in raw_answer((0.9, 0.2, 0.1), (1, 1, 1))]
    kept = kept_picture(answer, TASK, (SIDE, SIDE), split.geometries[0])

    jpeg = answer_jpeg(np.full((64, 64, 3), 90, np.uint8), kept, split.geometries[0], TASK, ("zero", "one"))

    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(np.int16)
    middle = pixels.shape[1] // 2
    assert np.abs(pixels[40:-8, 8 : middle - 8] - 90).max(2).min() > 20
    assert np.abs(pixels[:, middle + 12 :] - 90).max() < 12
