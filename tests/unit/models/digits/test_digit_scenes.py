"""Labelled samples. Promises held here: equal keys give equal bytes, truth fits the pixels, digits are readable."""

import numpy as np
import pytest

from saccade.models.digits.digit_scenes import (
    CROP_SIZE,
    SCENE_SIZE,
    Split,
    crop_sample,
    crop_samples,
    decode_rgb,
    scene_sample,
    scene_samples,
)
from saccade.models.training.samples import crop_set, scene_set

SOME = 40
LUMA = np.array([0.299, 0.587, 0.114])


def test_equal_keys_give_equal_samples() -> None:
    assert crop_sample(Split.TEST, 3, 5) == crop_sample(Split.TEST, 3, 5)
    first, second = scene_sample(Split.TEST, 3, 5), scene_sample(Split.TEST, 3, 5)
    assert first.jpeg == second.jpeg
    assert np.array_equal(first.mask, second.mask)
    assert np.array_equal(first.boxes, second.boxes)


def test_a_sample_does_not_depend_on_those_before_it() -> None:
    alone = scene_sample(Split.TRAIN, 1, 4).jpeg
    in_range = [sample.jpeg for sample in scene_samples(Split.TRAIN, 1, 3, start=2)]
    assert in_range[2] == alone


@pytest.mark.parametrize("other", [(Split.TUNING, 1, 0), (Split.TRAIN, 2, 0), (Split.TRAIN, 1, 1)])
def test_split_seed_and_index_each_change_the_sample(other: tuple[Split, int, int]) -> None:
    assert scene_sample(*other).jpeg != scene_sample(Split.TRAIN, 1, 0).jpeg
    assert crop_sample(*other).jpeg != crop_sample(Split.TRAIN, 1, 0).jpeg


def test_crops_are_jpegs_of_the_stated_size_and_show_all_digits() -> None:
    crops = list(crop_samples(Split.TEST, 0, 100))
    assert all(crop.jpeg.startswith(b"\xff\xd8\xff") for crop in crops)
    assert {decode_rgb(crop.jpeg).shape for crop in crops} == {(CROP_SIZE, CROP_SIZE, 3)}
    assert {crop.class_id for crop in crops} == set(range(10))


def test_boxes_lie_inside_and_are_tight_around_their_class() -> None:
    for scene in scene_samples(Split.TEST, 0, SOME):
        assert decode_rgb(scene.jpeg).shape == (SCENE_SIZE, SCENE_SIZE, 3)
        assert 1 <= len(scene.boxes) == len(scene.class_ids) <= 6
        assert scene.boxes.min() >= 0
        assert scene.boxes.max() <= SCENE_SIZE
        for (x1, y1, x2, y2), class_id in zip(scene.boxes.astype(int), scene.class_ids, strict=True):
            inside = scene.mask[y1:y2, x1:x2] == class_id + 1
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any(), "a tight box touches its digit on every side"


def test_every_mask_pixel_belongs_to_a_box_of_its_class() -> None:
    for scene in scene_samples(Split.TRAIN, 0, SOME):
        explained = scene.mask == 0
        for (x1, y1, x2, y2), class_id in zip(scene.boxes.astype(int), scene.class_ids, strict=True):
            explained[y1:y2, x1:x2] |= scene.mask[y1:y2, x1:x2] == class_id + 1
        assert explained.all()


def test_digits_stand_out_from_what_lies_under_them() -> None:
    for scene in scene_samples(Split.TEST, 7, SOME):
        luminance = decode_rgb(scene.jpeg) @ LUMA
        for (x1, y1, x2, y2), class_id in zip(scene.boxes.astype(int), scene.class_ids, strict=True):
            ink = scene.mask[y1:y2, x1:x2] == class_id + 1
            ground = scene.mask[y1:y2, x1:x2] == 0
            around = luminance[y1:y2, x1:x2]
            assert abs(around[ink].mean() - around[ground].mean()) > 40


def test_decoded_sets_keep_the_order_of_samples() -> None:
    crops = crop_set(Split.TUNING, 2, 5)
    scenes = scene_set(Split.TUNING, 2, 3)
    assert np.array_equal(crops.images[3], decode_rgb(crop_sample(Split.TUNING, 2, 3).jpeg))
    expected = scene_sample(Split.TUNING, 2, 1)
    assert np.array_equal(scenes.images[1], decode_rgb(expected.jpeg))
    assert np.array_equal(scenes.masks[1], expected.mask)
    assert scenes.counts()[1] == len(expected.boxes)
    assert np.array_equal(scenes.boxes[1, : len(expected.boxes)], expected.boxes)
