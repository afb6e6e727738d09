"""Truth that does not belong to its pictures. Promises: each kind is named, and truth that fits never is."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.image_split import ImageSplit, prepare_split
from saccade.export.data.labelled_images import DetectSample, LabelsSample, Sample, SegmentSample
from saccade.export.qualification.accuracy import Answer, evidence_of
from saccade.export.qualification.truth_faults import exchanged_labels, truth_faults
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec

SIDE, PICTURES = 32, 24
PREPROCESS = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")
DETECT = TaskSpec(task=Task.DETECT, max_detections=2, score_threshold=0.25)
SEGMENT = TaskSpec(task=Task.SEGMENT, background_id=0)
LABELS = TaskSpec(task=Task.CLASSIFY, top_k=3, multi_label=True, score_threshold=0.5)
NAMES = ("a", "b", "c")


def picture(orientation: int = 1, width: int = SIDE, image_format: str = "JPEG") -> bytes:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, SIDE), (90, 120, 150)).save(out, image_format, exif=exif)
    return out.getvalue()


def faults(
    answers: Answer, samples: Sequence[Sample], task: TaskSpec, preprocess: PreprocessSpec = PREPROCESS
) -> list[str]:
    split: ImageSplit = prepare_split("test", samples, preprocess)
    evidence = evidence_of(answers, split, task, len(NAMES))
    return [*truth_faults(answers, evidence, split, task, NAMES)]


def masks() -> NDArray[np.uint8]:
    """A shape without any symmetry, elsewhere in each picture."""
    found = np.zeros((PICTURES, SIDE, SIDE), np.uint8)
    for number, mask in enumerate(found):
        left = number % 6
        mask[2:20, left : left + 6] = 1
        mask[2:7, left : left + 20] = 2
    return found


@pytest.mark.parametrize(
    ("moved", "how"),
    [
        (lambda mask: mask, None),
        (lambda mask: mask.T, "rows and columns exchanged"),
        (lambda mask: mask[::-1, ::-1], "turned by half"),
        (lambda mask: mask[:, ::-1], "mirrored left to right"),
        (lambda mask: mask[::-1], "mirrored top to bottom"),
        (np.rot90, "turned by a quarter"),
        (lambda mask: np.rot90(mask, -1), "turned by a quarter"),
    ],
)
def test_moved_masks_are_named(moved, how) -> None:  # type: ignore[no-untyped-def]
    samples = [SegmentSample(picture(), np.ascontiguousarray(moved(mask))) for mask in masks()]

    found = faults([masks()], samples, SEGMENT)

    assert len(found) == (how is not None)
    assert how is None or how in found[0]


STORED = {3: lambda mask: mask[::-1, ::-1], 6: np.rot90, 8: lambda mask: np.rot90(mask, -1)}  # by orientation


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_masks_of_stored_pictures_are_named_where_few_pictures_are_turned(image_format: str) -> None:
    truth = masks()
    samples = [
        SegmentSample(picture(turn, image_format=image_format), np.ascontiguousarray(STORED[turn](mask)))
        for turn, mask in zip((3, 6, 8), truth, strict=False)
    ]
    samples += [SegmentSample(picture(), mask) for mask in truth[3:]]

    (found,) = faults([truth], samples, SEGMENT)

    assert "lie on the picture as it is stored: 3 of them agree with the answers by 1.00" in found


def test_masks_of_shown_pictures_are_named_where_the_network_sees_stored_ones() -> None:
    truth, as_stored = masks(), PREPROCESS.model_copy(update={"exif": "as stored"})
    samples = [SegmentSample(picture(6), np.ascontiguousarray(np.rot90(mask, -1))) for mask in truth[:3]]
    samples += [SegmentSample(picture(), mask) for mask in truth[3:]]

    (found,) = faults([truth], samples, SEGMENT, as_stored)

    assert "lie on the picture as it is shown: 3 of them agree with the answers by 1.00" in found


@pytest.mark.parametrize(("moved", "told"), [(8, 0), (12, 1)])
def test_a_share_of_mirrored_masks_is_named(moved: int, told: int) -> None:
    truth = masks()
    samples = [
        SegmentSample(picture(), np.ascontiguousarray(mask[:, ::-1] if number < moved else mask))
        for number, mask in enumerate(truth)
    ]

    found = faults([truth], samples, SEGMENT)

    assert len(found) == told
    assert not told or "masks of 12 of 24 pictures are mirrored left to right" in found[0]


def boxes_of(number: int) -> NDArray[np.float64]:
    return np.array([[2.0, 3.0, 9.0, 14.0], [12.0 + number % 8, 4.0, 20.0 + number % 8, 10.0]])


def detections(class_ids: Sequence[int] = (0, 1)) -> Answer:
    boxes = np.stack([boxes_of(number) for number in range(PICTURES)]).astype(np.float32)
    ids = np.tile(np.array(class_ids, np.int32), (PICTURES, 1))
    return [boxes, np.full((PICTURES, 2), 0.9, np.float32), ids, np.full(PICTURES, 2, np.int32)]


@pytest.mark.parametrize(("exchanged", "how"), [(False, None), (True, "rows and columns exchanged")])
def test_boxes_with_x_and_y_exchanged_are_named(exchanged: bool, how: str | None) -> None:
    order = [1, 0, 3, 2] if exchanged else [0, 1, 2, 3]
    samples = [DetectSample(picture(), boxes_of(number)[:, order], np.array([0, 1])) for number in range(PICTURES)]

    found = faults(detections(), samples, DETECT)

    assert len(found) == (how is not None)
    assert how is None or how in found[0]


def test_boxes_of_stored_oblong_pictures_are_named() -> None:
    """The stored picture is 64 wide; shown, it is 64 high, and half as wide as the labelling program thought."""
    samples = []
    for number in range(PICTURES):
        upright = boxes_of(number) * (1, 2, 1, 2)  # 32 x 64
        x1, y1, x2, y2 = upright.T
        shares = np.stack([y1 / 64, (32 - x2) / 32, y2 / 64, (32 - x1) / 32], 1)  # of the stored picture, 64 x 32
        samples.append(DetectSample(picture(6, 64), shares * (32, 64, 32, 64), np.array([0, 1])))

    (found,) = faults(detections(), samples, DETECT)

    assert "boxes of pictures with an EXIF orientation lie on the picture as it is stored" in found


def test_exchanged_labels_of_a_detector_are_named() -> None:
    samples = [DetectSample(picture(), boxes_of(number), np.array([0, 1])) for number in range(PICTURES)]

    (found,) = faults(detections((1, 0)), samples, DETECT)

    assert "'a' as 'b' (100%), 'b' as 'a' (100%)" in found


@pytest.mark.parametrize(("columns", "told"), [((0, 1, 2), 0), ((0, 2, 1), 1)])
def test_exchanged_columns_of_a_table_are_named(columns: tuple[int, ...], told: int) -> None:
    rng = np.random.default_rng(0)
    shown = rng.uniform(size=(PICTURES, 3)) < (0.5, 0.6, 0.5)
    scores = np.where(shown, 0.8, 0.2) + rng.uniform(-0.2, 0.2, shown.shape)
    order = np.argsort(-scores, axis=1)
    answers = [np.take_along_axis(scores, order, 1).astype(np.float32), order.astype(np.int32)]
    samples = [LabelsSample(picture(), tuple(np.flatnonzero(row[list(columns)]).tolist())) for row in shown]

    found = faults(answers, samples, LABELS)

    assert len(found) == told
    assert not told or "'b' as 'c'" in found[0]


@pytest.mark.parametrize(
    ("confusion", "told"),
    [
        ([[20, 0, 0], [0, 1, 19], [0, 18, 2]], ["'b' as 'c' (95%), 'c' as 'b' (90%)"]),
        ([[0, 20, 0], [0, 0, 20], [20, 0, 0]], ["'a' as 'b' (100%), 'b' as 'c' (100%), 'c' as 'a' (100%)"]),
        ([[20, 0, 0], [0, 20, 0], [0, 19, 1]], []),  # a label that is never found is no exchange
        ([[20, 0, 0], [0, 9, 11], [0, 11, 9]], []),  # labels that look alike
        ([[20, 0, 0], [0, 0, 9], [0, 9, 0]], ["'b' as 'c' (100%), 'c' as 'b' (100%)"]),
        ([[20, 0, 0], [0, 1, 4], [0, 18, 2]], []),  # five pictures may be answered wrongly by chance
    ],
)
def test_exchanged_labels_are_named(confusion: list[list[int]], told: list[str]) -> None:
    counts = np.array(confusion, np.float64)

    found = list(exchanged_labels(counts / counts.sum(1, keepdims=True), counts.sum(1).astype(np.int64), NAMES))

    assert len(found) == len(told)
    assert all(words in text for words, text in zip(told, found, strict=True))
