"""Evidence of embedders. Promises: recall@1 with the intervals of a rate, its own guess, faults that are named."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample
from saccade.export.qualification.accuracy import evidence_of, retrieval_of
from saccade.export.qualification.chance import Chance, chance_of
from saccade.export.qualification.curves import curves_of
from saccade.export.qualification.disagreements import amounts_of
from saccade.export.qualification.evidence import accuracy_of, point_value
from saccade.export.qualification.parity import answer_difference
from saccade.export.qualification.plausibility import answer_faults
from saccade.export.qualification.truth_faults import truth_faults
from saccade.models.contract.preprocessing import geometry_of
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from saccade.models.metrics.agreement import answer_agreement

SIDE = 8
PREPROCESS = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")
TASK = TaskSpec(task=Task.EMBED, dim=2)
LABELS = ("cat", "dog", "owl")
CLASS_IDS = [0, 0, 0, 1, 1, 2]
ANGLES = np.radians([0.0, 10.0, 20.0, 90.0, 80.0, 180.0])


def at(angles: np.ndarray) -> list[np.ndarray]:
    return [np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)]


def split() -> ImageSplit:
    samples = [ClassSample(b"", class_id) for class_id in CLASS_IDS]
    count = len(samples)
    images = np.zeros((count, SIDE, SIDE, 3), np.uint8)
    return ImageSplit("test", samples, images, [geometry_of(SIDE, SIDE, PREPROCESS)] * count, ("",) * count)


def test_only_pictures_that_can_be_found_are_queries() -> None:
    evidence = evidence_of(at(ANGLES), split(), TASK, len(LABELS))

    assert (evidence.metric, evidence.images) == ("recall_at_1", 5)
    assert point_value(evidence) == 1.0


def test_a_worse_variant_drops_pairwise_and_by_label() -> None:
    reference = evidence_of(at(ANGLES), split(), TASK, len(LABELS))
    angles = ANGLES.copy()
    angles[4] = np.radians(14.0)  # a dog among the cats, which also takes the other dog's only match
    evidence = evidence_of(at(angles), split(), TASK, len(LABELS))
    found = accuracy_of(evidence, reference, 50)

    assert found.drop.value == pytest.approx(4 / 5)
    assert found.drop.low < found.drop.value < found.drop.high
    assert found.worst_class is not None
    assert found.worst_class.class_id == 1
    assert curves_of(evidence).confusion is not None


def test_the_guess_always_finds_the_largest_label() -> None:
    evidence = evidence_of(at(ANGLES), split(), TASK, len(LABELS))

    assert chance_of(at(ANGLES), evidence, split(), TASK, LABELS) == Chance(3 / 5, "always finding 'cat'")


def test_figures_beside_the_metric() -> None:
    found = retrieval_of(at(ANGLES), split(), TASK)

    assert found is not None
    assert (found.queries, found.recall[1], found.mean_average_precision) == (5, 1.0, 1.0)
    assert retrieval_of(at(ANGLES), split(), TaskSpec(task=Task.CLASSIFY, top_k=1)) is None


def test_labels_of_pictures_are_never_exchanged() -> None:
    evidence = evidence_of(at(ANGLES), split(), TASK, len(LABELS))

    assert list(truth_faults(at(ANGLES), evidence, split(), TASK, LABELS)) == []


def test_zeros_and_equal_vectors_are_faults() -> None:
    zeros, equal = at(ANGLES), at(np.zeros(6))
    zeros[0][2] = 0

    assert list(answer_faults(at(ANGLES), TASK, PREPROCESS, 3)) == []
    assert "1 of 6 pictures are zeros (the first is number 2)" in next(answer_faults(zeros, TASK, PREPROCESS, 3))
    assert "the same vector" in next(answer_faults(equal, TASK, PREPROCESS, 3))


def test_parity_is_that_of_the_worst_picture_and_tells_the_cosine() -> None:
    angles = ANGLES.copy()
    angles[3] += 0.01

    found = answer_difference(at(angles), at(ANGLES), Task.EMBED)

    assert found.relative_l2 == pytest.approx(np.sqrt(2 * (1 - np.cos(0.01))), rel=1e-3)
    assert answer_difference([at(ANGLES)[0] * np.nan], at(ANGLES), Task.EMBED).relative_l2 is None


def test_pictures_with_another_nearest_one_differ() -> None:
    angles = ANGLES.copy()
    angles[1] = np.radians(16.0)  # the first cat's nearest stays, and the second now has the third

    amounts = amounts_of(at(ANGLES), at(angles), TASK)

    assert np.flatnonzero(amounts).tolist() == [1]


def test_rank_agreement_needs_more_pictures_than_neighbours() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 2)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    other = vectors[rng.permutation(30)]

    assert answer_agreement([vectors], [vectors], TASK, 0) == {"cosine": pytest.approx(1.0), "neighbours": 1.0}
    assert answer_agreement([other], [vectors], TASK, 0)["neighbours"] < 0.6
    assert "neighbours" not in answer_agreement(at(ANGLES), at(ANGLES), TASK, 0)
