"""Metrics and bootstrap. Promises: figures equal the textbook's, and paired intervals see the same resamples."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saccade.export.qualification.bootstrap import resample_weights
from saccade.export.qualification.detection_evidence import SceneDetections, detect_evidence
from saccade.export.qualification.evidence import ClassifyEvidence, SegmentEvidence, accuracy_of, point_value
from saccade.models.contract.run_lengths import MaskWindow
from saccade.models.metrics.metrics import mean_iou


def classify(correct: NDArray[np.bool_]) -> ClassifyEvidence:
    return ClassifyEvidence(np.where(correct, 0, 1), np.zeros(len(correct), np.int64), 2)


def test_resamples_are_repeatable_and_draw_every_image_count() -> None:
    weights = resample_weights(50, 20)

    assert weights.shape == (20, 50)
    assert (weights.sum(1) == 50).all()
    assert (weights == resample_weights(50, 20)).all()


def test_interval_covers_the_value_and_shrinks_with_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for images in (100, 10_000):
        evidence = classify(rng.random(images) < 0.9)
        value = accuracy_of(evidence, evidence, 200).value
        assert value.low <= value.value <= value.high
        widths.append(value.high - value.low)

    assert widths[1] < widths[0] / 5


def test_drop_against_itself_is_zero_with_room_for_what_was_not_drawn() -> None:
    evidence = classify(np.arange(100) % 10 != 0)

    found = accuracy_of(evidence, evidence, 100)

    assert found.drop.value == 0.0
    assert found.drop.low < 0.0 < found.drop.high
    assert found.is_never_worse


def test_drop_counts_what_the_reference_had_right() -> None:
    reference, variant = classify(np.ones(100, np.bool_)), classify(np.arange(100) >= 10)

    drop = accuracy_of(variant, reference, 200).drop

    assert drop.value == pytest.approx(0.1)
    assert 0.0 < drop.low < 0.1 < drop.high


def test_figures_of_different_images_are_not_paired() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        accuracy_of(classify(np.ones(3, np.bool_)), classify(np.ones(4, np.bool_)), 20)


def test_class_that_does_not_occur_has_no_figure() -> None:
    evidence = classify(np.ones(5, np.bool_))

    assert accuracy_of(evidence, evidence, 20).per_class == (1.0, None)


def test_segment_metric_equals_mean_iou_of_summed_confusions() -> None:
    confusions = np.random.default_rng(0).integers(0, 50, (7, 4, 4))

    assert point_value(SegmentEvidence(confusions)) == pytest.approx(mean_iou(confusions.sum(0)))


def scenes(
    images: int, classes: int, seed: int, crowds: float = 0.0
) -> tuple[list[SceneDetections], list[SceneDetections]]:
    """Truth and what a middling detector makes of it: shifted, missed, doubled and invented boxes."""
    rng = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(images):
        count = int(rng.integers(1, 6))
        corners = rng.uniform(0, 150, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(30, 80, (count, 2))], 1)
        class_ids = rng.integers(0, classes, count)
        truths.append(SceneDetections(boxes, class_ids, np.ones(count), rng.random(count) < crowds))
        picked = rng.integers(0, count, int(rng.integers(1, 8)))
        moved = boxes[picked] + rng.normal(0, 6, (len(picked), 4))
        guessed = np.where(rng.random(len(picked)) < 0.8, class_ids[picked], rng.integers(0, classes, len(picked)))
        found.append(SceneDetections(moved, guessed, rng.random(len(picked))))
    return found, truths


def coco_map(found: list[SceneDetections], truths: list[SceneDetections], classes: int) -> float:
    def box(corners: NDArray[np.float64]) -> list[float]:
        x1, y1, x2, y2 = corners.tolist()
        return [x1, y1, x2 - x1, y2 - y1]

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": index + 1} for index in range(len(truths))],
            "categories": [{"id": index} for index in range(classes)],
            "annotations": [],
        }
        for image, truth in enumerate(truths, start=1):
            crowds = np.zeros(len(truth.class_ids)) if truth.is_crowd is None else truth.is_crowd
            for corners, class_id, crowd in zip(truth.boxes, truth.class_ids, crowds, strict=True):
                annotation = {"id": len(coco.dataset["annotations"]) + 1, "image_id": image, "iscrowd": int(crowd)}
                annotation |= {"category_id": int(class_id), "bbox": box(corners), "area": 1.0}
                coco.dataset["annotations"].append(annotation)
        coco.createIndex()
        answers = [
            {"image_id": image, "category_id": int(class_id), "bbox": box(corners), "score": float(score)}
            for image, each in enumerate(found, start=1)
            for corners, class_id, score in zip(each.boxes, each.class_ids, each.scores, strict=True)
        ]
        evaluation = COCOeval(coco, coco.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("crowds", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_detection_metric_equals_pycocotools(seed: int, crowds: float) -> None:
    found, truths = scenes(40, 3, seed, crowds)

    assert point_value(detect_evidence(found, truths, 3)) == pytest.approx(coco_map(found, truths, 3), abs=1e-9)


def mask_scenes(images: int, classes: int, seed: int) -> tuple[list[SceneDetections], list[SceneDetections]]:
    """The same scenes with an ellipse in each box, so that masks overlap otherwise than boxes."""

    def with_masks(scene: SceneDetections) -> SceneDetections:
        rows, columns = np.mgrid[:200, :200] + 0.5
        masks = []
        for x1, y1, x2, y2 in scene.boxes:
            inside = ((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 0.25
            masks.append(MaskWindow(0, 0, inside).run_lengths(200, 200))
        return replace(scene, masks=masks)

    found, truths = scenes(images, classes, seed, 0.2)
    return [with_masks(each) for each in found], [with_masks(each) for each in truths]


def coco_mask_map(found: list[SceneDetections], truths: list[SceneDetections], classes: int) -> float:
    """The figure that pycocotools prints for segm."""

    def rows(scenes: list[SceneDetections]) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = []
        for image, scene in enumerate(scenes, start=1):
            crowds = np.zeros(len(scene.class_ids)) if scene.is_crowd is None else scene.is_crowd
            for mask, class_id, score, crowd in zip(
                scene.masks or (), scene.class_ids, scene.scores, crowds, strict=True
            ):
                row = {"image_id": image, "category_id": int(class_id), "segmentation": mask.coco}
                listed.append(
                    {**row, "id": len(listed) + 1, "score": float(score), "iscrowd": int(crowd), "area": mask.area}
                )
        return listed

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": index + 1, "width": 200, "height": 200} for index in range(len(truths))],
            "categories": [{"id": index} for index in range(classes)],
            "annotations": rows(truths),
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows(found)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("seed", range(3))
def test_metric_of_masks_equals_pycocotools(seed: int) -> None:
    found, truths = mask_scenes(20, 3, seed)

    evidence = detect_evidence(found, truths, 3)

    expected = coco_mask_map(found, truths, 3)
    assert (evidence.metric, point_value(evidence)) == ("mask_map", pytest.approx(expected, abs=1e-9))
    assert expected != pytest.approx(coco_map(found, truths, 3), abs=1e-3)


def test_detection_that_finds_a_crowd_counts_neither_for_nor_against() -> None:
    boxes = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 90.0, 50.0]])
    truth = SceneDetections(boxes, np.array([0, 0]), np.ones(2), np.array([False, True]))
    inside = np.array([[30.0, 5.0, 40.0, 15.0], [50.0, 5.0, 60.0, 15.0], [0.0, 0.0, 10.0, 10.0]])
    found = SceneDetections(inside, np.zeros(3, np.int64), np.array([0.9, 0.8, 0.7]))

    assert point_value(detect_evidence([found], [truth], 1)) == pytest.approx(1.0)
    assert coco_map([found], [truth], 1) == pytest.approx(1.0)


def test_only_the_hundred_best_detections_of_a_class_count() -> None:
    rng = np.random.default_rng(1)
    truth = SceneDetections(np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([0]), np.ones(1))
    boxes = np.concatenate([rng.uniform(50, 60, (100, 4)), truth.boxes])
    found = SceneDetections(boxes, np.zeros(101, np.int64), np.linspace(1.0, 0.1, 101))

    assert point_value(detect_evidence([found], [truth], 1)) == coco_map([found], [truth], 1) == 0.0


def test_weighting_an_image_twice_equals_repeating_it() -> None:
    found, truths = scenes(10, 3, 0)
    weights = np.array([[2, 0, *([1] * 8)]])
    repeated = [0, 0, *range(2, 10)]

    weighted = detect_evidence(found, truths, 3).values(weights)[0]
    again = detect_evidence([found[i] for i in repeated], [truths[i] for i in repeated], 3)

    assert weighted == pytest.approx(point_value(again), abs=1e-3)


def test_worst_class_is_the_one_that_may_have_lost_most() -> None:
    truth = np.repeat([0, 1, 2], 40)
    expected = ClassifyEvidence(truth.copy(), truth, 4)
    predicted = truth.copy()
    predicted[80:90] = 0  # ten of forty images of class 2
    predicted[0] = 1
    found = accuracy_of(ClassifyEvidence(predicted, truth, 4), expected, 200)

    assert found.worst_class is not None
    assert found.worst_class.class_id == 2
    assert found.worst_class.drop.value == pytest.approx(0.25)
    assert found.worst_class.drop.low < 0.25 < found.worst_class.drop.high
    # The mean over all images hides most of it.
    assert found.drop.value == pytest.approx(11 / 120)


def test_a_small_class_in_which_nothing_changed_is_not_certain_and_never_worse() -> None:
    truth = np.repeat([0, 1], [200, 8])
    evidence = ClassifyEvidence(truth.copy(), truth, 2)

    worst = accuracy_of(evidence, evidence, 200).worst_class

    assert worst is not None
    assert worst.class_id == 1
    assert worst.is_never_worse
    assert worst.judged == 0.0
    assert worst.drop.high > 0.3  # of eight images none says little


def test_a_lost_image_of_a_small_class_weighs_more_than_an_unchanged_smaller_one() -> None:
    truth = np.repeat([0, 1, 2], [200, 20, 3])
    predicted = truth.copy()
    predicted[200] = 0

    worst = accuracy_of(ClassifyEvidence(predicted, truth, 3), ClassifyEvidence(truth, truth, 3), 200).worst_class

    assert worst is not None
    assert (worst.class_id, worst.is_never_worse) == (1, False)
    assert worst.judged == worst.drop.high > 0.2


def test_an_unchanged_class_of_boxes_has_room_for_images_not_drawn() -> None:
    found, truths = scenes(40, 3, 0)
    evidence = detect_evidence(found, truths, 3)

    worst = accuracy_of(evidence, evidence, 200).worst_class

    assert worst is not None
    assert worst.is_never_worse
    assert worst.drop.low < 0.0 < worst.drop.high


def test_class_values_weigh_images_as_the_metric_does() -> None:
    truth = np.array([0, 0, 1])
    evidence = ClassifyEvidence(np.array([0, 1, 1]), truth, 3)

    values = evidence.class_values(np.array([[1, 1, 1], [3, 1, 0]]))

    np.testing.assert_allclose(values, [[0.5, 1.0, np.nan], [0.75, np.nan, np.nan]])
