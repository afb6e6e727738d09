"""Readings of pixels that are measured. Promises: one that is clearly better is taken, and no other."""

from __future__ import annotations

import io
from itertools import count
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.labelled_images import ClassSample
from saccade.export.qualification.readings import BUDGET_S, measured_readings
from saccade.export.recipe import Recipe

SIDE = 8
WORDS = ("fit", "channel_order", "value_range")


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "model": "m",
            "source": {"kind": "module", "factory": "a:b"},
            "task": {"task": "classify", "top_k": 2},
            "labels": ["grey", "blue"],
            "preprocess": {"width": SIDE, "height": SIDE, "fit": "stretch"},
            "normalisation": {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]},
            "data": "pictures",
        }
    )


def encoded(class_id: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE * 2), (0, 0, 255 * class_id)).save(buffer, "PNG")
    return buffer.getvalue()


SAMPLES = [ClassSample(encoded(index % 2), index % 2) for index in range(40)]


def by_first_channel(recipe: Recipe, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Of a classifier that was trained on blue first, on a letterbox."""
    centre = images[:, SIDE // 2, SIDE // 2, 0] > 128
    found = (centre & (recipe.preprocess.fit == "letterbox")).astype(np.int64)
    return [np.tile([0.9, 0.1], (len(images), 1)), np.stack([found, 1 - found], 1)]


def by_fit(recipe: Recipe, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Of a classifier that takes everything for its opposite unless pictures lie on a letterbox."""
    centre = images[:, SIDE // 2, SIDE // 2].max(1) > 128
    found = (centre if recipe.preprocess.fit == "letterbox" else ~centre).astype(np.int64)
    return [np.tile([0.9, 0.1], (len(images), 1)), np.stack([found, 1 - found], 1)]


def test_the_reading_that_is_clearly_better_is_taken() -> None:
    found, figures = measured_readings(by_fit, SAMPLES, recipe(), WORDS, 8)

    by_word = {each.word: each for each in figures}
    assert found.preprocess.fit == "letterbox"
    assert str(by_word["fit"]) == "letterbox 1.00, stretch 0.00"
    assert by_word["fit"].is_clear
    assert found.normalisation == recipe().normalisation
    assert not by_word["value_range"].is_clear
    assert [name for name, _ in by_word["value_range"].figures] == ["[0, 1]", "[-1, 1]", "ImageNet"]


def test_nothing_is_changed_where_no_reading_is_better() -> None:
    found, figures = measured_readings(by_first_channel, SAMPLES, recipe(), ("channel_order", "value_range"), 8)

    assert found == recipe()
    assert not any(each.is_clear for each in figures)


@pytest.mark.parametrize(("pictures", "step"), [(10, 0.0), (40, BUDGET_S)])
def test_few_pictures_or_a_slow_network_change_nothing(pictures: int, step: float) -> None:
    ticks = count(0.0, step)

    found, figures = measured_readings(by_fit, SAMPLES[:pictures], recipe(), WORDS, 8, lambda: next(ticks))

    assert found == recipe()
    assert figures == ()
