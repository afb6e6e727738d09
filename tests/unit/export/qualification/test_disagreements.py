"""Differing answers. Promises: what a client would notice, most first, drawn reference left and variant right."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.datasets import prepare_split
from saccade.export.data.labelled_images import ClassSample, DetectSample, Sample, SegmentSample
from saccade.export.qualification.answer_pictures import pair_jpeg, write_examples
from saccade.export.qualification.disagreements import (
    Answer,
    ServedBoxes,
    amounts_of,
    box_amount,
    most_different,
    paired,
)
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

CLASSIFY = TaskSpec(task=Task.CLASSIFY, top_k=2)
DETECT = TaskSpec(task=Task.DETECT, max_detections=3)
SEGMENT = TaskSpec(task=Task.SEGMENT, background_id=0)
LABELS = ("zero", "one", "two")
SPEC = PreprocessSpec(width=32, height=32, fit="letterbox")


def classes(*rows: tuple[tuple[int, float], tuple[int, float]]) -> Answer:
    """Top two of each image."""
    scores = np.array([[score for _, score in row] for row in rows], np.float32)
    return scores, np.array([[class_id for class_id, _ in row] for row in rows], np.int32)


def boxes(*rows: tuple[tuple[float, float, float, float], int, float]) -> Answer:
    """One image, padded to three rows."""
    padded = [*rows, *([((0.0, 0.0, 0.0, 0.0), 0, 0.0)] * (3 - len(rows)))]
    return (
        np.array([[box for box, _, _ in padded]], np.float32),
        np.array([[score for _, _, score in padded]], np.float32),
        np.array([[class_id for _, class_id, _ in padded]], np.int32),
        np.array([len(rows)], np.int32),
    )


def picture(colour: tuple[int, int, int] = (90, 90, 90), size: tuple[int, int] = (40, 20)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def halves(jpeg: bytes) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Left and right of the gap."""
    sheet = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(np.int16)
    width = (sheet.shape[1] - 6) // 2
    return sheet[:, :width], sheet[:, -width:]


LEFT = (2.0, 10.0, 12.0, 20.0)
RIGHT = (18.0, 10.0, 30.0, 22.0)


def test_equal_first_classes_are_no_difference_whatever_the_scores() -> None:
    reference, found = classes(((0, 0.9), (1, 0.1))), classes(((0, 0.5), (2, 0.4)))

    assert amounts_of(reference, found, CLASSIFY).tolist() == [0.0]


def test_surer_contradictions_weigh_more() -> None:
    reference = classes(((0, 0.9), (1, 0.1)), ((0, 0.5), (1, 0.4)), ((0, 0.9), (1, 0.1)))
    found = classes(((1, 0.8), (0, 0.2)), ((1, 0.5), (0, 0.45)), ((2, 0.9), (1, 0.1)))

    assert amounts_of(reference, found, CLASSIFY) == pytest.approx([1.4, 0.15, 1.8])


def test_tie_that_falls_on_the_other_side_still_counts() -> None:
    reference, found = classes(((0, 0.5), (1, 0.5))), classes(((1, 0.5), (0, 0.5)))

    assert most_different(amounts_of(reference, found, CLASSIFY), 3) == [0]


def test_box_that_the_other_lacks_counts_with_its_score() -> None:
    reference = boxes((LEFT, 1, 0.9), (RIGHT, 2, 0.8))

    assert amounts_of(reference, boxes((LEFT, 1, 0.7)), DETECT) == pytest.approx([0.8])
    assert amounts_of(reference, boxes((LEFT, 2, 0.7), (RIGHT, 2, 0.8)), DETECT) == pytest.approx([1.6])
    assert amounts_of(reference, reference, DETECT).tolist() == [0.0]


def test_boxes_below_the_threshold_and_padding_are_nobody_s_answer() -> None:
    assert amounts_of(boxes((LEFT, 1, 0.9)), boxes((LEFT, 1, 0.9), (RIGHT, 2, 0.2)), DETECT).tolist() == [0.0]


