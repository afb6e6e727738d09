"""Pictures of the pointing game. Promises: a mosaic's tile holds the class that it says, deletion takes the hottest."""

from __future__ import annotations

import numpy as np

from tests.load.pointing import CROP_SIZE, crop, mosaic, scene, without_hottest


def test_a_mosaic_has_another_class_in_each_tile() -> None:
    found = mosaic(3, side=2)

    assert found.pixels.shape == (2 * CROP_SIZE, 2 * CROP_SIZE, 3)
    assert len(found.boxes) == 4
    corners = {tuple(box[0]) for box in found.boxes.values()}
    side = CROP_SIZE
    assert corners == {(x, y, x + side, y + side) for x in (0, side) for y in (0, side)}
    first = crop(3000)
    (class_id,) = first.boxes
    assert found.boxes[class_id][0].tolist() == [0, 0, side, side]
    assert np.array_equal(found.pixels[:side, :side], first.pixels)


def test_equal_scenes_have_one_digit_within_the_picture() -> None:
    one, again = scene(5), scene(5)

    assert np.array_equal(one.pixels, again.pixels)
    ((class_id, box),) = one.boxes.items()
    assert 0 <= class_id < 10
    assert (box.min() >= 0, box.max() <= len(one.pixels)) == (True, True)


def test_deletion_gives_the_hottest_places_the_mean_colour() -> None:
    image = np.random.default_rng(0).integers(0, 200, (8, 8, 3), np.uint8)
    image[0, 0] = 255
    heat = np.zeros((8, 8), np.float32)
    heat[2:4, 5] = 1.0

    deleted = without_hottest(image, heat, 2 / 64)

    changed = (deleted != image).any(-1)
    assert np.argwhere(changed).tolist() == [[2, 5], [3, 5]]
    assert deleted[2, 5].tolist() == image.mean((0, 1)).astype(np.uint8).tolist()
