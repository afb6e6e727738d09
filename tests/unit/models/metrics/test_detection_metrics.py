"""mAP from match records. Promise held here: COCOeval's own figure, for any selection of images."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from saccade.models.metrics.detection_metrics import Detections, average_precision, match_records

CLASSES = 4


def random_truth(rng: np.random.Generator) -> Detections:
    """A few boxes, every fifth a crowd."""
    count = int(rng.integers(0, 6))
    corners = rng.uniform(0, 180, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 70, (count, 2))], 1).astype(np.float32)
    return Detections(boxes, rng.integers(0, CLASSES - 1, count), np.ones(count, np.float32), rng.random(count) < 0.2)


def noisy_answer(rng: np.random.Generator, truth: Detections) -> Detections:
    """Shifted truth, some of it missing or of a wrong class, with false alarms and tied scores."""
    keep = rng.random(len(truth.boxes)) < 0.85
    boxes = truth.boxes[keep] + rng.normal(0, 4, (int(keep.sum()), 4))
    alarms = rng.uniform(0, 100, (8, 2))
    boxes = np.concatenate([boxes, np.concatenate([alarms, alarms + 50], 1)]).astype(np.float32)
    class_ids = np.concatenate([truth.class_ids[keep], rng.integers(0, CLASSES, 8)])
    return Detections(boxes, class_ids, np.round(rng.random(len(boxes)), 1).astype(np.float32))


def cases(seed: int, images: int) -> tuple[list[Detections], list[Detections]]:
    rng = np.random.default_rng(seed)
    truths = [random_truth(rng) for _ in range(images)]
    return [noisy_answer(rng, truth) for truth in truths], truths


def cocoeval_map(answers: list[Detections], truths: list[Detections]) -> float:
    """The figure pycocotools prints, by its public interface alone."""

    def index(rows: list[Detections]) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image + 1} for image in range(len(rows))],
            "categories": [{"id": class_id + 1} for class_id in range(CLASSES)],
            "annotations": [],
        }
        for image, row in enumerate(rows):
            crowds = np.zeros(len(row.scores), bool) if row.is_crowd is None else row.is_crowd
            values = (row.boxes.tolist(), row.class_ids, row.scores, crowds)
            for (x1, y1, x2, y2), class_id, score, is_crowd in zip(*values, strict=True):
                annotation = {
                    "id": len(coco.dataset["annotations"]) + 1,
                    "image_id": image + 1,
                    "category_id": int(class_id) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(is_crowd),
                    "score": float(score),
                }
                coco.dataset["annotations"].append(annotation)
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(index(truths), index(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize("seed", range(4))
def test_all_images_give_cocoevals_figure(seed: int) -> None:
    answers, truths = cases(seed, 25)
    expected = cocoeval_map(answers, truths)
    assert 0.05 < expected < 0.95
    assert average_precision(match_records(answers, truths, CLASSES)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_bootstrap_selection_gives_what_cocoeval_says_of_those_images(seed: int) -> None:
    answers, truths = cases(seed, 20)
    selection = np.random.default_rng(seed).integers(0, 20, 20)  # some images twice, some never
    expected = cocoeval_map([answers[i] for i in selection], [truths[i] for i in selection])
    found = average_precision(match_records(answers, truths, CLASSES), selection)
    assert found == pytest.approx(expected, abs=1e-9)


def test_perfect_answers_score_one_and_no_answers_zero() -> None:
    _, truths = cases(0, 10)
    nothing = Detections(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32))
    assert average_precision(match_records(truths, truths, CLASSES)) == pytest.approx(1.0)
    assert average_precision(match_records([nothing] * 10, truths, CLASSES)) == 0.0


def test_only_the_best_hundred_answers_of_an_image_count() -> None:
    truth = Detections(np.array([[0, 0, 50, 50]], np.float32), np.array([0]), np.ones(1, np.float32))
    decoys = np.tile(np.array([[100, 100, 150, 150]], np.float32), (100, 1))
    answer = Detections(
        np.concatenate([decoys, truth.boxes]), np.zeros(101, np.int64), np.linspace(1, 0.1, 101, dtype=np.float32)
    )
    assert average_precision(match_records([answer], [truth], CLASSES)) == 0.0


def test_lists_of_different_length_are_refused() -> None:
    answers, truths = cases(0, 3)
    with pytest.raises(ValueError, match="3 images"):
        match_records(answers[:2], truths, CLASSES)
