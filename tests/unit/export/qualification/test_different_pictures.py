"""Copies among test images. Promises: what was saved again or brightened a little counts once; marks count."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.qualification.different_pictures import different_pictures

SIDE = 64


def scene(seed: int) -> NDArray[np.uint8]:
    small = np.random.default_rng(seed).integers(0, 200, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def saved_again(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=95, subsampling="4:4:4")
    return np.asarray(Image.open(out))


def test_copies_count_once() -> None:
    scenes = [scene(seed) for seed in range(3)]
    copies = [each + np.uint8(level) for each in scenes for level in range(2)] + [saved_again(each) for each in scenes]

    assert different_pictures(np.stack(copies)) == 3


def test_pictures_of_a_fixed_camera_differ_by_what_they_show() -> None:
    pictures = np.stack([scene(0)] * 12)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 4)
        picture[20 * row : 20 * row + 4, 16 * column : 16 * column + 8] = 255

    assert different_pictures(pictures) == 12


def test_scenes_of_their_own_all_count() -> None:
    assert different_pictures(np.stack([scene(seed) for seed in range(40)])) == 40
