"""Evidence of several labels per picture. Promises: scikit-learn's average precision, for any weighting of images."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import LabelsSample
from saccade.export.qualification.chance import chance_of
from saccade.export.qualification.curves import curves_of
from saccade.export.qualification.disagreements import amounts_of
from saccade.export.qualification.evidence import accuracy_of, point_value
from saccade.export.qualification.label_evidence import LabelEvidence
from saccade.export.qualification.operating_point import best_threshold, operating_accuracy
from saccade.export.qualification.parity import answer_difference
from saccade.export.qualification.plausibility import answer_faults
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from saccade.models.metrics.agreement import answer_agreement
from saccade.models.metrics.metrics import scores_by_label

TASK = TaskSpec(task=Task.CLASSIFY, top_k=3, multi_label=True, score_threshold=0.5)
PIXELS = PreprocessSpec(width=8, height=8, fit="stretch")


def drawn(images: int = 80, seed: int = 0) -> LabelEvidence:
    """Scores with ties that know something of the truth; the last label is shown by no image."""
    rng = np.random.default_rng(seed)
    truth = rng.random((images, 3)) < (0.5, 0.2, 0.0)
    return LabelEvidence(np.clip(truth * 0.3 + rng.random((images, 3)), 0, 1).round(1), truth)


def answer_of(scores: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(-scores, axis=1, kind="stable")
    return [np.take_along_axis(scores, order, 1).astype(np.float32), order.astype(np.int32)]


def test_average_precision_is_scikit_learns() -> None:
    found = drawn()
    weights = np.random.default_rng(1).multinomial(80, np.full(80, 1 / 80), size=3)

    figures = found.class_values(weights)

    for row, drawn_images in enumerate(weights):
        for label in range(2):
            wanted = average_precision_score(found.truth[:, label], found.scores[:, label], sample_weight=drawn_images)
            assert figures[row, label] == pytest.approx(wanted)
    assert np.isnan(figures[:, 2]).all()
    assert point_value(found) == pytest.approx(np.nanmean(found.per_class()))


def test_constant_scores_reach_the_share_of_images_that_show_the_label() -> None:
    found = drawn()
    same = LabelEvidence(np.full((80, 3), 0.5), found.truth)
    split = ImageSplit(
        "test",
        [LabelsSample(b"", tuple(np.flatnonzero(row).tolist())) for row in found.truth],
        np.zeros((80, 8, 8, 3), np.uint8),
        [],
        (),
    )

    chance = chance_of(answer_of(np.full((80, 3), 0.5)), same, split, TASK, ("a", "b", "c"))

    assert point_value(same) == pytest.approx(found.truth[:, :2].mean(0).mean())
    assert chance.value == pytest.approx(point_value(same))
    assert chance.guess == "the same scores for every picture"


def test_the_operating_point_counts_labels_that_reach_the_threshold() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], bool)
    found = LabelEvidence(np.array([[0.9, 0.6, 0.1], [0.8, 0.4, 0.1], [0.2, 0.1, 0.1], [0.3, 0.7, 0.1]]), truth)

    point, accuracy = operating_accuracy(found, found, 0.5, 50) or pytest.fail("a multi-label answer has one")

    assert (point.precision, point.recall, point.f1) == (3 / 4, 3 / 4, 3 / 4)
    assert point.metric.name == accuracy.metric == "label_map"
    assert point.metric.value == pytest.approx((1.0 + 0.5) / 2)  # of the second label one of two is found
    threshold, shares = best_threshold(found)
    assert threshold == 0.4  # the middle of those with the best F1
    assert shares.f1 == pytest.approx(2 * 4 / (4 + 5))


def test_losing_a_label_is_seen_by_class_agreement_and_pictures() -> None:
    found = drawn()
    lost = found.scores.copy()
    lost[:, 1] *= 0.4
    reference, variant = answer_of(found.scores), answer_of(lost)

    figures = accuracy_of(LabelEvidence(np.where(lost >= 0.5, lost, 0.0), found.truth), found, 50)
    amounts = amounts_of(reference, variant, TASK)

    assert figures.worst_class is not None
    assert figures.worst_class.class_id == 1
    assert np.array_equal(amounts > 0, (found.scores[:, 1] >= 0.5) & (lost[:, 1] < 0.5))
    kept = int((found.scores[:, [0, 2]] >= 0.5).sum())
    both = 2 * kept + int((found.scores[:, 1] >= 0.5).sum())
    assert answer_agreement(variant, reference, TASK, 3) == {"labels": pytest.approx(2 * kept / both)}
    assert answer_agreement(reference, reference, TASK, 3) == {"labels": 1.0}


def test_the_order_of_equal_labels_is_no_difference() -> None:
    scores = np.array([[1.0, 1.0, 0.2]])
    swapped = [np.array([[1.0, 1.0, 0.2]], np.float32), np.array([[1, 0, 2]], np.int32)]

    gap = answer_difference(swapped, answer_of(scores), Task.CLASSIFY, multi_label=True)

    assert (gap.relative_l2, gap.id_disagreement) == (0.0, 0.0)
    assert np.allclose(scores_by_label(swapped), scores)


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        (np.full((4, 3), 0.4), "no label of 4 pictures reaches the score threshold 0.5 .the best is at 0.4"),
        (np.full((4, 3), 0.6), "every picture gets the same scores"),
        (0.6 + np.arange(12).reshape(4, 3) / 100, "every label of all 4 pictures reaches the score threshold 0.5"),
        (np.full((4, 3), 1.7), "scores reach from 1.7 to 1.7 .*`outputs: {scores: sigmoid}`"),
    ],
)
def test_scores_that_cannot_be_true_are_named(scores: np.ndarray, text: str) -> None:
    faults = list(answer_faults(answer_of(scores), TASK, PIXELS, 3))

    assert len([fault for fault in faults if re.search(text, fault)]) == 1


def test_curves_have_a_line_per_label_that_occurs() -> None:
    (found,) = curves_of(drawn()).precision_recall

    assert found.iou is None
    assert found.class_ids == (0, 1)
    assert found.average_precision[2] is None
