"""Proposals of `init`. Promises: less than was reached, and nothing where nothing is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.export.data.image_split import ImageSplit
from saccade.export.data.labelled_images import ClassSample, DetectSample, Sample
from saccade.export.qualification.evidence import accuracy_of
from saccade.export.qualification.picture_figures import PictureEvidence
from saccade.export.qualification.proposals import BUDGET_S, MOST_PICTURES, Proposal, _floor, proposal
from saccade.export.recipe import Recipe
from saccade.models.contract.preprocessing import geometry_of
from saccade.models.contract.specs import Task

SIDE = 8
BOX = np.array([[1.0, 1.0, 5.0, 5.0]], np.float32)


def recipe(task: Task) -> Recipe:
    sizes = {"top_k": 2} if task is Task.CLASSIFY else {"max_detections": 2}
    return Recipe.model_validate(
        {
            "model": "m",
            "source": {"kind": "module", "factory": "a:b"},
            "task": {"task": task.value, **sizes},
            "labels": ["cat", "dog"],
            "preprocess": {"width": SIDE, "height": SIDE, "fit": "stretch"},
            "data": "pictures",
        }
    )


def split(samples: list[Sample]) -> ImageSplit:
    """The number of a picture is in its pixels."""
    images = np.zeros((len(samples), SIDE, SIDE, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(samples)) % 256
    geometries = [geometry_of(SIDE, SIDE, recipe(Task.CLASSIFY).preprocess)] * len(samples)
    return ImageSplit("tuning", samples, images, geometries, tuple(map(str, range(len(samples)))))


def classes(wrong_every: int) -> Proposal:
    """Of a classifier of even and odd pictures that is wrong about each so-many-th."""

    def answer(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        number = images[:, 0, 0, 0].astype(np.int64)
        found = (number + (number % wrong_every == 0)) % 2
        return [np.tile([0.9, 0.1], (len(images), 1)), np.stack([found, 1 - found], 1)]

    samples: list[Sample] = [ClassSample(b"", index % 2) for index in range(200)]
    return proposal(answer, split(samples), recipe(Task.CLASSIFY))


def test_the_floor_lies_twice_the_interval_below_what_was_reached() -> None:
    found = classes(wrong_every=10)

    assert found.min_metric is not None
    assert 0.6 < found.min_metric < 0.85
    assert found.lines == {"gate": {"min_metric": found.min_metric}}
    assert "top1 0.900" in found.sentences[0]
    assert "200 tuning pictures" in found.sentences[0]


def test_a_network_that_guesses_is_told_so_before_any_export() -> None:
    found = classes(wrong_every=2)

    assert found.lines == {}
    assert "no better than guessing" in found.sentences[0]
    assert found.is_guess
    assert "always answering 'cat'" in found.sentences[0]


def test_a_detector_gets_the_threshold_with_the_best_f1() -> None:
    def answer(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        count = len(images)
        right = np.tile(BOX, (count, 1, 1)) + (images[:, 0, 0, 0] % 2 * 2.0)[:, None, None]
        scores = np.tile(np.array([0.8, 0.4], np.float32), (count, 1))
        boxes = np.concatenate([right, right + 20.0], 1).astype(np.float32)
        return [boxes, scores, np.zeros((count, 2), np.int32), np.full(count, 2, np.int32)]

    samples: list[Sample] = [DetectSample(b"", BOX + index % 2 * 2.0, np.array([0])) for index in range(40)]

    found = proposal(answer, split(samples), recipe(Task.DETECT))

    assert found.score_threshold is not None
    assert 0.4 < found.score_threshold <= 0.8
    assert "best F1" in found.sentences[1]


@pytest.mark.parametrize("pictures", [1, 19])
def test_a_few_pictures_propose_nothing(pictures: int) -> None:
    samples: list[Sample] = [ClassSample(b"", 0)] * pictures
    answer = [np.ones((pictures, 2)), np.zeros((pictures, 2), np.int64)]

    found = proposal(lambda images: [each[: len(images)] for each in answer], split(samples), recipe(Task.CLASSIFY))

    assert found.lines == {}
    assert f"from {pictures} tuning pictures" in found.sentences[0]


def test_no_batch_begins_after_the_time() -> None:
    seen: list[int] = []
    clock = iter([0.0, *[BUDGET_S / 4 * turn for turn in range(99)]])

    def answer(images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        seen.append(len(images))
        return [np.ones((len(images), 2)), np.zeros((len(images), 2), np.int64)]

    samples: list[Sample] = [ClassSample(b"", 0)] * (MOST_PICTURES + 50)
    proposal(answer, split(samples), recipe(Task.CLASSIFY), clock=lambda: next(clock))

    assert len(seen) == 5


@pytest.mark.parametrize(("chance", "is_guess"), [(0.96, False), (0.9797, True)])
def test_what_a_network_of_pictures_gains_is_a_share_of_what_is_left_to_gain(chance: float, is_guess: bool) -> None:
    scores = np.random.default_rng(0).beta(490, 10, 110)  # a mean of 0.98
    evidence = PictureEvidence(scores, np.full(110, 30.0), "ssim")

    floor, sentence = _floor(accuracy_of(evidence, evidence, 200), chance)

    assert (floor is None) == is_guess
    assert ("no better than guessing" in sentence) == is_guess
    assert floor is None or floor > chance