def test_no_box_is_the_partner_of_two() -> None:
    one = ServedBoxes(np.array([LEFT]), np.array([0.9]), np.array([1]))
    two = ServedBoxes(np.array([LEFT, LEFT]), np.array([0.9, 0.6]), np.array([1, 1]))

    assert [side.tolist() for side in paired(one, two)] == [[True], [True, False]]
    assert box_amount(one, two) == pytest.approx(0.6)


def test_masks_differ_by_their_share_of_pixels_and_single_ones_do_not_count() -> None:
    reference = np.zeros((2, 32, 64), np.uint8)
    found = reference.copy()
    found[0, 0, 0] = 1
    found[1, :8] = 2

    assert amounts_of([reference], [found], SEGMENT).tolist() == [0.0, 0.25]


def test_most_different_come_first_and_equal_answers_never() -> None:
    assert most_different(np.array([0.0, 0.5, 0.9, 0.5, 0.0]), 3) == [2, 1, 3]
    assert most_different(np.array([0.0, 0.5]), 3) == [1]


def test_answers_that_agree_leave_no_picture(tmp_path: Path) -> None:
    split = prepare_split("test", [ClassSample(picture(), 0)], SPEC)
    answer = classes(((0, 0.9), (1, 0.1)))

    found = write_examples(answer, answer, split, CLASSIFY, LABELS, tmp_path)

    assert (found.images, found.differing, found.examples) == (1, 0, ())
    assert list(tmp_path.iterdir()) == []


def test_examples_are_told_in_words_with_the_truth(tmp_path: Path) -> None:
    samples: list[Sample] = [ClassSample(picture(), 0), ClassSample(picture((1, 2, 3)), 2)]
    split = prepare_split("test", samples, SPEC)
    reference = classes(((0, 0.9), (1, 0.1)), ((2, 0.9), (1, 0.1)))
    found = classes(((0, 0.9), (1, 0.1)), ((1, 0.6), (2, 0.4)))

    told = write_examples(reference, found, split, CLASSIFY, LABELS, tmp_path)

    assert told.differing == 1
    example = told.examples[0]
    assert (example.image, example.truth) == (1, "two")
    assert (example.reference, example.variant) == ("two 0.90, one 0.10", "one 0.60, two 0.40")
    assert (tmp_path / example.file).read_bytes() == pair_jpeg(reference, found, split, 1, CLASSIFY, LABELS)


def test_lost_box_is_drawn_on_the_reference_s_side_only() -> None:
    sample = DetectSample(picture(), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    split = prepare_split("test", [sample], SPEC)

    left, right = halves(pair_jpeg(boxes((LEFT, 1, 0.9)), boxes(), split, 0, DETECT, LABELS))

    assert np.abs(left - 90).max() > 60
    assert np.abs(right[:, 8:] - 90).max() < 12  # the gap's edge bleeds a little in JPEG


def test_masks_are_pale_over_grey_and_full_where_the_answers_differ() -> None:
    split = prepare_split("test", [SegmentSample(picture(), np.zeros((20, 40), np.uint8))], SPEC)
    nothing, half = np.zeros((1, 32, 32), np.uint8), np.zeros((1, 32, 32), np.uint8)
    half[:, :, :16] = 1

    same = halves(pair_jpeg([half], [half], split, 0, SEGMENT, LABELS))[0]
    left, right = halves(pair_jpeg([nothing], [half], split, 0, SEGMENT, LABELS))

    middle = right.shape[1] // 2
    inner, outer = (slice(5, -5), slice(8, middle - 8)), (slice(5, -5), slice(middle + 8, -8))
    assert left[inner].max() < 12  # differing background is black
    assert 20 < np.ptp(same[inner], axis=2).min() < np.ptp(right[inner], axis=2).min() - 40
    for side in (left, right, same):
        assert np.abs(side[outer] - 90).max() < 12


def test_picture_is_small_and_the_same_every_time() -> None:
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (900, 1600, 3), dtype=np.uint8)).save(stream, "PNG")
    sample = DetectSample(stream.getvalue(), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    split = prepare_split("test", [sample], SPEC)
    answers = boxes((LEFT, 1, 0.9), (RIGHT, 2, 0.8)), boxes((LEFT, 0, 0.9))

    first, second = (pair_jpeg(*answers, split, 0, DETECT, LABELS) for _ in range(2))

    assert first == second
    assert len(first) < 120_000  # noise, the worst there is
