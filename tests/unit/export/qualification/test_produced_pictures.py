"""Pictures against targets. Promises: near and far are not exchanged, what says nothing does not count."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from saccade.export.data.image_split import ImageSplit, prepare_split
from saccade.export.data.labelled_images import ImageSample
from saccade.export.data.picture_pairs import made_pair
from saccade.export.qualification.chance import chance_of
from saccade.export.qualification.evidence import accuracy_of, point_value
from saccade.export.qualification.picture_figures import PictureEvidence, picture_figure
from saccade.export.qualification.produced_pictures import picture_evidence
from saccade.export.qualification.truth_faults import truth_faults
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from saccade.models.metrics.picture_quality import absolute_relative_error

SIDE = 32
DEPTH = TaskSpec(task=Task.IMAGE, picture="depth")


def png(pixels: NDArray[np.generic]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def depths(count: int) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(500, 4000, (count, SIDE, SIDE)).astype(np.uint16)


def split_of(truth: NDArray[np.uint16]) -> ImageSplit:
    grey = png(np.zeros((SIDE, SIDE), np.uint8))
    samples = [ImageSample(grey, png(each)) for each in truth]
    return prepare_split("test", samples, PreprocessSpec(width=SIDE, height=SIDE, fit="stretch"))


def test_depth_is_right_up_to_a_positive_factor_and_an_offset() -> None:
    truth = depths(1)[0]

    assert absolute_relative_error(0.01 * truth + 3, truth) == pytest.approx(0, abs=1e-6)
    constant = absolute_relative_error(np.zeros(truth.shape), truth)
    assert constant > 0.3
    assert absolute_relative_error(-0.01 * truth + 3, truth) == pytest.approx(constant)


def test_targets_that_say_nothing_do_not_count() -> None:
    truth = depths(4)
    answers = truth.astype(np.float32)
    answers[1] = answers[1][::-1]  # a wrong one, which nothing may make up for
    truth[2] = 0
    truth[3, 1:] = 0
    truth[3, 0, 2:] = 0  # any answer fits two pixels
    split = split_of(truth)

    evidence = picture_evidence(answers, split, DEPTH)

    wrong = max(0.0, 1 - absolute_relative_error(answers[1], truth[1]))
    assert point_value(evidence) == pytest.approx((1 + wrong) / 2)
    assert evidence.class_images().tolist() == [2]
    accuracy = accuracy_of(evidence, evidence, 100)
    assert accuracy.images == 2
    assert np.isfinite([accuracy.value.low, accuracy.value.high, accuracy.drop.high]).all()
    figure = picture_figure(evidence)
    assert figure is not None
    assert figure.absolute_relative_error == pytest.approx((1 - wrong) / 2, abs=1e-3)


def test_a_split_without_any_depth_reaches_nothing() -> None:
    truth = np.zeros((3, SIDE, SIDE), np.uint16)
    split = split_of(truth)
    evidence = picture_evidence(depths(3).astype(np.float32), split, DEPTH)

    assert point_value(evidence) == 0
    assert accuracy_of(evidence, evidence, 100).value.value == 0
    assert picture_figure(evidence) is None


def restored(shift: tuple[int, int], scale: int = 1, count: int = 24, strength: int = 3) -> list[str]:
    """The faults of a denoiser (a blur) or of an enlargement, whose answers lie so many pixels down and right."""
    task = TaskSpec(task=Task.IMAGE, picture="rgb", scale=scale)
    rng = np.random.default_rng(1)
    samples, answers = [], []
    for _ in range(count):
        coarse = rng.integers(0, 256, (12, 12, 3), np.uint8)
        clean = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))
        sample = made_pair(png(clean), task, 25.0 if scale == 1 else 0.0)
        samples.append(sample)
        with Image.open(io.BytesIO(sample.encoded)) as image:
            seen = image.resize((64, 64), Image.Resampling.BICUBIC) if scale > 1 else image
            plain = np.asarray(seen.filter(ImageFilter.BoxBlur(strength // 2)), np.float32) / 255
        answers.append(np.roll(plain, shift, axis=(0, 1)))
    split = prepare_split("test", samples, PreprocessSpec(width=64 // scale, height=64 // scale, fit="stretch"))
    stacked = [np.stack(answers)]
    return [*truth_faults(stacked, PictureEvidence(np.ones(count), np.ones(count), "ssim"), split, task, ["pictures"])]


@pytest.mark.parametrize(
    ("shift", "scale", "how"),
    [
        ((1, 0), 1, "moved up by a pixel"),
        ((0, -1), 1, "moved right by a pixel"),
        ((1, 1), 1, "moved up and left by a pixel"),
        ((-2, 0), 1, "moved down by a pixel"),
        ((1, 1), 2, "moved up and left by a pixel"),
    ],
)
def test_answers_beside_their_targets_are_named(shift: tuple[int, int], scale: int, how: str) -> None:
    (fault,) = restored(shift, scale)

    assert how in fault
    assert "24 of 24 fit better" in fault


@pytest.mark.parametrize(("scale", "strength"), [(1, 1), (1, 3), (1, 9), (2, 1), (2, 5), (4, 1)])
def test_answers_in_their_place_are_not(scale: int, strength: int) -> None:
    assert restored((0, 0), scale, strength=strength) == []


def test_a_few_pictures_may_lie_beside_their_targets_by_chance() -> None:
    assert restored((1, 1), count=10) == []


def test_similarities_of_a_good_network_have_the_interval_of_a_mean_and_not_of_a_share_of_right_pictures() -> None:
    scores = np.random.default_rng(0).beta(490, 10, 110)
    evidence = PictureEvidence(scores, np.full(110, 30.0), "ssim")

    value = accuracy_of(evidence, evidence, 200).value

    assert value.value == pytest.approx(scores.mean())
    assert 0.975 < value.low < 0.98 < value.high < 0.985


@pytest.mark.parametrize(
    ("scale", "guess"),
    [(1, "giving each picture back as it was sent"), (2, "enlarging each picture 2 times with a bicubic filter")],
)
def test_the_guess_of_a_network_of_pictures_says_what_is_done(scale: int, guess: str) -> None:
    task = TaskSpec(task=Task.IMAGE, picture="rgb", scale=scale)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE * scale, SIDE * scale, 3), np.uint8)
    sample = made_pair(png(pixels), task, 25.0 if scale == 1 else 0.0)
    split = prepare_split("test", [sample], PreprocessSpec(width=SIDE, height=SIDE, fit="tile"))
    answers = np.zeros((1, SIDE * scale, SIDE * scale, 3), np.float32)

    found = chance_of([answers], picture_evidence(answers, split, task), split, task, ["pictures"])

    assert found.guess == guess
